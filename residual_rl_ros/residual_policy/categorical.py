# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One of m discrete actions: residual soft values on top of the base policy's logits.

pi^(a|s) is proportional to exp((Q_R(s, a) + omega' log pi(a|s)) / alpha^) (Li et al., "Residual
Q-Learning", arXiv 2306.09526). A decision is one control step: the one-hot vector of the action
that is chosen, less that of the base action.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.distribution import NO_DISTRIBUTION, BaseDistribution
from residual_rl_ros.numerics import all_finite
from residual_rl_ros.residual_policy.architecture import Float32, NetworkArchitecture
from residual_rl_ros.residual_policy.perceptron import Array, Perceptron, perceptron_shapes
from residual_rl_ros.residual_policy.robot_policy import (
    FULL_SAMPLE,
    ExplorationSample,
    RobotPolicy,
    register_policy,
)
from residual_rl_ros.robot.action_spec import Prior


@dataclass(frozen=True)
class CategoricalArchitecture(NetworkArchitecture):
    """Sizes of the network of Q_R, and how it is weighed."""

    prior_weight: float
    """omega'; 0 forgets the base policy."""
    temperature: float
    """alpha^."""
    epsilon: float = 0.0
    """Probability of a uniformly drawn action while exploring."""

    def __post_init__(self) -> None:
        """Check that the numbers fit.

        Raises:
            ValueError: they do not; weight messages come from outside.
        """
        for name, least, most in (
            ('prior_weight', 0.0, math.inf),
            ('temperature', 0.0, math.inf),
            ('epsilon', 0.0, 1.0),
        ):
            value = getattr(self, name)
            if type(value) is not float or not (math.isfinite(value) and least <= value <= most):
                raise ValueError(f'{name} is {value!r}, expected a number from {least} to {most}')
        if not self.temperature:
            raise ValueError('temperature is 0.0, expected a number above 0')
        if not self.layout.discrete or self.layout.decision_steps != 1:
            raise ValueError(
                'the layout has continuous actions or decisions of several steps, expected '
                'discrete ones of one step'
            )
        if self.prior_weight and self.layout.prior is not Prior.CATEGORICAL:
            raise ValueError(f'prior is {self.layout.prior}, expected categorical')

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor."""
        layout = self.layout
        return perceptron_shapes(layout.observation_size, self.hidden_sizes, layout.action_size)


@register_policy('categorical', CategoricalArchitecture)
class CategoricalPolicy(RobotPolicy):
    """Draws an action, or takes the best one.

    Args:
        architecture: sizes.
        tensors: float32 arrays by their names, with the shapes of `tensor_shapes`.
    """

    architecture: CategoricalArchitecture

    def __init__(
        self, architecture: CategoricalArchitecture, tensors: Mapping[str, Float32]
    ) -> None:
        super().__init__(architecture, tensors)
        self._values = Perceptron(architecture.hidden_sizes, tensors)
        self._size = architecture.layout.action_size

    def decide(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
        distribution: BaseDistribution = NO_DISTRIBUTION,
    ) -> Array:
        """Return the chosen one-hot vector less that of the base action, shape (m,).

        See `RobotPolicy.decide` for the arguments. Without `rng` it is the likeliest action. NaN
        where float32 overflows.
        """
        logits = self.logits(observation, distribution)
        if not all_finite(logits):
            return np.full(self._size, np.nan)
        if rng is None:
            chosen = int(logits.argmax())
        elif rng.random() < self.architecture.epsilon:
            chosen = int(rng.integers(self._size))
        else:
            chosen = int((logits + rng.gumbel(size=self._size)).argmax())
        residual: Array = -np.asarray(base_action, dtype=np.float64)
        residual[chosen] += 1.0
        return residual

    def logits(
        self, observation: npt.ArrayLike, distribution: BaseDistribution = NO_DISTRIBUTION
    ) -> Array:
        """Return (Q_R + omega' log pi) / alpha^ of every action, shape (m,)."""
        values = self._values(observation)
        if self.architecture.prior_weight:
            told = distribution.prior - distribution.prior.max()
            values = values + self.architecture.prior_weight * (told - np.log(np.exp(told).sum()))
        logits: Array = values / self.architecture.temperature
        return logits

    def uniform(self, half_width: float, rng: np.random.Generator) -> Array:
        """Return no residual: a uniform one would be no action."""
        del half_width, rng
        return np.zeros(self._size)
