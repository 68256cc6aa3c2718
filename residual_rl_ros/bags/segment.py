# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Messages of a bag file, as both storages yield them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
NO_CHUNK = -1


class Topic(NamedTuple):
    """A recorded topic."""

    name: str
    type: str
    """ROS message type, such as `std_msgs/msg/String`."""


class RawMessage(NamedTuple):
    """One recorded message."""

    topic: Topic
    time_ns: int
    """When the recorder received it [ns]."""
    data: memoryview
    """Serialised message (CDR)."""
    path: Path
    """File that holds it."""
    place: str
    """Where it is in the file."""
    part: int = 0
    """How often the recorder's clock had been set back."""


@dataclass(frozen=True)
class Segment:
    """Messages whose bytes lie in one buffer, so that NumPy can cut them out."""

    buffer: memoryview
    channel: Integers
    """Key of each message's topic, shape (count,)."""
    start: Integers
    """Where each message begins in the buffer, shape (count,)."""
    size: Integers
    """Length of each message [byte], shape (count,)."""
    time_ns: Integers
    """When the recorder received each message [ns], shape (count,)."""
    first: int
    """Number of the first message in its file."""
    file_bytes: int
    """Bytes of the file that were read for them."""
    chunk: Integers | None = None
    """Offset of the chunk that holds each message, `NO_CHUNK` without one, shape (count,)."""
    number: Integers | None = None
    """Number of each message in its file where they do not follow `first`, shape (count,)."""
    part: int = 0
    """How often the recorder's clock had been set back before them."""

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self.start)

    def place_of(self, index: int) -> str:
        """Return where a message is, for an error."""
        chunk = NO_CHUNK if self.chunk is None else int(self.chunk[index])
        where = '' if chunk == NO_CHUNK else f' in the chunk at offset {chunk}'
        number = self.first + index if self.number is None else int(self.number[index])
        return f'message {number}{where}'

    def rows(self, chosen: Integers, part: int) -> Segment:
        """Return some of the messages, in the order given; the buffer is shared."""
        every = (
            np.arange(self.first, self.first + len(self)) if self.number is None else self.number
        )
        return Segment(
            self.buffer,
            self.channel[chosen],
            self.start[chosen],
            self.size[chosen],
            self.time_ns[chosen],
            self.first,
            self.file_bytes * len(chosen) // max(1, len(self)),
            None if self.chunk is None else self.chunk[chosen],
            every[chosen],
            part,
        )

    def messages(self, path: Path, topics: dict[int, Topic]) -> Iterator[RawMessage]:
        """Yield the messages of the given topics one by one.

        Args:
            path: file that the segment is of.
            topics: topics by their key in the file.
        """
        keys, starts, sizes, times = (
            array.tolist() for array in (self.channel, self.start, self.size, self.time_ns)
        )
        for index, key in enumerate(keys):
            if key in topics:
                data = self.buffer[starts[index] : starts[index] + sizes[index]]
                place = self.place_of(index)
                yield RawMessage(topics[key], times[index], data, path, place, self.part)


@dataclass
class Block:
    """Consecutive messages of a file that are read together: where they are, not what they say."""

    start_ns: int
    """Time of the earliest, as far as it is known without reading them [ns]."""
    end_ns: int
    """Time of the latest [ns]."""
    memory: int
    """Bytes that they take when they are read, beyond what the file itself takes."""
    begin: int
    """Where they begin, as the file counts."""
    end: int
    """Where they end."""
    loose: bool = False
    """They are outside of chunks."""
    size: int = 0
    """Bytes of all messages."""
    count: int = 0
    """How many there are, if that is known."""
