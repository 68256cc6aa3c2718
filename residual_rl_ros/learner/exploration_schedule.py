# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How far the robot may leave its base policy: more with time, less with evidence against it."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from residual_rl_ros.config.preset import LearnerConfig
from residual_rl_ros.learner.guard import MIN_BASE_EPISODES, Guard
from residual_rl_ros.residual_policy.exploration import Exploration

UNKNOWN_BASE_SHARE = 0.5
"""Share of episodes without residual until the guard knows how well the base does: before it does,
nothing holds a residual back."""
UNKNOWN_BASE_EPISODES = 4 * MIN_BASE_EPISODES
"""Episodes after which it is `guard_share` in any case: outcomes may never be labelled."""
FULL_DOUBT = 0.5 * math.log(3000.0)
"""The guard's sum at which the bound of careful episodes has come down to its floor [nat]."""


class PublishedShares:
    """Knows with which share of base-only episodes the robot draws under an actor's message."""

    def __init__(self) -> None:
        self._since: deque[tuple[tuple[int, int], float]] = deque(maxlen=16)

    def publish(self, version: tuple[int, int], share: float) -> None:
        """Take in the share of a message with this (epoch, sequence); later ones keep it."""
        if not self._since or self._since[-1][1] != share:
            self._since.append((version, share))

    def of(self, version: tuple[int, int]) -> float:
        """Return the share under this (epoch, sequence); 0 if it is not known any more."""
        known = (share for since, share in reversed(self._since) if since <= version)
        return next(known, 0.0)

    def state_dict(self) -> list[Any]:
        """Return everything as JSON values, for a checkpoint."""
        return [[*version, share] for version, share in self._since]

    def load_state_dict(self, state: list[Any]) -> None:
        """Restore what `state_dict` returned."""
        self._since.clear()
        for epoch, sequence, share in state:
            self._since.append(((int(epoch), int(sequence)), float(share)))


def warmup_exploration(config: LearnerConfig) -> Exploration:
    """Return how the robot acts while it collects data of the base policy."""
    return Exploration(residual_probability=0.0, uniform_noise=config.warmup_noise)


def residual_exploration(
    config: LearnerConfig,
    transitions: int,
    bound_scale: float,
    guard: Guard,
    episodes: int,
    failure_rate: float,
) -> Exploration:
    """Return how the robot acts with a residual.

    Args:
        config: the preset.
        transitions: transitions since the warm-up.
        bound_scale: share of the residual bound that its ramp has reached.
        guard: what it knows of base and residual.
        episodes: finished episodes, warm-up included.
        failure_rate: share of the latest judged episodes that failed and nobody helped in.
    """
    full_bound_cost = 0.0
    if config.full_bound_cost and bound_scale:
        # Grow where the base costs most first: from nowhere, an infinite cost, to everywhere.
        full_bound_cost = config.full_bound_cost * (1.0 / bound_scale - 1.0)
        bound_scale = 1.0
    return Exploration(
        residual_probability=grown_share(transitions, config.progressive_transitions),
        bound_scale=bound_scale * _trust(guard, config.guard_bound_floor),
        full_bound_cost=full_bound_cost,
        wide_noise_share=config.wide_exploration_share,
        wide_noise_scale=config.wide_exploration_scale,
        wide_bound_scale=bound_scale,
        random_share=config.random_exploration_share * failure_rate,
        random_decisions=config.random_exploration_decisions,
        base_only_share=_base_only_share(guard, config.guard_share, episodes),
    )


def grown_share(transitions: int, over: int) -> float:
    """Return what has grown linearly from 0 to 1 over so many transitions; 0 is at once."""
    return min(1.0, transitions / over) if over else 1.0


def _trust(guard: Guard, floor: float) -> float:
    """Return 1, less the more evidence the guard has against the residual.

    Soon after a trial began it has come down to `floor`; it recovers with the evidence.
    """
    doubt = min(1.0, guard.statistic / FULL_DOUBT)
    return 1.0 - (1.0 - floor) * doubt


def _base_only_share(guard: Guard, share: float, episodes: int) -> float:
    """Return the share of episodes without residual: larger while the guard cannot judge."""
    if share and episodes < UNKNOWN_BASE_EPISODES and guard.base_success is None:
        return max(share, UNKNOWN_BASE_SHARE)
    return guard.base_share
