# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read the messages of a sqlite3 bag file (the default storage up to Humble).

A database is a program: views, virtual tables and generated columns can compute without end. So
only two plain tables are read, by statements that may call nothing, with a count of instructions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from residual_rl_ros.bags.segment import Block, Segment, Topic
from residual_rl_ros.errors import one_line
from residual_rl_ros.files import limits
from residual_rl_ros.findings import Findings

SEGMENT_MESSAGES, SEGMENT_BYTES = 2048, 1 << 22
SIDECARS = ('-wal', '-journal')
"""Ends of the names of files in which SQLite keeps what is not yet in the database."""
WAL_HEAD, WAL_FRAME, WAL_MAGIC = 32, 24, b'\x37\x7f\x06'
TOPICS = 'SELECT id, name, type FROM topics LIMIT ?'
NEXT_TIMES = 'SELECT id, timestamp, length(data) FROM messages WHERE id > ? ORDER BY id LIMIT ?'
NEXT_MESSAGES = (
    'SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? ORDER BY id LIMIT ?'
)
"""Fetched whole: an open query holds a lock, which makes a recorder's next commit fail."""
ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION)
PROGRESS = 10_000
"""Instructions between two looks at their number."""
DAMAGES = (sqlite3.Error, TypeError, ValueError, OverflowError, MemoryError)


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
        self._count = 0
        self._plan: list[Block] | None = None
        self._damage: Exception | None = None

    def blocks(self) -> list[Block]:
        """Return where the messages are, in the order of the file.

        Raises:
            OSError: the file cannot be read.
        """
        self._count = 0
        if self._plan is None:
            self._plan, self._damage = [], None
            try:
                self._read_plan(self._plan)
            except DAMAGES as error:
                self._damage = error
        if self._damage is not None:
            number = sum(block.count for block in self._plan)
            self._report(number, self._damage, 'what follows is not read')
        return self._plan

    def _read_plan(self, blocks: list[Block]) -> None:
        """Read topics and the times of all messages."""
        with closing(self._connect()) as connection:
            rows = _ask(connection, TOPICS, limits.TOPICS + 1)
            if len(rows) > limits.TOPICS:
                raise ValueError(f'more than {limits.TOPICS} topics')
            self.topics = {
                key: Topic(one_line(str(name)), one_line(str(kind))) for key, name, kind in rows
            }
            for number, time_ns, size in _times(connection):
                _extend(blocks, number, time_ns, size)

    def rewind(self) -> None:
        """Count from the first message again."""
        self._count = 0

    def load(self, block: Block) -> Segment | None:
        """Return the messages of a block, None where there are none."""
        before, self._count = self._count, self._count + block.count
        try:
            with closing(self._connect()) as connection:
                rows = _ask(connection, NEXT_MESSAGES, block.begin - 1, block.count)
            _, keys, times, blobs = zip(*rows, strict=True)
            return _segment(keys, times, blobs, before)
        except DAMAGES as error:
            self._report(before, error, f'{block.count} messages are not read')
        return None

    def _report(self, number: int, error: Exception, outcome: str) -> None:
        self._problems.add(self.path, f'sqlite3: {error}; {outcome}', place=f'message {number}')

    def _connect(self) -> sqlite3.Connection:
        """Open the file.

        A killed recorder leaves a journal, which only a connection that may write can settle.
        """
        with self.path.open('rb'):
            pass  # For the plain OSError that sqlite3 does not give.
        uri = self.path.absolute().as_uri()
        if _has_write_ahead_log(self.path) and not Path(f'{self.path}-wal').exists():
            return _open(f'{uri}?mode=ro&immutable=1')  # Else a log would be made beside it.
        try:
            return _open(f'{uri}?mode=ro')
        except sqlite3.OperationalError:
            if not any(Path(f'{self.path}{end}').exists() for end in SIDECARS):
                raise
            return _open(f'{uri}?mode=rw')


def _has_write_ahead_log(path: Path) -> bool:
    """Return whether a database keeps what is new in a file `-wal`.

    Raises:
        OSError: it cannot be read.
    """
    with path.open('rb') as file:
        return file.read(20)[18:20] == b'\2\2'


