# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Consecutive messages of a bag file, as both storages yield them."""

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


@dataclass(frozen=True)
class Segment:
    """Messages in recorded order; their bytes lie in one buffer, so that NumPy can cut them out."""

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

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self.start)

    def place_of(self, index: int) -> str:
        """Return where a message is, for an error."""
        chunk = NO_CHUNK if self.chunk is None else int(self.chunk[index])
        where = '' if chunk == NO_CHUNK else f' in the chunk at offset {chunk}'
        return f'message {self.first + index}{where}'

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
                yield RawMessage(topics[key], times[index], data, path, self.place_of(index))
