# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The torch twins of `perceptron` and `prior_gaussian`, as customisation trains them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from residual_rl_ros.residual_policy.architecture import OBSERVATION_CLIP, Float32
from residual_rl_ros.residual_policy.prior_gaussian import (
    HELD_NOISE,
    LEAST_LOG_STD,
    MOST_LOG_STD,
    PriorGaussian,
    PriorGaussianArchitecture,
)
from residual_rl_ros.residual_policy.torch_networks import Normalizer, make_body
from residual_rl_ros.robot.action_spec import Prior


class Perceptron(nn.Module):
    """Normaliser, hidden layers and linear heads that start at zero.

    Args:
        inputs: size n of an observation.
        hidden_sizes: widths of the hidden layers.
        outputs: size of the output.
    """

    def __init__(self, inputs: int, hidden_sizes: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.normalizer = Normalizer(inputs, clip=OBSERVATION_CLIP)
        self.body, width = make_body(inputs, hidden_sizes, nn.Linear, None)
        self.heads = nn.Linear(width, outputs)
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)

    def forward(self, observation: Tensor) -> Tensor:
        """Return the heads' output, (..., outputs), of observations (..., n), not normalised."""
        out: Tensor = self.heads(self.body(self.normalizer(observation)))
        return out

    def to_numpy(self) -> dict[str, Float32]:
        """Return a copy of its tensors, by name."""
        return {name: value.cpu().numpy().copy() for name, value in self.state_dict().items()}


class PriorGaussianNetwork(Perceptron):
    """A Gaussian whose moments are learned changes of the base policy's.

    Args:
        architecture: sizes.
    """

    def __init__(self, architecture: PriorGaussianArchitecture) -> None:
        layout = architecture.layout
        super().__init__(
            layout.observation_size, architecture.hidden_sizes, 2 * layout.decision_size
        )
        self.architecture = architecture

    def block(self, observation: Tensor, told: Tensor) -> Tensor:
        """Return mean and log standard deviation, shape (..., 2 k m), as a base would tell them.

        Args:
            observation: shape (..., n), not normalised.
            told: block of the base policy, shape (..., P).
        """
        change = self(observation)
        if self.architecture.layout.prior is Prior.NONE:
            told = torch.zeros_like(change)
            told[..., change.shape[-1] // 2 :] = self.architecture.initial_log_std
        mean, log_std = (told + change).chunk(2, dim=-1)
        most = told.chunk(2, dim=-1)[1].clamp_min(MOST_LOG_STD)
        return torch.cat([mean, log_std.clamp_min(LEAST_LOG_STD).minimum(most)], dim=-1)

    def to_policy(self, generator: torch.Generator) -> PriorGaussian:
        """Return a copy of what it is now, as the robot runs it.

        Args:
            generator: source of the noise that is held, if it is.
        """
        tensors = self.to_numpy()
        if self.architecture.hold_noise:
            size = self.architecture.layout.decision_size
            tensors[HELD_NOISE] = torch.randn(size, generator=generator).numpy()
        return PriorGaussian(self.architecture, tensors)
