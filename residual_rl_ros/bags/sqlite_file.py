# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read the messages of a sqlite3 bag file (the default storage up to Humble)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from residual_rl_ros.bags.segment import Segment, Topic
from residual_rl_ros.findings import Findings

SEGMENT_MESSAGES = 2048
NEXT_MESSAGES = (
    'SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? ORDER BY id LIMIT ?'
)
"""Fetched whole: an open query holds a lock, which makes a recorder's next commit fail."""


class SqliteFile:
    """A file of the `sqlite3` storage.

    Args:
        path: the file.
        problems: where damage is reported.
    """

    def __init__(self, path: Path, problems: Findings) -> None:
        self.path = path
        self.topics: dict[int, Topic] = {}
        """Topics, by their key in the file."""
        self.knows_topics = True
        """Whether these are all that it has, as soon as a message was read."""
        self._problems = problems

    def segments(self) -> Iterator[Segment]:
        """Yield the messages in recorded order, some thousand at a time.

        Raises:
            OSError: the file cannot be read.
        """
        count, latest = 0, -(2**63)
        try:
            with closing(self._connect()) as connection:
                while batch := connection.execute(
                    NEXT_MESSAGES, (latest, SEGMENT_MESSAGES)
                ).fetchall():
                    numbers, keys, times, blobs = zip(*batch, strict=True)
                    if numbers[-1] <= latest:  # Else a damaged file could repeat.
                        raise ValueError(f'message ids go back from {latest} to {numbers[-1]}')
                    yield _segment(keys, times, blobs, count)
                    count, latest = count + len(batch), numbers[-1]
        except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:
            self._problems.add(
                self.path, f'sqlite3: {error}; what follows is not read', place=f'message {count}'
            )

    def _connect(self) -> sqlite3.Connection:
        """Open the file and read its topics.

        A killed recorder leaves a journal, which only a connection that may write can settle.
        """
        with self.path.open('rb'):
            pass  # For the plain OSError that sqlite3 does not give.
        uri = self.path.absolute().as_uri()
        try:
            return self._read_topics(f'{uri}?mode=ro')
        except sqlite3.OperationalError:
            return self._read_topics(f'{uri}?mode=rw')

    def _read_topics(self, uri: str) -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True)
        connection.text_factory = lambda text: text.decode(errors='replace')
        try:
            rows = connection.execute('SELECT id, name, type FROM topics').fetchall()
        except (sqlite3.Error, UnicodeDecodeError):  # Also of a message about a damaged name.
            connection.close()
            raise
        self.topics = {key: Topic(str(name), str(kind)) for key, name, kind in rows}
        return connection


def _segment(
    keys: tuple[int, ...], times: tuple[int, ...], blobs: tuple[bytes, ...], first: int
) -> Segment:
    sizes = np.array([len(blob) for blob in blobs], dtype=np.int64)
    return Segment(
        buffer=memoryview(b''.join(blobs)),
        channel=np.array(keys, dtype=np.int64),
        start=np.cumsum(sizes) - sizes,
        size=sizes,
        time_ns=np.array(times, dtype=np.int64),
        first=first,
        file_bytes=int(sizes.sum()),
    )
