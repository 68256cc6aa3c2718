# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Send a gripper's part of the commands as goals of a ROS action: few, and only the newest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.command import Command

LOOK_PERIOD_S = 0.5
"""How often a gripper that has its goal is looked at: a server that has come does not know it."""
ANSWER_S = 1.0
"""A goal that no server has answered so long is sent again [s]."""


class GripperGoals:
    """Turns the stream of a gripper's commands into goals.

    A goal is sent when the command differs from the latest goal by `threshold` or more and
    `min_interval_s` have passed since; a newer one replaces what is under way, as drivers do. A
    server that comes, or comes back, gets the goal of now. While none is there, nothing is sent,
    and the newest command waits.

    Args:
        command: of an action type.
        ready: tells whether the server is there.
        servers: tells which there are: a restarted one is another.
        send: sends a goal for values, given with a time [s]; returns the future of its handle.
        warn: is told what a server does not do.
    """

    def __init__(
        self,
        command: Command,
        ready: Callable[[], bool],
        servers: Callable[[], frozenset[bytes]],
        send: Callable[[Array, float], Any],
        warn: Callable[[str], object] = lambda reason: None,
    ) -> None:
        self._warn = warn
        self._command = command
        self._ready = ready
        self._servers = servers
        self._send = send
        self._sent_at = self._looked_at = -math.inf
        self._sent: Array | None = None
        self._known: frozenset[bytes] = frozenset()  # Servers that were there at the goal.
        self._handle: Any = None
        self._asked: Any = None  # The future of the goal that is wanted, None in a hold.
        self._open: set[Any] = set()  # Futures of goals and cancellations.
        self.goals = 0
        """Goals that were sent."""
        self.refused = 0
        """Goals that the server did not accept."""
        self.unsent = 0
        """Commands for which no server was there."""

    def take(self, values: Array, now: float) -> None:
        """Take in the command of a control step.

        Args:
            values: shape (1,).
            now: time [s]; where it has gone back, a new interval begins.
        """
        if 0.0 <= now - self._sent_at < self._command.min_interval_s:
            return
        if self._sent is not None and not self._differs(values) and not self._is_lost(now):
            return
        if not self._ready():
            self.unsent += 1
            self._sent = None  # Whatever comes does not know it.
            self._warn(f'{self._command.topic}: no action server; the gripper does not move')
            return
        self._sent, self._sent_at = values.copy(), now
        self._known, self._looked_at = self._servers(), now
        self.goals += 1
        self._asked = self._send(values, now)
        self._open.add(self._asked)
        self._asked.add_done_callback(self._answered)

    def cancel(self) -> None:
        """Stop what is under way: the robot holds. The next command makes a goal of its own."""
        handle, self._handle, self._sent, self._asked = self._handle, None, None, None
        if handle is not None:
            self._cancel(handle)

    @property
    def settled(self) -> bool:
        """Whether the server has answered everything."""
        return not self._open

    def _is_lost(self, now: float) -> bool:
        """Return whether the server does not know the latest goal, as far as can be told."""
        if 0.0 <= now - self._looked_at < LOOK_PERIOD_S:
            return False
        self._looked_at = now
        # One that has gone is forgotten: it may come back as it was, without the goal.
        before, self._known = self._known, self._servers()
        if self._asked in self._open and not 0.0 <= now - self._sent_at < ANSWER_S:
            self._warn(f'{self._command.topic}: the action server does not answer')
            return True
        return not self._known <= before

    def _cancel(self, handle: Any) -> None:
        answer = handle.cancel_goal_async()
        self._open.add(answer)
        answer.add_done_callback(self._open.discard)

    def _differs(self, values: Array) -> bool:
        assert self._sent is not None
        change = float(np.abs(values - self._sent).max())
        return change > 0.0 and change >= self._command.threshold

    def _answered(self, future: Any) -> None:
        """Keep the handle of an accepted goal, or cancel it; a refused one is tried again."""
        handle = future.result()
        if handle is None or not handle.accepted:
            self.refused += 1
            self._sent = None
            self._warn(f'{self._command.topic}: the action server refuses goals')
        elif self._asked is None:
            self._cancel(handle)
        elif future is self._asked:
            self._handle = handle
        self._open.discard(future)
