# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Torch twins of `perceptron` and of `q_remix`, as customisation trains them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Float32
from residual_rl_ros.residual_policy.architecture import (
    OBSERVATION_CLIP,
    CriticArchitecture,
    trained_range,
)
from residual_rl_ros.residual_policy.candidate_selection import CRITIC
from residual_rl_ros.residual_policy.perceptron import (
    HELD_NOISE,
    LEAST_LOG_STD,
    MOST_LOG_STD,
    CategoricalArchitecture,
    CategoricalPolicy,
    PriorGaussian,
    PriorGaussianArchitecture,
)
from residual_rl_ros.residual_policy.q_remix import QRemixArchitecture, QRemixPolicy
from residual_rl_ros.residual_policy.torch_networks import Critic, Normalizer, make_body
from residual_rl_ros.transitions.layout import TransitionLayout


class ProposalCritics(nn.Module):
    """Q_i(s, a_j) of several actions at each observation, with the scaling of both.

    Args:
        layout: sizes and the trained range of actions.
        heads: number of Q functions.
        hidden_sizes: hidden layers of each.

    Raises:
        ConfigError: the residual cannot lead from one proposal to any other.
    """

    center: Tensor
    half_range: Tensor

    def __init__(self, layout: TransitionLayout, heads: int, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self._layout = layout
        self._sizes = CriticArchitecture(heads, hidden_sizes, 'layer', sees_residual=False)
        low, high, bound = (
            torch.tensor(values).repeat(layout.decision_steps)
            for values in (layout.action_min, layout.action_max, layout.residual_bound)
        )
        # What the base never uses has no bound.
        short = (bound > 0.0) & (bound < 0.999 * (high - low))
        if layout.proposals > 1 and bool(short.any()):
            raise ConfigError(
                f'residual_bound is {list(layout.residual_bound)}, less than the range of the '
                "base's actions: its proposals are that far apart; set residual_scale to 2"
            )
        center, half_range = map(torch.tensor, trained_range(layout))
        self.register_buffer('center', center, persistent=False)
        self.register_buffer('half_range', half_range, persistent=False)
        inputs = layout.observation_size + layout.decision_size
        self.normalizer = Normalizer(layout.observation_size)
        self.critic = Critic(heads, inputs, hidden_sizes, 'layer')

    def forward(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Return Q, shape (heads, batch, N).

        Args:
            observation: shape (batch, n), not normalised.
            actions: shape (batch, N, k * m), command units.
        """
        rows, count, _ = actions.shape
        s = self.normalizer(observation).repeat_interleave(count, 0)
        q: Tensor = self.critic(s, ((actions - self.center) / self.half_range).flatten(0, 1))
        return q.view(-1, rows, count)

    def proposals(self, base: Tensor, others: Tensor) -> Tensor:
        """Return all proposals, (batch, N, k * m), the base action first."""
        return torch.cat([base, others], dim=1).view(len(base), -1, self._layout.decision_size)

    def to_numpy(self, beta: float, temperature: float) -> QRemixPolicy:
        """Return a copy of what they are now, as the robot runs it."""
        tensors = {
            # The robot has the names of critics that choose.
            name.replace('critic.', CRITIC, 1): value.cpu().numpy().copy()
            for name, value in self.state_dict().items()
        }
        return QRemixPolicy(
            QRemixArchitecture(self._layout, self._sizes, beta, temperature), tensors
        )


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


class CategoricalNetwork(Perceptron):
    """Logits of m actions: learned changes of the base policy's.

    Args:
        architecture: sizes.
    """

    start: Tensor
    """What a base policy without density is taken to tell, shape (m,)."""

    def __init__(self, architecture: CategoricalArchitecture) -> None:
        layout = architecture.layout
        super().__init__(layout.observation_size, architecture.hidden_sizes, layout.action_size)
        self.architecture = architecture
        self.register_buffer('start', torch.zeros(layout.action_size), persistent=False)

    def block(self, observation: Tensor, prior_block: Tensor) -> Tensor:
        """Return the logits, shape (..., m); see `PriorGaussianNetwork.block`."""
        known = prior_block if prior_block.shape[-1] else self.start
        logits: Tensor = known + self(observation)
        return logits

    def to_policy(self) -> CategoricalPolicy:
        """Return a copy of what it is now, as the robot runs it."""
        return CategoricalPolicy(self.architecture, self.to_numpy())


class PriorGaussianNetwork(Perceptron):
    """A Gaussian whose moments are learned changes of the base policy's.

    Args:
        architecture: sizes.
    """

    start: Tensor
    """What a base policy without density is taken to tell, shape (2 k m,)."""

    def __init__(self, architecture: PriorGaussianArchitecture) -> None:
        layout = architecture.layout
        size = layout.decision_size
        super().__init__(layout.observation_size, architecture.hidden_sizes, 2 * size)
        self.architecture = architecture
        start = torch.tensor([0.0, architecture.initial_log_std]).repeat_interleave(size)
        self.register_buffer('start', start, persistent=False)

    def block(self, observation: Tensor, prior_block: Tensor) -> Tensor:
        """Return mean and log standard deviation, shape (..., 2 k m), as a base would tell them.

        Args:
            observation: shape (..., n), not normalised.
            prior_block: block of the base policy, shape (..., P).
        """
        known = prior_block if prior_block.shape[-1] else self.start
        mean, log_std = (known + self(observation)).chunk(2, dim=-1)
        most = known.chunk(2, dim=-1)[1].clamp_min(MOST_LOG_STD)
        return torch.cat([mean, log_std.clamp_min(LEAST_LOG_STD).minimum(most)], dim=-1)

    def to_policy(self, generator: torch.Generator | None = None) -> PriorGaussian:
        """Return a copy of what it is now, as the robot runs it.

        Args:
            generator: source of the noise that is held, if it is.
        """
        tensors = self.to_numpy()
        if self.architecture.hold_noise:
            size = self.architecture.layout.decision_size
            tensors[HELD_NOISE] = torch.randn(size, generator=generator).numpy()
        return PriorGaussian(self.architecture, tensors)


SAME = 1e-6
"""Targets that deviate by so small a share of them differ by rounding alone."""


class ValueNetwork(Perceptron):
    """V(s) in any units: mean + std times the output, which starts at zero and stays near 1.

    After PopArt (van Hasselt et al., arXiv 1602.07714).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, inputs: int, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__(inputs, hidden_sizes, 1)
        self.register_buffer('mean', torch.zeros(()))
        self.register_buffer('std', torch.ones(()))

    def forward(self, observation: Tensor) -> Tensor:
        """Return V, shape (...,), of observations (..., n), not normalised."""
        return self.mean + self.std * super().forward(observation).squeeze(-1)

    @torch.no_grad()
    def rescale(self, targets: Tensor) -> None:
        """Take the units of targets, shape (batch,); no value changes."""
        mean, std = targets.mean(), targets.std()
        if std <= SAME * mean.abs().clamp_min(1.0):
            return
        self.heads.weight.mul_(self.std / std)
        self.heads.bias.mul_(self.std).add_(self.mean - mean).div_(std)
        self.mean.copy_(mean)
        self.std.copy_(std)
