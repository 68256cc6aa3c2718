# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The messages of a recording in the order in which they were received (log time).

Files need not be in that order: some are merged topic after topic, some topics are written late. A
recording is planned as blocks of messages, by the times that its files claim for them. Blocks that
follow one another are read one by one. Others are read twice: first for their true times, then
merged. What waits in the merge is bounded.

One thing looks alike and is none: a clock that is set back while recording. Then the topics
themselves go back in time, all at one place of the file. Such a recording has parts, and messages
of different parts are never mixed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from residual_rl_ros.bags.mcap_file import McapFile
from residual_rl_ros.bags.segment import Block, Integers, Segment
from residual_rl_ros.bags.sqlite_file import SqliteFile
from residual_rl_ros.files import limits
from residual_rl_ros.findings import Findings

BagFile = McapFile | SqliteFile

SMALLEST_STEP_NS = 100_000_000
"""A topic that goes back by less was written in another order; no clock was set back [ns]."""
FEW_MESSAGES = 5
"""So many messages that go back at the end of what is known tell nothing of the clock."""
MESSAGES_A_PART = 50
"""Topics that go back more often than once in so many messages were written in another order."""
MERGED_MESSAGES, MERGED_BYTES = 4096, 1 << 20
"""Merged messages are yielded together up to these limits."""


class _Located(NamedTuple):
    """A block and the file that it is of."""

    file: BagFile
    block: Block


@dataclass(frozen=True)
class _Piece:
    """Messages of a block that belong to one part."""

    located: _Located
    order: int
    """Place among the pieces of the recording, in the order of its files."""
    first: int
    """Number of the block's first message in its file."""
    begin: int
    end: int
    """First message of the block, and the one behind the last."""
    start_ns: int
    """Time of the earliest [ns]."""
    end_ns: int
    """Time of the latest [ns]."""


class _Waiting:
    """Messages of a piece that were read and not yet yielded, in the order of their times."""

    def __init__(self, piece: _Piece, segment: Segment, part: int) -> None:
        self.file, self.order = piece.located.file, piece.order
        self.memory = piece.located.block.memory
        chosen = np.arange(piece.begin, piece.end)
        by_time = np.argsort(segment.time_ns[chosen], kind='stable')
        shifted = replace(segment, first=piece.first)
        self.segment = shifted.rows(chosen[by_time], part)
        self.done = 0

    def take_until(self, time_ns: int | None, order: int) -> Integers:
        """Return which messages come before another piece's first; None takes all."""
        times = self.segment.time_ns
        end = len(times)
        if time_ns is not None:
            end = int(np.searchsorted(times, time_ns, 'right' if self.order < order else 'left'))
        taken = np.arange(self.done, end)
        self.done = max(self.done, end)
        return taken

    @property
    def left(self) -> int:
        """How many wait."""
        return len(self.segment) - self.done


def in_log_order(files: Sequence[BagFile], problems: Findings) -> Iterator[tuple[BagFile, Segment]]:
    """Yield the messages of one recording in the order of their log times.

    Args:
        files: of the recording, in order.
        problems: receives what cannot be read, and clocks that were set back.
    """
    plan = [_Located(file, block) for file in files for block in _blocks(file, problems)]
    ordered = all(one.block.end_ns <= two.block.start_ns for one, two in pairwise(plan))
    if ordered:
        yield from _one_by_one(plan, problems)
        return
    before = len(problems)
    parts = _survey(plan)
    problems.forget_after(before)  # It is found again when the messages are read.
    parts = _arranged(parts, problems)
    for number, pieces in enumerate(parts):
        if not (yield from _merged(pieces, number, problems)):
            return


def _blocks(file: BagFile, problems: Findings) -> list[Block]:
    try:
        return file.blocks()
    except OSError as error:
        problems.add(file.path, f'cannot be read: {error.strerror}')
        return []


def _one_by_one(plan: Sequence[_Located], problems: Findings) -> Iterator[tuple[BagFile, Segment]]:
    """Yield blocks that follow one another in time, by what their files claim."""
    latest, part = -(2**63), 0
    for file, block in plan:
        segment = file.load(block)
        if segment is None:
            continue
        pieces = _split(file, segment, problems)
        for chosen in pieces:
            times = segment.time_ns[chosen]
            earliest = int(times.min())
            if earliest < latest:
                part += 1
                place = segment.place_of(int(chosen[0]))
                _report_set_back(file, place, latest - earliest, OWN, problems)
            latest = int(times.max())
            if len(pieces) == 1 and not (np.diff(times) < 0).any():
                yield file, replace(segment, part=part)
            else:
                yield file, segment.rows(chosen[np.argsort(times, kind='stable')], part)


