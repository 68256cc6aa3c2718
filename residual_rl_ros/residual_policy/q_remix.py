# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A soft choice among what the base policy proposes: pi(a|s) proportional to pi_base exp(beta Q_R).

Proposals are draws of the base, so that its density is in how often each kind of action occurs
among them: only exp(beta Q_R) is left to weigh, and no density needs to be known. What is executed
is always something that the base would do. Q_R is that of residual Q-learning (Li et al., arXiv
2306.09526), learned conservatively.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.distribution import NO_DISTRIBUTION, BaseDistribution
from residual_rl_ros.numerics import Array, Float32
from residual_rl_ros.residual_policy.architecture import (
    OBSERVATION_CLIP,
    CriticArchitecture,
    trained_range,
)
from residual_rl_ros.residual_policy.candidate_selection import CRITIC, NumpyCritics
from residual_rl_ros.residual_policy.exploration import FULL_SAMPLE, ExplorationSample
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy, register_policy
from residual_rl_ros.transitions.layout import TransitionLayout

NORMALIZER = 'normalizer.'
"""Prefix of the names of the observation statistics."""


@dataclass(frozen=True)
class QRemixArchitecture:
    """Sizes of the critics, and how sharply they choose."""

    tells_cost: ClassVar[bool] = False
    """Whether the policy tells the cost to go of a base action: Q_R is of the add-on too."""

    layout: TransitionLayout
    """Names, sizes and scales of the decisions that it is for."""
    critic: CriticArchitecture
    beta: float
    """How much of Q_R counts, in [0, 1]; 0 is the base."""
    temperature: float
    """Difference of Q_R at which a proposal is e times as likely as another, for beta 1."""

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            ValueError: one is wrong; weight messages come from outside.
        """
        if type(self.beta) is not float or not 0.0 <= self.beta <= 1.0:
            raise ValueError(f'beta is {self.beta!r}, expected a number from 0 to 1')
        temperature = self.temperature
        usable = type(temperature) is float and math.isfinite(temperature) and temperature > 0.0
        if not usable:
            raise ValueError(f'temperature is {temperature!r}, expected a finite number above 0')
        if self.critic.sees_residual:
            raise ValueError('critics of a remix see no residual, only the action')

    def to_mapping(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            'layout': self.layout.to_mapping(),
            'critic': asdict(self.critic),
            'beta': self.beta,
            'temperature': self.temperature,
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> QRemixArchitecture:
        """Return what `to_mapping` gave, JSON between; see `Architecture.from_mapping`."""
        return cls(
            TransitionLayout.from_mapping(values['layout']),
            CriticArchitecture.from_mapping(values['critic']),
            values['beta'],
            values['temperature'],
        )

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor."""
        n = self.layout.observation_size
        critics = self.critic.tensor_shapes(self.layout)
        statistics: dict[str, tuple[int, ...]] = {f'{NORMALIZER}{s}': (n,) for s in ('mean', 'std')}
        return statistics | {f'{CRITIC}{name}': shape for name, shape in critics.items()}


@register_policy('q_remix', QRemixArchitecture)
class QRemixPolicy(RobotPolicy):
    """Chooses among the proposals of the base; the first of them is the base action.

    Args:
        architecture: sizes.
        tensors: float32 arrays by their names.
    """

    architecture: QRemixArchitecture
    acts_whole: ClassVar[bool] = True
    """Half of the way to a proposal is none that the base would go."""

    def __init__(self, architecture: QRemixArchitecture, tensors: Mapping[str, Float32]) -> None:
        super().__init__(architecture, tensors)
        self._critics = NumpyCritics(architecture.critic, tensors)
        layout = architecture.layout
        self._center, self._half_range = trained_range(layout, np.float64)
        self._bound = np.tile(layout.residual_bound, layout.decision_steps)

    def decide(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
        distribution: BaseDistribution = NO_DISTRIBUTION,
    ) -> Array:
        """Return the residual that leads from the base action to the chosen proposal, (k * m,).

        Zero is the base action: with weight or beta 0, and without other proposals. NaN where
        float32 overflows.

        See `RobotPolicy.decide` for the arguments. With `rng` a proposal is drawn; without, the one
        with the largest advantage is taken, and the base action if none has one.
        """
        base = np.asarray(base_action, dtype=np.float64)
        sharpness = self.architecture.beta * sample.weight / self.architecture.temperature
        if sharpness == 0.0 or not len(distribution.proposals):
            return np.zeros(len(base))
        proposals = np.vstack([base[None], distribution.proposals])
        scores = sharpness * self.advantages(observation, proposals).astype(np.float64)
        if not np.isfinite(scores).all():
            return np.full(len(base), np.nan)
        if rng is None:
            chosen = int(scores.argmax())
        else:
            shares = np.exp(scores - scores.max())
            chosen = int(np.searchsorted(np.cumsum(shares), rng.random() * shares.sum(), 'right'))
        residual = np.zeros(len(base))
        np.divide(proposals[chosen] - base, self._bound, out=residual, where=self._bound > 0.0)
        return residual.clip(-1.0, 1.0)

    def advantages(self, observation: npt.ArrayLike, proposals: Array) -> Float32:
        """Return min_i (Q_i(s, a_j) - Q_i(s, a_0)), shape (N,).

        Args:
            observation: shape (n,).
            proposals: shape (N, k * m), command units; the first is the base action.
        """
        mean, std = (self.tensors[f'{NORMALIZER}{name}'] for name in ('mean', 'std'))
        seen = (np.asarray(observation, dtype=np.float32) - mean) / std
        seen = seen.clip(-OBSERVATION_CLIP, OBSERVATION_CLIP)
        scaled = ((proposals - self._center) / self._half_range).astype(np.float32)
        weight, bias = self._critics.first
        rows = np.hstack([np.broadcast_to(seen, (len(proposals), len(seen))), scaled])
        q = self._critics.values(rows @ weight + bias)
        advantages: Float32 = (q - q[:, :1]).min(0)
        return advantages

    def uniform(self, half_width: float, rng: np.random.Generator) -> Array:
        """Return no residual: what the base would not do is none of the proposals."""
        del half_width, rng
        return np.zeros(self.architecture.layout.decision_size)
