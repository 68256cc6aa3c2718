# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Transitions that arrive before the layout that decodes them; the two topics have no order."""

from __future__ import annotations

from std_msgs.msg import Float64MultiArray

from residual_rl_ros.learner.robot_feed import RobotFeed

COUNT_LIMIT = 1000
"""Messages kept."""
BYTES_LIMIT = 64 * 2**20
"""Their size: before the layout is known a message may be anything [byte]."""


class EarlyMessages:
    """Keeps messages, up to a limit, until they are taken."""

    def __init__(self) -> None:
        self._messages: list[tuple[RobotFeed, Float64MultiArray]] = []
        self._bytes = 0

    def keep(self, feed: RobotFeed, message: Float64MultiArray) -> bool:
        """Keep a message of a robot; return False if there is no room."""
        size = self._bytes + message.data.itemsize * len(message.data)
        if len(self._messages) == COUNT_LIMIT or size > BYTES_LIMIT:
            return False
        self._messages.append((feed, message))
        self._bytes = size
        return True

    def take(self) -> list[tuple[RobotFeed, Float64MultiArray]]:
        """Return the messages, oldest first, and forget them."""
        messages, self._messages, self._bytes = self._messages, [], 0
        return messages
