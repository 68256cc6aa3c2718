# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The guard: a sequential test against the base, and the networks that a rollback restores."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from residual_rl_ros.learner.episodes import RECENT_EPISODES

MIN_BASE_EPISODES = 20
"""Base-only episodes before anything is concluded."""
BASE_WINDOW = 100
"""Base-only episodes that p0 is taken from; older ones may have met another world."""


@dataclass(frozen=True)
class GuardConfig:
    """Numbers of the guard."""

    drop: float
    """Loss of success to find quickly; a loss below half of it is found late or never."""
    false_alarm_episodes: float
    """Least mean number of episodes between false alarms of a residual as good as the base."""

    @property
    def threshold(self) -> float:
        """The sum at which the alarm is given."""
        return math.log(self.false_alarm_episodes)


@dataclass(frozen=True)
class Alarm:
    """Why the guard gave an alarm."""

    base_success: float
    """Success of the base-only episodes compared with."""
    episodes: int
    """Residual episodes since the sum last was zero."""
    successes: int
    """Successful ones of these."""

    def __str__(self) -> str:
        return (
            f'base + residual succeeded in {self.successes} of the last {self.episodes} episodes, '
            f'the base alone in {self.base_success:.0%} of its own'
        )


class Guard:
    """Counts outcomes and tells when to roll back.

    Args:
        config: numbers.
    """

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self._base: deque[bool] = deque(maxlen=BASE_WINDOW)
        self.statistic = 0.0
        """The sum; the alarm is given at `config.threshold`."""
        self._episodes = 0
        self._successes = 0

    @property
    def base_success(self) -> float | None:
        """Success of the base-only episodes, None while they are too few."""
        if len(self._base) < MIN_BASE_EPISODES:
            return None
        return sum(self._base) / len(self._base)

    def record_outcome(self, success: bool, residual: bool) -> Alarm | None:
        """Count an episode.

        Args:
            success: its outcome.
            residual: whether it ran with the residual.

        Returns:
            An alarm if the residual has become worse than the base; the sum then starts again.
        """
        if not residual:
            self._base.append(success)
            return None
        base = self.base_success
        if base is None:
            return None
        p0 = min(max(base, 0.02), 0.98)
        p1 = max(p0 - self.config.drop, p0 / 4.0, 0.01)
        ratio = p1 / p0 if success else (1.0 - p1) / (1.0 - p0)
        self.statistic += math.log(ratio)
        self._episodes += 1
        self._successes += success
        if self.statistic <= 0.0:
            self.reset()
        elif self.statistic >= self.config.threshold:
            alarm = Alarm(base, self._episodes, self._successes)
            self.reset()
            return alarm
        return None

    def reset(self) -> None:
        """Forget the residual's outcomes, for example after a rollback; the base's stay."""
        self.statistic = 0.0
        self._episodes = self._successes = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values, for a checkpoint."""
        return {
            'base': list(self._base),
            'statistic': self.statistic,
            'episodes': self._episodes,
            'successes': self._successes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._base.clear()
        self._base.extend(state['base'])
        self.statistic = float(state['statistic'])
        self._episodes, self._successes = int(state['episodes']), int(state['successes'])


Networks = dict[str, torch.Tensor]


class BestNetworks:
    """Rates networks by the episodes after them; before any, those of the warm-up are the best."""

    def __init__(self) -> None:
        self.good: Networks = {}
        """Networks to roll back to; none during warm-up."""
        self.candidate: Networks = {}
        """Networks that take their place if the 50 episodes after them are more successful."""
        self._success = -1.0
        self._rated = 0

    def begin(self, networks: Networks, success: float) -> None:
        """Begin with the networks at the end of the warm-up and the success of the base."""
        self.good = self.candidate = networks
        self._success = success

    def rate(self, success: float, networks: Callable[[], Networks]) -> None:
        """Take in an episode; after 50, keep the candidate if it was the best, and take the next.

        Args:
            success: over the latest 50 episodes.
            networks: returns the present ones.
        """
        self._rated += 1
        if self._rated < RECENT_EPISODES:
            return
        if success > self._success:
            self.good, self._success = self.candidate, success
        self.candidate, self._rated = networks(), 0

    def restore(self) -> Networks:
        """Return the best networks, which are rated anew from now on."""
        self.candidate, self._rated = self.good, 0
        return self.good

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values; a checkpoint keeps the networks on their own."""
        return {'good_success': self._success, 'rated': self._rated}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._success, self._rated = float(state['good_success']), int(state['rated'])
