# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which topics a bag holds, whatever they are: for bags that hold no transitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.segment import Topic


@dataclass
class TopicCount:
    """The messages of one topic."""

    name: str
    type: str
    messages: int
    first_ns: int
    """When the first was received [ns]."""
    last_ns: int

    @property
    def rate_hz(self) -> float | None:
        """Messages per second; None if that is not known."""
        span = 1e-9 * (self.last_ns - self.first_ns)
        return (self.messages - 1) / span if span > 0.0 else None

    def to_json(self) -> dict[str, str | int | float | None]:
        """Return plain values."""
        return {
            'topic': self.name,
            'type': self.type,
            'messages': self.messages,
            'rate_hz': self.rate_hz,
        }


def take_inventory(bag: Bag) -> list[TopicCount]:
    """Read a bag and return its topics with messages, by name."""
    counts: dict[Topic, TopicCount] = {}
    for file, segment in bag.segments():
        for key in np.unique(segment.channel).tolist():
            if key not in file.topics:
                continue
            topic, times = file.topics[key], segment.time_ns[segment.channel == key]
            first, last = int(times.min()), int(times.max())
            count = counts.setdefault(topic, TopicCount(*topic, 0, first, last))
            count.messages += len(times)
            count.first_ns, count.last_ns = min(count.first_ns, first), max(count.last_ns, last)
    return sorted(counts.values(), key=lambda count: count.name)
