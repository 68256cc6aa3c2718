# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What residual-MPPI learns: the dynamics of decisions, and a prior that stands for the base.

The planner itself is `residual_policy.mppi`, in NumPy. It learns no value and no policy: with a
model it follows any add-on reward, and a new one needs no training. After Wang et al. (ICLR 2025,
arXiv 2407.00898): x' = x + MLP(x, u), and a loss over several steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from residual_rl_ros.numerics import Float32
from residual_rl_ros.residual_policy.architecture import LOG_STD_MAX, LOG_STD_MIN, OBSERVATION_CLIP
from residual_rl_ros.residual_policy.dynamics import NETWORKS, DynamicsModel, ModelSizes
from residual_rl_ros.residual_policy.torch_networks import Normalizer
from residual_rl_ros.transitions.layout import TransitionLayout

SMALLEST_STD = 1e-6
"""Floor of the standard deviation of a change: what never moves is predicted not to."""


@dataclass(frozen=True)
class Sequences:
    """Decisions that follow each other, H in a row."""

    observation: Tensor
    """Before each decision and after the last, shape (batch, H + 1, n)."""
    action: Tensor
    """Executed, shape (batch, H, k * m)."""
    follows: Tensor
    """1 while the episode goes on without a gap, then 0, shape (batch, H)."""
    prior: Tensor
    """Density of the base at the first observation, shape (batch, 2 k * m)."""


class ModelNetworks(nn.Module):
    """The torch twin of `residual_policy.dynamics.DynamicsModel`, with the same names of tensors.

    Args:
        sizes: of the networks.
        layout: of the decisions.
    """

    center: Tensor
    half_range: Tensor

    def __init__(self, sizes: ModelSizes, layout: TransitionLayout) -> None:
        super().__init__()
        self.sizes, self.layout = sizes, layout
        n, km = layout.observation_size, layout.decision_size
        self.normalizer = Normalizer(n, clip=OBSERVATION_CLIP)
        self.change = Normalizer(n, min_std=SMALLEST_STD)
        widths = {
            'dynamics': (n + km, *sizes.dynamics, n),
            'prior': (n, *sizes.prior, 2 * km),
        }
        for name in NETWORKS:
            self.add_module(name, _network(widths[name]))
        shapes = sizes.tensor_shapes(layout)
        numpy_twin = DynamicsModel(
            sizes, layout, {name: torch.zeros(shape).numpy() for name, shape in shapes.items()}
        )
        for name in ('center', 'half_range'):
            self.register_buffer(name, torch.tensor(getattr(numpy_twin, name)), persistent=False)

    def fit(self, observation: Tensor, next_observation: Tensor) -> None:
        """Take the statistics of data, shape (rows, n) each."""
        self.normalizer.fit(observation)
        self.change.fit(next_observation - observation)

    def step(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the observations after decisions, shape (rows, n)."""
        known = torch.cat(
            [self.normalizer(observation), (action - self.center) / self.half_range], dim=1
        )
        out: Tensor = self.get_submodule('dynamics')(known)
        return observation + out * self.change.std + self.change.mean

    def prior_of(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation, (rows, k * m) each, in units of the network."""
        mean, log_std = self.get_submodule('prior')(self.normalizer(observation)).chunk(2, dim=1)
        share = 0.5 * (torch.tanh(log_std) + 1.0)
        return mean, LOG_STD_MIN + (LOG_STD_MAX - LOG_STD_MIN) * share

    def tensors(self) -> dict[str, Float32]:
        """Return a copy of what `DynamicsModel` takes."""
        return {name: value.detach().numpy().copy() for name, value in self.state_dict().items()}

    def load(self, tensors: Mapping[str, Float32]) -> None:
        """Take over what `tensors` returned."""
        self.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})


def _network(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    last = layers[-2]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)  # It begins with the mean change, and a standard normal prior.
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers[:-1])


def dynamics_loss(networks: ModelNetworks, data: Sequences) -> Tensor:
    """Return the squared error of what the model says from its own predictions on, H in a row.

    In units of the standard deviation of a change: else the largest unit would rule.
    """
    state = data.observation[:, 0]
    total = torch.zeros(())
    for step in range(data.action.shape[1]):
        state = networks.step(state, data.action[:, step])
        error = (state - data.observation[:, step + 1]) / networks.change.std
        total = total + (data.follows[:, step] * error.square().mean(1)).sum()
    return total / data.follows.sum()


def prior_loss(networks: ModelNetworks, data: Sequences) -> Tensor:
    """Return the mean KL divergence of the distilled prior from the base's, KL(base | distilled).

    Of Gaussians before tanh it is that of the actions, too: tanh is one-to-one.
    """
    mean, log_std = networks.prior_of(data.observation[:, 0])
    of_base, log_std_of_base = data.prior.chunk(2, dim=1)
    ratio = (2.0 * (log_std_of_base - log_std)).exp()
    distance = ((of_base - mean) * (-log_std).exp()).square()
    return (log_std - log_std_of_base + 0.5 * (ratio + distance - 1.0)).sum(1).mean()
