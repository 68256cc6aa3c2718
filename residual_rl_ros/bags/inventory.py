# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which topics a bag holds, whatever they are, and when they were silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from residual_rl_ros.bags.bag import BagFile
from residual_rl_ros.bags.segment import Segment, Topic


class Silence(NamedTuple):
    """A time in which a topic had no message."""

    seconds: float
    from_s: float
    """When it began, after the bag's start [s]."""


NEVER_SILENT = Silence(0.0, 0.0)


@dataclass
class TopicCount:
    """The messages of one topic."""

    name: str
    type: str
    first_ns: int
    """When the first was received [ns]."""
    last_ns: int
    messages: int = 0
    silence: Silence = NEVER_SILENT
    """The longest, from the first message to the bag's end."""

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
            'longest_silence_s': self.silence.seconds,
            'longest_silence_from_s': self.silence.from_s,
        }


class Inventory:
    """Takes in a bag, segment by segment, and counts the messages of its topics."""

    def __init__(self) -> None:
        self.start_ns = 0
        """When the bag's first message was received [ns]."""
        self._end_ns = 0
        self._counts: dict[Topic, TopicCount] = {}

    @property
    def seconds(self) -> float:
        """Time from the bag's first message to its last [s]."""
        return 1e-9 * (self._end_ns - self.start_ns)

    def add(self, file: BagFile, segment: Segment) -> None:
        """Take in the messages of a segment."""
        if not self._counts:
            self.start_ns = self._end_ns = int(segment.time_ns.min())
        for key in np.unique(segment.channel).tolist():
            if key not in file.topics:
                continue
            topic, times = file.topics[key], np.sort(segment.time_ns[segment.channel == key])
            first, last = int(times[0]), int(times[-1])
            if topic not in self._counts:
                self._counts[topic] = TopicCount(*topic, first, first)
            count = self._counts[topic]
            between = np.diff(times, prepend=count.last_ns)
            longest = int(between.argmax())
            end = int(times[longest])
            self._be_silent(count, end - int(between[longest]), end)
            count.messages += len(times)
            count.first_ns, count.last_ns = min(count.first_ns, first), max(count.last_ns, last)
            self._end_ns = max(self._end_ns, last)

    def topics(self) -> list[TopicCount]:
        """Return the topics with messages, by name."""
        for count in self._counts.values():
            self._be_silent(count, count.last_ns, self._end_ns)
        return sorted(self._counts.values(), key=lambda count: count.name)

    def _be_silent(self, count: TopicCount, begin_ns: int, end_ns: int) -> None:
        """Take in a silence, if it is the longest of the topic so far."""
        seconds = 1e-9 * (end_ns - begin_ns)
        if seconds > count.silence.seconds:
            count.silence = Silence(seconds, 1e-9 * (begin_ns - self.start_ns))