def is_read_with(path: Path, beside: Path) -> bool:
    """Return whether SQLite reads what a file beside a database holds.

    It takes a log whose head has the right checksum (https://sqlite.org/fileformat2.html#walformat)
    and whose first frame is of the same writing.

    Raises:
        OSError: one cannot be read.
    """
    if not beside.name.endswith('-wal') or not _has_write_ahead_log(path):
        return False
    with beside.open('rb') as file:
        head = file.read(WAL_HEAD + WAL_FRAME)
    if len(head) < WAL_HEAD + WAL_FRAME or head[:3] != WAL_MAGIC or head[3] not in (0x82, 0x83):
        return False
    order = 'little' if head[3] == 0x82 else 'big'
    one = two = 0
    for at in range(0, 24, 8):
        words = [int.from_bytes(head[i : i + 4], order) for i in (at, at + 4)]  # type: ignore[arg-type]
        one = (one + words[0] + two) % 2**32
        two = (two + words[1] + one) % 2**32
    intact = head[24:32] == one.to_bytes(4, 'big') + two.to_bytes(4, 'big')
    return intact and head[16:24] == head[WAL_HEAD + 8 : WAL_HEAD + 16]


def _open(uri: str) -> sqlite3.Connection:
    """Return a connection to a database that has the tables of a bag, and may read nothing else."""
    connection = sqlite3.connect(uri, uri=True)
    try:
        connection.text_factory = lambda text: text.decode(errors='replace')
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.MESSAGE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, limits.TEXT_BYTES)
        for pragma in ('query_only = ON', 'trusted_schema = OFF', 'cell_size_check = ON'):
            _ask(connection, f'PRAGMA {pragma}')
        for table in ('topics', 'messages'):
            _check_table(connection, table)
        connection.set_authorizer(_authorize)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_table(connection: sqlite3.Connection, table: str) -> None:
    """Refuse a view, a virtual table and computed columns.

    Raises:
        ValueError: it is one, or there is no such table.
    """
    found = _ask(
        connection,
        'SELECT type, rootpage FROM sqlite_master WHERE name = ? COLLATE NOCASE LIMIT 2',
        table,
    )
    if len(found) != 1 or found[0][0] != 'table' or not found[0][1]:
        kind = found[0][0] if found else 'missing'
        raise ValueError(f'{table} is {kind if kind != "table" else "virtual"}, expected a table')
    columns = {row[1]: row for row in _ask(connection, f'PRAGMA table_xinfo({table})')}
    if any(row[6] for row in columns.values()):
        raise ValueError(f'{table} has computed columns')
    key = columns.get('id')
    keys = [row[1] for row in columns.values() if row[5]]
    if key is None or str(key[2]).upper() != 'INTEGER' or keys != ['id']:
        raise ValueError(f'{table} has no column id that is its integer primary key')


def _authorize(action: int, one: str | None, two: str | None, *_: Any) -> int:
    """Allow to read the two tables, and to ask for the length of data."""
    if action not in ALLOWED:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_READ and one not in ('topics', 'messages'):
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and two != 'length':
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _ask(connection: sqlite3.Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return all rows of a statement, within the limit of instructions."""
    return _rows(connection, statement, *values).fetchall()


def _rows(connection: sqlite3.Connection, statement: str, *values: Any) -> sqlite3.Cursor:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += PROGRESS
        return int(steps > limits.SQL_STEPS)

    connection.set_progress_handler(count, PROGRESS)
    return connection.execute(statement, values)


def _times(connection: sqlite3.Connection) -> Iterator[tuple[int, int, int]]:
    """Yield number, time and size of every message, up to a damage."""
    latest, before = -(2**63), None
    while latest != before:
        before = latest
        for number, time_ns, size in _rows(connection, NEXT_TIMES, latest, 4 * SEGMENT_MESSAGES):
            if type(number) is not int or number <= latest:  # Else a damaged file could repeat.
                raise ValueError(f'message ids go back from {latest} to {number}')
            if type(time_ns) is not int or type(size) is not int:
                raise TypeError(f'timestamp {time_ns!r:.40}, {size!r} bytes')
            latest = number
            yield number, time_ns, size


def _extend(blocks: list[Block], number: int, time_ns: int, size: int) -> None:
    """Add a message to the last block, or begin another."""
    block = blocks[-1] if blocks else None
    if block is None or block.count >= SEGMENT_MESSAGES or block.size + size > SEGMENT_BYTES:
        block = Block(time_ns, time_ns, 0, number, number)
        blocks.append(block)
    block.end = number
    block.start_ns, block.end_ns = min(block.start_ns, time_ns), max(block.end_ns, time_ns)
    block.size += size
    block.memory = block.size
    block.count += 1


def _segment(
    keys: Sequence[int], times: Sequence[int], blobs: Sequence[bytes], first: int
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
