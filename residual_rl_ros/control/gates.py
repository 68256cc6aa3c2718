# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a real-time loop must heed before it moves a robot, and for how long it may hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BELIEVABLE_S = 1.0
"""Clocks that differ by more have jumped or are not the same [s]."""
START_RETRY_S = 0.5
"""How often an episode is tried whose first command is too far away [s]."""


@dataclass(frozen=True)
class RealTimeRules:
    """What may change while the robot runs."""

    auto_start: bool
    """Start the next episode by itself; otherwise `request_start` does."""
    hold_limit_s: float
    """Holding longer than this is a fault [s]."""
    episode_limit_s: float = 0.0
    """Longer episodes are truncated [s]; 0 never."""
    takeover_timeout_s: float = 0.5
    """An operator who has taken over and says nothing for longer wants the robot to hold [s]."""


class Pace:
    """Tells whether control steps come in time, and whether the clock has jumped between two.

    Args:
        period_s: time between two control steps [s].
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self.forget()

    def forget(self) -> None:
        """Begin anew with the next step."""
        self._last: float | None = None
        self._in_time = -np.inf
        self.elapsed_s = 0.0
        """Between the latest two steps [s]."""
        self.overrun = self.late = self.jumped = False
        """Whether the latest step was late by half a period, left one out, or cannot be."""

    def believable_s(self, rules: RealTimeRules) -> float:
        """Return the longest time between two steps, or to a stamp, of the same clock [s]."""
        return max(BELIEVABLE_S, rules.hold_limit_s, 3.0 * self._period_s)

    def step(self, now: float, rules: RealTimeRules) -> None:
        """Take in that a control step begins, at a ROS time [s]."""
        last, self._last = self._last, now
        self.elapsed_s = self._period_s if last is None else now - last
        self.overrun = self.elapsed_s > 1.5 * self._period_s
        self.late = self.elapsed_s > 2.0 * self._period_s
        self.jumped = not 0.0 <= self.elapsed_s <= self.believable_s(rules)
        if self.jumped or not self.late:
            self._in_time = now

    def problem(self, now: float, rules: RealTimeRules) -> str:
        """Return what is wrong if no control step has been in time for too long, else nothing."""
        behind = now - self._in_time
        if behind <= rules.hold_limit_s:
            return ''
        return (
            f'no control step was in time for {behind:.2f} s: this computer, or the clock, is too '
            f'slow for {1.0 / self._period_s:g} Hz'
        )


class OperatorWatch:
    """Tells when an operator who has taken over has fallen silent."""

    def __init__(self) -> None:
        self._spoke, self._spoken_at = False, -np.inf
        self.silent = True
        """Whether his last command is too old."""

    def speak(self) -> None:
        """Take in that a command came, or that he took over, since the last control step."""
        self._spoke = True

    def falls_silent(self, now: float, timeout_s: float) -> bool:
        """Return, once in a control step, whether he has just become `silent`.

        Args:
            now: ROS time [s].
            timeout_s: older commands are too old [s].
        """
        if self._spoke:
            self._spoke, self._spoken_at = False, now
        before, self.silent = self.silent, now - self._spoken_at > timeout_s
        return self.silent and not before

    def shift(self, seconds: float) -> None:
        """Follow a clock that has jumped."""
        self._spoken_at += seconds


class StartGate:
    """Lets an episode begin when it is wanted, seen, and its first command is near the robot."""

    def __init__(self) -> None:
        self._requested = self._confirmed = False
        self._refused_at: float | None = None
        self._ended = -np.inf
        self.at_start = False
        """Whether the first command of the episode has not been looked at yet."""

    @property
    def waits(self) -> bool:
        """Whether an episode waits because its first command is too far from the robot."""
        return self._refused_at is not None

    def request(self, possible: bool) -> bool:
        """Want an episode, if that is possible; return whether it is.

        Where one waits because its first command is far away, let it go.
        """
        self._requested = possible
        self._confirmed = possible and self.waits
        return possible

    def forget_request(self) -> bool:
        """Forget that somebody asked for an episode; return whether somebody had."""
        requested, self._requested, self._confirmed = self._requested, False, False
        return requested

    def wanted(self, rules: RealTimeRules) -> bool:
        """Return whether somebody wants an episode, or they start by themselves."""
        return self._requested or rules.auto_start

    def end(self, now: float, stamp: float, believable_s: float) -> str:
        """Take in that an episode ended: the next needs an observation that is newer.

        Args:
            now: ROS time [s].
            stamp: of what ended it [s].
            believable_s: how far ahead it may be [s].

        Returns:
            What is wrong with the stamp, which counts no more then; empty if nothing is.
        """
        ahead = max(stamp - now, 0.0)
        believed = ahead <= believable_s
        self._ended = now + (ahead if believed else 0.0)
        if believed:
            return ''
        return f'step_feedback is stamped {ahead:.3f} s in the future: synchronise the clocks'

    def forget_end(self) -> None:
        """Forget when the last episode ended; the clock has jumped."""
        self._ended = -np.inf

    def may_open(self, now: float, seen: float, rules: RealTimeRules) -> bool:
        """Return whether an episode is wanted and something was seen since the last one.

        Args:
            now: ROS time [s].
            seen: stamp of the oldest value of the observation [s].
            rules: whether episodes start by themselves.
        """
        if seen <= self._ended:
            return False
        if self._requested:
            return True
        waits = self._refused_at is not None and 0.0 <= now - self._refused_at < START_RETRY_S
        return rules.auto_start and not waits

    def open(self) -> None:
        """Begin an episode."""
        self._requested, self.at_start = False, True

    def refuses(self, too_far: str, now: float) -> bool:
        """Return, once in an episode, whether it must wait, and remember it.

        Args:
            too_far: why its first command is too far from the robot; empty if it is not.
            now: ROS time [s].
        """
        self.at_start = False
        if too_far and not self._confirmed:
            self._refused_at = now
            return True
        self._confirmed, self._refused_at = False, None
        return False


class HoldWatch:
    """Measures for how many control steps in a row there has been a reason to hold."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._holds = False
        self.seconds = 0.0
        """For how long, when it was last measured [s]."""

    def step(self) -> None:
        """Take in that a control step begins: one before it without `problem` was no hold."""
        if not self._holds:
            self._since = None
        self._holds = False

    def forget(self) -> None:
        """Begin anew; the clock has jumped."""
        self._since = None

    def problem(self, now: float, reason: str, rules: RealTimeRules) -> str:
        """Return what is wrong if the robot has held for too long, else nothing.

        Args:
            now: ROS time [s], at which it holds.
            reason: why it does.
            rules: for how long it may.
        """
        self._holds = True
        if self._since is None:
            self._since = now
        self.seconds = now - self._since
        if self.seconds <= rules.hold_limit_s:
            return ''
        return f'held for {self.seconds:.2f} s: {reason}'
