# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Why a robot that is seen must not move: a stop input, or it does not follow its commands."""

from __future__ import annotations

import numpy as np

from residual_rl_ros.control.command_limiter import CommandLimiter
from residual_rl_ros.control.gates import RealTimeRules

ATTEMPTS = 3
"""So often a velocity is commanded that nothing moves by, before it is given up."""
MOTION = 0.5
"""A measured velocity above this share of the following limit is motion."""


class Obstacles:
    """Says why a robot must not move although it is seen.

    Args:
        limiter: what knows whether the robot follows its commands.
    """

    def __init__(self, limiter: CommandLimiter) -> None:
        self._limiter = limiter
        self._lags = False
        self._stalls = StallWatch(limiter)
        self.stops: dict[str, str] = {}
        """Stop inputs that forbid to move, with their reasons."""

    def set_stop(self, name: str, reason: str) -> None:
        """Take in what a stop input says: a reason to hold, or none.

        Args:
            name: the stop input.
            reason: why the robot must not move; empty: it may.
        """
        if reason:
            self.stops[name] = reason
        else:
            self.stops.pop(name, None)

    @property
    def any(self) -> bool:
        """Whether something forbids to move."""
        return bool(self.stops) or self._lags

    def forget(self) -> None:
        """Forget that the robot did not follow its commands; it is to have none."""
        self._lags = False

    def reset(self) -> None:
        """Begin anew with an activation."""
        self.forget()
        self._stalls = StallWatch(self._limiter)

    def reason(self, moving: bool, now: float) -> str:
        """Return why the robot must not move, empty if it may.

        Args:
            moving: somebody commands it; a robot without commands need not follow any.
            now: ROS time [s].
        """
        if not moving:
            self.forget()
        if self.stops or not moving:
            return '; '.join(self.stops.values())
        # Once it lags it holds, until it has come near.
        heed = self._lags or self._limiter.continues
        error = self._limiter.following_error() if heed else ''
        self._stalls.watch(bool(error) and not self._lags, now)
        self._lags = bool(error)
        return error

    def shift(self, seconds: float) -> None:
        """Follow a clock that has jumped."""
        self._stalls.shift(seconds)

    def stalled(self, now: float, rules: RealTimeRules) -> bool:
        """Return whether a robot that holds by zero is given up; see `StallWatch`."""
        return self._lags and self._stalls.stalled(now, rules.hold_limit_s)


class StallWatch:
    """Notices velocities that are commanded again and again without any motion.

    A robot that holds by zero follows its hold, however stuck it is: it would be held and commanded
    again for ever.

    Args:
        limiter: what knows what the robot was told and what is measured.
    """

    def __init__(self, limiter: CommandLimiter) -> None:
        self._limiter = limiter
        action = limiter.safety.action
        self._counts = np.zeros(action.size, dtype=np.int64)
        self._since = np.full(action.size, np.inf)
        self._motion = np.where(action.goes_to_zero, MOTION * action.following_limit, 0.0)
        """What is measured above it is motion; below 0 there is nothing to be watched."""

    def watch(self, begins: bool, now: float) -> None:
        """Take in a control step.

        Args:
            begins: the robot has just begun to lag.
            now: ROS time [s].
        """
        measured = self._limiter.measured
        if measured is None or not (begins or self._counts.any()):
            return
        moves = np.abs(measured) > self._motion
        self._counts[moves], self._since[moves] = 0, np.inf
        if begins:
            stuck = self._limiter.lagging() & ~moves
            self._counts[stuck] += 1
            self._since[stuck] = np.minimum(self._since[stuck], now)

    def shift(self, seconds: float) -> None:
        """Follow a clock that has jumped."""
        self._since += seconds

    def stalled(self, now: float, limit_s: float) -> bool:
        """Return whether an action has not moved for so long, in several attempts."""
        stuck = self._counts >= ATTEMPTS
        return bool((stuck & (now - self._since > limit_s)).any())
