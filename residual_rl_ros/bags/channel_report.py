# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the times of a recorded channel are like."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

NEWEST = 10_000
"""Ages of which the median is taken: a recording may have any length."""


@dataclass
class ChannelReport:
    """Stamps of one channel, seen in recorded order."""

    name: str
    topic: str
    messages: int = 0
    stamped: int = 0
    """Messages whose own stamp counts; the time of receipt counts for the others."""
    backwards: int = 0
    """Messages older than the one before: the observation keeps the newer one."""
    ages: deque[float] = field(default_factory=lambda: deque(maxlen=NEWEST))
    """Time from stamp to receipt of the newest stamped messages [s]."""
    oldest: float = float('-inf')
    """Longest time from stamp to receipt [s]."""
    first: float = 0.0
    """Stamp of the first message [s]."""
    latest: float = float('-inf')
    """Newest stamp [s]."""

    def add(self, stamp: float | None, received: float) -> None:
        """Take in a message.

        Args:
            stamp: its own stamp, None if the receipt counts [s].
            received: when it was recorded [s].
        """
        time = received if stamp is None else stamp
        if not self.messages:
            self.first = time
        self.messages += 1
        self.backwards += time < self.latest
        self.latest = max(self.latest, time)
        if stamp is not None:
            self.stamped += 1
            self.ages.append(received - stamp)
            self.oldest = max(self.oldest, received - stamp)

    @property
    def rate_hz(self) -> float:
        """Messages per second of stamp time; 0 for a single one."""
        span = self.latest - self.first
        return (self.messages - 1) / span if span > 0.0 else 0.0

    def describe(self) -> str:
        """Return one line of facts."""
        if not self.ages:
            return f'{self.messages} messages, {self.rate_hz:.1f} Hz, by time of receipt'
        median = 1e3 * statistics.median(self.ages)
        return (
            f'{self.messages} messages, {self.rate_hz:.1f} Hz, {self.stamped} by header, '
            f'{median:.1f} ms old on receipt (median, at most {1e3 * self.oldest:.1f} ms)'
        )

    def remarks(self) -> list[str]:
        """Return what is wrong."""
        if not self.backwards:
            return []
        return [f'{self.backwards} stamps go back; the newer values were kept']
