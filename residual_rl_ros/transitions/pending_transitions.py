# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Messages of transitions that wait until their layout is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residual_rl_ros.transitions.loss_counter import TransitionFeed

if TYPE_CHECKING:
    from std_msgs.msg import Float64MultiArray

COUNT_LIMIT = 1000
"""Messages kept."""
BYTES_LIMIT = 64 * 2**20
"""Their size: before the layout is known a message may be anything [byte]."""


class PendingTransitions:
    """Keeps messages, up to a limit, until they are taken."""

    def __init__(self) -> None:
        self._messages: list[tuple[TransitionFeed, Float64MultiArray]] = []
        self._bytes = 0

    def keep(self, feed: TransitionFeed, message: Float64MultiArray) -> bool:
        """Keep a message of a robot; return False if there is no room."""
        size = self._bytes + message.data.itemsize * len(message.data)
        if len(self._messages) == COUNT_LIMIT or size > BYTES_LIMIT:
            return False
        self._messages.append((feed, message))
        self._bytes = size
        return True

    def take(self) -> list[tuple[TransitionFeed, Float64MultiArray]]:
        """Return the messages, oldest first, and forget them."""
        messages, self._messages, self._bytes = self._messages, [], 0
        return messages
