# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Control steps by a clock that nobody sets or stops."""

from __future__ import annotations

import math
from collections.abc import Callable

NO_STEP_S = 1.0
"""Control steps at any usual rate come more often [s]."""


class StepWatch:
    """Tells whether control steps come, and whether ROS time goes on between them.

    What a loop knows of the age of its sensors, of holds and of operators, it knows by ROS time.

    Args:
        clock: monotonic time [s].
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._now = math.nan
        self._stepped = self._moved = clock()

    def step(self, now: float, limit_s: float) -> str:
        """Take in that a control step begins; return what is wrong with ROS time, else nothing.

        Args:
            now: ROS time [s].
            limit_s: how long it may stand still [s].
        """
        self._stepped = self._clock()
        if now != self._now:
            self._now, self._moved = now, self._stepped
        standing_s = self._stepped - self._moved
        if standing_s <= limit_s:
            return ''
        return (
            f'ROS time has stood still at {now:.3f} s for {standing_s:.2f} s while control steps '
            'came: no sensor would ever be too old; restart the node'
        )

    def missing(self, limit_s: float) -> str:
        """Return for how long there has been no control step, nothing if that is usual.

        Args:
            limit_s: what is usual [s], if that is more than `NO_STEP_S`.
        """
        silent_s = self._clock() - self._stepped
        if silent_s <= max(limit_s, NO_STEP_S):
            return ''
        return (
            f'no control step for {silent_s:.1f} s: with use_sim_time a simulator pauses, or '
            'nobody publishes /clock'
        )