def _split(file: BagFile, segment: Segment, problems: Findings) -> list[Integers]:
    """Return the messages of a segment between the places where the clock was set back."""
    every, times = np.arange(len(segment)), segment.time_ns
    if not (np.diff(times) < 0).any():
        return [every]
    cuts = _TopicTimes().cuts(0, segment)
    if len(cuts) >= _most_parts(len(segment)):
        return [every]
    pieces = [piece for piece in np.split(every, cuts) if len(piece)]
    ranges = [(int(times[piece].min()), int(times[piece].max())) for piece in pieces]
    if _overlap(ranges):
        return pieces
    for at, (one, two) in zip(cuts, pairwise(ranges), strict=False):
        _report_set_back(file, segment.place_of(at), one[1] - two[0], BY_TIME, problems)
    return [every]


def _overlap(ranges: Sequence[tuple[int, int]]) -> bool:
    """Return whether parts overlap in time; else their order is that of their times."""
    return any(one[1] > two[0] + SMALLEST_STEP_NS for one, two in pairwise(sorted(ranges)))


class _TopicTimes:
    """The latest time of every topic, to notice where the clock was set back."""

    def __init__(self) -> None:
        self._latest: dict[tuple[int, int], int] = {}
        self._newest = -(2**63)

    def cuts(self, file: int, segment: Segment) -> list[int]:
        """Return the messages before which the clock was set back, in the order of the file.

        A topic goes back there, and what follows climbs again to where the clock had been. One
        message that was written late does not.
        """
        found: list[int] = []
        times = segment.time_ns
        numbers = zip(segment.channel.tolist(), times.tolist(), strict=True)
        for index, (channel, time_ns) in enumerate(numbers):
            known = self._latest.get((file, channel), -(2**63))
            if time_ns <= known - SMALLEST_STEP_NS and self._climbs(times[index:]):
                found.append(index)
                self._latest, self._newest, known = {}, -(2**63), -(2**63)
            self._latest[file, channel] = max(known, time_ns)
            self._newest = max(self._newest, time_ns)
        return found

    def _climbs(self, times: Integers) -> bool:
        newer = np.flatnonzero(times >= self._newest)
        if not len(newer):
            return len(times) >= FEW_MESSAGES
        back = self._newest - int(times[0])
        climbed = int(times[: newer[0]].max())
        return climbed >= self._newest - max(SMALLEST_STEP_NS, back // 3)


def _survey(plan: Sequence[_Located]) -> list[list[_Piece]]:
    """Read all messages once, and return the pieces of each part in the order of the files."""
    topics = _TopicTimes()
    parts: list[list[_Piece]] = [[]]
    counts: dict[int, int] = {}
    total = 0
    for located in plan:
        segment = located.file.load(located.block)
        if segment is None:
            continue
        key = id(located.file)
        first = counts.get(key, 0)
        counts[key] = first + len(segment)
        found = topics.cuts(key, segment)
        total += len(segment)
        for begin, end in pairwise([0, *found, len(segment)]):
            if begin in found:
                parts.append([])
            if end > begin:
                times = segment.time_ns[begin:end]
                piece = _Piece(located, 0, first, begin, end, int(times.min()), int(times.max()))
                parts[-1].append(piece)
    parts = [part for part in parts if part]
    if len(parts) > _most_parts(total):
        parts = [[piece for part in parts for piece in part]]
    for file in {id(located.file): located.file for located in plan}.values():
        file.rewind()
    return [[replace(piece, order=number) for number, piece in enumerate(part)] for part in parts]


def _most_parts(messages: int) -> int:
    """Return in how many parts so many messages may lie; more are another order of writing."""
    return 2 + messages // MESSAGES_A_PART


def _arranged(parts: list[list[_Piece]], problems: Findings) -> list[list[_Piece]]:
    """Report where the clock was set back; return one part if none overlap in time."""
    ranges = [(min(p.start_ns for p in part), max(p.end_ns for p in part)) for part in parts]
    overlap = _overlap(ranges)
    for (before, after), part in zip(pairwise(ranges), parts[1:], strict=True):
        place = f'message {part[0].first + part[0].begin}'
        outcome = OWN if overlap else BY_TIME
        _report_set_back(part[0].located.file, place, before[1] - after[0], outcome, problems)
    if overlap or len(parts) < 2:
        return parts
    every = (piece for part in parts for piece in part)
    return [[replace(piece, order=number) for number, piece in enumerate(every)]]


OWN = 'what follows is read as a recording of its own'
BY_TIME = 'all is read in the order of the times'


def _report_set_back(
    file: BagFile, place: str, back_ns: int, outcome: str, problems: Findings
) -> None:
    problems.add(
        file.path,
        f'log times jump back by {1e-9 * back_ns:.3f} s, as if the clock had been set back; '
        f'{outcome}',
        place=place,
        kind='set back',
    )


def _merged(
    pieces: Sequence[_Piece], part: int, problems: Findings
) -> Generator[tuple[BagFile, Segment], None, bool]:
    """Yield the messages of a part by time; return whether all were.

    A piece is read when the first of its messages is due.
    """
    waiting: list[_Waiting] = []
    queue = sorted(pieces, key=lambda piece: (piece.start_ns, piece.order))
    for number, piece in enumerate(queue):
        yield from _due(waiting, piece.start_ns, piece.order)
        waiting = [each for each in waiting if each.left]
        memory = sum(each.memory for each in waiting) + piece.located.block.memory
        count = sum(len(each.segment) for each in waiting)
        if waiting and (memory > limits.OVERLAP_BYTES or count > limits.OVERLAP_MESSAGES):
            problems.add(
                piece.located.file.path,
                f'{len(waiting)} blocks of messages overlap in time, more than '
                f'{limits.OVERLAP_BYTES} bytes or {limits.OVERLAP_MESSAGES} messages: they cannot '
                f'be put in order; {len(queue) - number} blocks are not read. Sort the file, for '
                'example with mcap sort or ros2 bag convert',
            )
            yield from _due(waiting, None, 0)
            return False
        segment = piece.located.file.load(piece.located.block)
        if segment is not None and len(segment) >= piece.end:
            waiting.append(_Waiting(piece, segment, part))
    yield from _due(waiting, None, 0)
    return True


def _due(
    waiting: Sequence[_Waiting], time_ns: int | None, order: int
) -> Iterator[tuple[BagFile, Segment]]:
    """Yield what comes before a time, by time, cut where the file changes."""
    taken = [(each, each.take_until(time_ns, order)) for each in waiting]
    taken = [(each, rows) for each, rows in taken if len(rows)]
    if not taken:
        return
    if len(taken) == 1:
        each, rows = taken[0]
        yield each.file, each.segment.rows(rows, each.segment.part)
        return
    times = np.concatenate([each.segment.time_ns[rows] for each, rows in taken])
    source = np.repeat(np.arange(len(taken)), [len(rows) for _, rows in taken])
    orders = np.array([each.order for each, _ in taken])
    row = np.concatenate([rows for _, rows in taken])
    size = np.concatenate([each.segment.size[rows] for each, rows in taken])
    by_time = np.lexsort((row, orders[source], times))
    names = {id(each.file): number for number, (each, _) in enumerate(taken)}
    file = np.array([names[id(each.file)] for each, _ in taken])[source][by_time]
    begin = 0
    while begin < len(by_time):
        grown = np.cumsum(size[by_time[begin : begin + MERGED_MESSAGES]])
        count = max(1, int(np.searchsorted(grown, MERGED_BYTES)))
        other = np.flatnonzero(file[begin : begin + count] != file[begin])
        if len(other):
            count = int(other[0])
        chosen = by_time[begin : begin + count]
        yield taken[int(file[begin])][0].file, _joined(taken, source[chosen], row[chosen])
        begin += count


def _joined(taken: Sequence[tuple[_Waiting, Integers]], source: Integers, row: Integers) -> Segment:
    """Return messages of several segments in one."""
    pieces = [each.segment for each, _ in taken]
    pairs = list(zip(source.tolist(), row.tolist(), strict=True))
    parts = [
        pieces[s].buffer[int(pieces[s].start[r]) : int(pieces[s].start[r] + pieces[s].size[r])]
        for s, r in pairs
    ]

    def column(name: str) -> Integers:
        return np.array([getattr(pieces[s], name)[r] for s, r in pairs], dtype=np.int64)

    size = column('size')
    chunked = all(piece.chunk is not None for piece in pieces)
    return Segment(
        memoryview(b''.join(parts)),
        column('channel'),
        np.cumsum(size) - size,
        size,
        column('time_ns'),
        0,
        int(size.sum()),
        column('chunk') if chunked else None,
        column('number'),
        pieces[0].part,
    )
