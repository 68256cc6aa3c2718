# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The topics of a bag: how many messages, how often, and where they were silent."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from residual_rl_ros.bags.log_order import BagFile
from residual_rl_ros.bags.segment import Integers, Segment, Topic


class SilentPeriod(NamedTuple):
    """A time in which a topic had no message."""

    seconds: float
    from_s: float
    """When it began, after the bag's start [s]."""


LATEST_START_NS = 10**9
"""A simulation begins at time 0; a bag that goes on later had no clock before [ns]."""
NEVER_SILENT = SilentPeriod(0.0, 0.0)


@dataclass
class TopicCount:
    """The messages of one topic."""

    name: str
    type: str
    messages: int = 0
    silence: SilentPeriod = NEVER_SILENT
    """The longest, from the first message to the bag's end."""
    intervals: int = 0
    """How often a message followed another; not where the clock was set back."""
    span_ns: int = 0
    """Time of these intervals together [ns]."""
    last_ns: int | None = None
    """When the latest was received [ns]; None at a start."""

    @property
    def rate_hz(self) -> float | None:
        """Messages per second; None if that is not known."""
        return 1e9 * self.intervals / self.span_ns if self.span_ns > 0 else None

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
    """Counts the messages of a bag's topics, segment by segment, in the order of their times."""

    def __init__(self) -> None:
        self.start_ns = 0
        """When the bag's first message was received [ns]."""
        self._at_zero = 0
        self._end_ns = 0
        self._part = 0
        self._counts: dict[Topic, TopicCount] = {}

    @property
    def without_clock(self) -> int:
        """Messages that were recorded at time 0, before the first /clock."""
        return self._at_zero if self.start_ns else 0

    @property
    def seconds(self) -> float:
        """Time from the bag's first message to its last [s]."""
        return 1e-9 * (self._end_ns - self.start_ns)

    def add(self, file: BagFile, segment: Segment) -> None:
        """Take in the messages of a segment."""
        timed = segment.time_ns[segment.time_ns > 0]
        self._at_zero += len(segment) - len(timed)
        if len(timed) and not self._end_ns:
            self._end_ns = int(timed.min())
            if not self._at_zero or self._end_ns > LATEST_START_NS:
                self.start_ns = self._end_ns
        if segment.part != self._part:
            self._part = segment.part
            self._end_part()
        by_topic = np.lexsort((segment.time_ns, segment.channel))
        keys, times = segment.channel[by_topic], segment.time_ns[by_topic]
        bounds = [0, *(np.flatnonzero(np.diff(keys)) + 1).tolist(), len(keys)]
        for begin, end in pairwise(bounds):
            topic = file.topics.get(int(keys[begin]))
            if topic is not None:
                self._add_times(topic, times[begin:end])
        if len(timed):
            self._end_ns = max(self._end_ns, int(timed.max()))

    def _add_times(self, topic: Topic, times: Integers) -> None:
        """Take in when messages of a topic were received, in order."""
        count = self._counts.setdefault(topic, TopicCount(*topic))
        count.messages += len(times)
        if times[0] <= 0:
            times = times[times > 0]
        if not len(times):
            return
        first, last = int(times[0]), int(times[-1])
        if count.last_ns is not None and count.last_ns <= first:
            count.intervals += 1
            count.span_ns += first - count.last_ns
            self._be_silent(count, count.last_ns, first)
        if len(times) > 1:
            count.intervals += len(times) - 1
            count.span_ns += last - first
            between = times[1:] - times[:-1]
            longest = int(between.argmax())
            end = int(times[longest + 1])
            self._be_silent(count, end - int(between[longest]), end)
        count.last_ns = last

    def topics(self) -> list[TopicCount]:
        """Return the topics with messages, by name."""
        self._end_part()
        return sorted(self._counts.values(), key=lambda count: count.name)

    def _end_part(self) -> None:
        """Count the silence to the end, of all topics."""
        for count in self._counts.values():
            if count.last_ns is not None:
                self._be_silent(count, count.last_ns, self._end_ns)
                count.last_ns = None

    def _be_silent(self, count: TopicCount, begin_ns: int, end_ns: int) -> None:
        """Take in a silence, if it is the longest of the topic so far."""
        seconds = 1e-9 * (end_ns - begin_ns)
        if seconds > count.silence.seconds:
            count.silence = SilentPeriod(seconds, 1e-9 * (begin_ns - self.start_ns))
