# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How the robot explores until the next weight message, and in one decision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from residual_rl_ros.errors import shown

MAX_RANDOM_DECISIONS = 100_000
"""Longest that a random residual can be held [decisions]."""
_SHARES = (
    'residual_probability',
    'uniform_noise',
    'bound_scale',
    'wide_noise_share',
    'wide_bound_scale',
    'random_share',
    'base_only_share',
)


def _check(name: str, value: Any, low: float, high: float) -> None:
    """Refuse what is no finite float within limits.

    Raises:
        ValueError: it is something else; names the key.
    """
    if type(value) is not float or not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f'exploration {name} is {shown(value)}, expected {low:g} to {high:g}')


@dataclass(frozen=True)
class Exploration:
    """Travels in the header of every weight message."""

    residual_probability: float = 1.0
    """Probability that a decision takes the actor's residual; 0 during warm-up. Policy Decorator
    lets it grow (arXiv 2412.13630)."""
    uniform_noise: float = 0.0
    """Half width of a uniform residual on the other decisions, in units of the bound (ResFiT); of
    discrete actions, the probability that any of them replaces one."""
    bound_scale: float = 1.0
    """Share of the residual bound in use."""
    full_bound_cost: float = 0.0
    """Cost to go of the base action, -Q(s, b), from which on all of that is in use; of a base
    action that costs less, being nearer to success, a share in proportion. 0: all of it always.
    Only policies with critics tell the cost."""
    wide_noise_share: float = 0.0
    """Share of episodes with wider noise."""
    wide_noise_scale: float = 1.0
    """In these, the largest factor on the actor's noise; drawn log-uniformly from 1 to this."""
    wide_bound_scale: float = 1.0
    """In these, the share of the residual bound in use."""
    random_share: float = 0.0
    """Share of episodes in which a uniform residual acts, and no actor."""
    random_decisions: int = 1
    """In these, decisions over which it is held: noise that is drawn anew in each leads nowhere."""
    base_only_share: float = 0.0
    """Of the other episodes, the share without any residual, for the guard to compare with."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: one is violated; weight messages come from outside.
        """
        for name in _SHARES:
            _check(name, getattr(self, name), 0.0, 1.0)
        _check('full_bound_cost', self.full_bound_cost, 0.0, math.inf)
        _check('wide_noise_scale', self.wide_noise_scale, 1.0, math.inf)
        decisions = self.random_decisions
        if type(decisions) is not int or not 1 <= decisions <= MAX_RANDOM_DECISIONS:
            raise ValueError(
                f'exploration random_decisions is {shown(decisions)}, expected a whole number from '
                f'1 to {MAX_RANDOM_DECISIONS}'
            )

    def base_only(self, rng: np.random.Generator) -> bool:
        """Draw whether an episode runs without residual."""
        return bool(rng.random() < self.base_only_share)

    def acts_randomly(self, rng: np.random.Generator) -> bool:
        """Draw whether a uniform residual acts in an episode."""
        return bool(rng.random() < self.random_share)

    def noise_scale(self, rng: np.random.Generator) -> float:
        """Draw an episode's factor on the actor's noise."""
        wide, exponent = rng.random(2)
        return float(self.wide_noise_scale**exponent) if wide < self.wide_noise_share else 1.0

    def sample(
        self, noise_scale: float, blend_ratio: float, weight: float = 1.0
    ) -> ExplorationSample:
        """Return how a decision explores.

        Args:
            noise_scale: the episode's factor on the actor's noise.
            blend_ratio: multiplier on the residual, in [0, 1].
            weight: of the add-on reward.
        """
        share = blend_ratio * (self.bound_scale if noise_scale == 1.0 else self.wide_bound_scale)
        return ExplorationSample(noise_scale, share, self.full_bound_cost, weight)


@dataclass(frozen=True)
class ExplorationSample:
    """How one decision explores."""

    noise_scale: float = 1.0
    """Factor on the actor's noise."""
    bound_scale: float = 1.0
    """Share of the residual bound in use. Critics that choose judge what it leaves of a residual;
    the residual itself stays in units of the bound."""
    full_bound_cost: float = 0.0
    """As in `Exploration`."""
    weight: float = 1.0
    """Weight of the add-on reward, for robot policies that customise the base at the decision."""

    def share_at(self, cost: float) -> float:
        """Return which share of a residual a base action may have whose cost to go is this.

        With `full_bound_cost` only; see `Exploration`.
        """
        return min(max(cost / self.full_bound_cost, 0.0), 1.0)


WARM_UP = Exploration(residual_probability=0.0)
"""The base policy alone."""
RESIDUAL = Exploration()
"""The actor at every decision, with its own noise."""
FULL_SAMPLE = ExplorationSample()
"""The actor's own noise, and all of the bound."""
