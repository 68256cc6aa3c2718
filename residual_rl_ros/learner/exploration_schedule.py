# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How far the robot may leave its base policy: more with time, less with evidence against it."""

from __future__ import annotations

from residual_rl_ros.config.preset import LearnerConfig
from residual_rl_ros.learner.guard import MIN_BASE_EPISODES, Guard
from residual_rl_ros.residual_policy.robot_policy import Exploration

UNKNOWN_BASE_SHARE = 0.5
"""Share of episodes without residual until the guard knows how well the base does: before it does,
nothing holds a residual back."""
UNKNOWN_BASE_EPISODES = 4 * MIN_BASE_EPISODES
"""Episodes after which it is `guard_share` in any case: outcomes may never be labelled."""


def warmup_exploration(config: LearnerConfig) -> Exploration:
    """Return how the robot acts while it collects data of the base policy."""
    return Exploration(residual_probability=0.0, uniform_noise=config.warmup_noise)


def residual_exploration(
    config: LearnerConfig, transitions: int, guard: Guard, episodes: int
) -> Exploration:
    """Return how the robot acts with a residual.

    Args:
        config: the preset.
        transitions: transitions since the warm-up.
        guard: what it knows of base and residual.
        episodes: finished episodes, warm-up included.
    """
    bound_scale = _grown(transitions, config.bound_ramp_transitions)
    full_bound_cost = 0.0
    if config.full_bound_cost and bound_scale:
        # Grow where the base costs most first: from nowhere, an infinite cost, to everywhere.
        full_bound_cost = config.full_bound_cost * (1.0 / bound_scale - 1.0)
        bound_scale = 1.0
    return Exploration(
        residual_probability=_grown(transitions, config.progressive_transitions),
        bound_scale=bound_scale * _trust(guard, config.guard_bound_floor),
        full_bound_cost=full_bound_cost,
        wide_noise_share=config.wide_exploration_share,
        wide_noise_scale=config.wide_exploration_scale,
        wide_bound_scale=bound_scale,
        base_only_share=_base_only_share(guard, config.guard_share, episodes),
    )


def _grown(transitions: int, over: int) -> float:
    """Return what has grown linearly from 0 to 1 over so many transitions; 0 is at once."""
    return min(1.0, transitions / over) if over else 1.0


def _trust(guard: Guard, floor: float) -> float:
    """Return 1, less the more evidence the guard has against the residual.

    Halfway to an alarm it has come down to `floor`; it recovers with the evidence.
    """
    doubt = min(1.0, 2.0 * guard.statistic / guard.config.threshold)
    return 1.0 - (1.0 - floor) * doubt


def _base_only_share(guard: Guard, share: float, episodes: int) -> float:
    """Return the share of episodes without residual: larger while the guard cannot judge."""
    if share and episodes < UNKNOWN_BASE_EPISODES and guard.base_success is None:
        return max(share, UNKNOWN_BASE_SHARE)
    return share
