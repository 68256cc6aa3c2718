# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Robot policies are tried before they may act: finite weights can overflow."""

from __future__ import annotations

import numpy as np

from residual_rl_ros.base_policy.distribution import BaseDistribution
from residual_rl_ros.numerics import Array, is_one_hot, within
from residual_rl_ros.residual_policy.exploration import FULL_SAMPLE, Exploration, ExplorationSample
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.transitions.layout import MAX_OBSERVATION

PROBE_REACH = 10.0
"""So many standard deviations from the mean observation an actor is tried, beside the largest
observations that there are."""


def decides_numbers(policy: RobotPolicy, exploration: Exploration) -> bool:
    """Return whether a robot policy decides by numbers: tried before it may act.

    Finite weights can overflow float32. The policy is tried on its mean observation, around it and
    on the largest observations that a transition may hold, with base actions from one end of the
    trained range to the other, with and without noise. Of discrete actions it must choose one.

    Args:
        policy: the policy.
        exploration: how it is to act.
    """
    layout = policy.architecture.layout
    n, km = layout.observation_size, layout.decision_size
    rng = np.random.default_rng(0)
    mean, std = (
        policy.tensors.get(f'normalizer.{name}', np.full(n, default)).astype(np.float64)
        for name, default in (('mean', 0.0), ('std', 1.0))
    )
    low, high = (
        np.tile(values, layout.decision_steps) for values in (layout.action_min, layout.action_max)
    )
    signs = rng.choice([-1.0, 1.0], (3, n))
    observations = [mean, *(mean + PROBE_REACH * signs[:2] * std), MAX_OBSERVATION * signs[2]]
    bases = [0.5 * (low + high), low, high, low + (high - low) * rng.random(km)]
    others = rng.uniform(low, high, (layout.proposals - 1, km))
    if layout.discrete:
        size = (4 + layout.proposals - 1, layout.decision_steps)
        chosen = np.eye(layout.action_size)[rng.integers(layout.action_size, size=size)]
        bases, others = list(chosen[:4].reshape(4, km)), chosen[4:].reshape(-1, km)
    widest = ExplorationSample(exploration.wide_noise_scale, 1.0, exploration.full_bound_cost)
    told = BaseDistribution(np.zeros(layout.prior_size), others)
    bound = np.tile(layout.residual_bound, layout.decision_steps)

    def usable(action: Array, base: Array) -> bool:
        if not (is_residual(action, km) and layout.discrete):
            return is_residual(action, km)
        return is_one_hot((base + bound * action).reshape(-1, layout.action_size))

    with np.errstate(all='ignore'):
        return all(
            usable(policy.decide(observation, base, noise, sample, told), base)
            for observation, base in zip(observations, bases, strict=True)
            for noise, sample in ((None, FULL_SAMPLE), (rng, widest))
        )


def is_residual(action: Array, size: int) -> bool:
    """Return whether an action is a residual: so many numbers in [-1, 1]."""
    return action.shape == (size,) and within(action, 1.0)
