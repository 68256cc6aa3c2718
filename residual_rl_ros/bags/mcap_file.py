# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Walk the records of an MCAP file from front to back (https://mcap.dev/spec).

No index is needed: a recorder that was killed leaves none. Messages before a damage are read, a
chunk that is damaged inside is skipped, and each damage is reported with its offset.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from pathlib import Path

import numpy as np

from residual_rl_ros.bags.mcap_records import (
    CHANNEL,
    CHUNK,
    CHUNK_HEAD,
    CHUNK_INDEX,
    DATA_END,
    FOOTER,
    MAGIC,
    MESSAGE,
    MESSAGE_HEAD,
    RECORD,
    SCHEMA,
    DamageError,
    records_of,
    text_at,
    uncompress,
    unpack,
)
from residual_rl_ros.bags.segment import NO_CHUNK, Block, Segment, Topic
from residual_rl_ros.errors import one_line
from residual_rl_ros.files import limits
from residual_rl_ros.findings import Findings

SEGMENT_MESSAGES, SEGMENT_BYTES = 4096, 1 << 20
"""Small chunks, as a flushing recorder writes them, are read together up to these limits."""
LATEST_NS = 2**63 - 1


class _LimitError(Exception):
    """A file that asks for too much."""


class McapFile:
    """A file of the `mcap` storage.

    Args:
        path: the file.
        problems: where damage is reported.
    """

    def __init__(self, path: Path, problems: Findings) -> None:
        self.path = path
        self.topics: dict[int, Topic] = {}
        """Topics seen so far, by channel."""
        self.knows_topics = False
        """Whether these are all that it has, as soon as a message was read."""
        self._problems = problems
        self._types: dict[int, str] = {}
        self._count = 0
        self._whole = memoryview(b'')
        self._records_left = 0

    def blocks(self) -> list[Block]:
        """Return where the messages are, in the order of the file; chunks are not unpacked.

        Raises:
            OSError: the file cannot be read.
        """
        self._count = 0
        nbytes = self.path.stat().st_size
        if nbytes < len(MAGIC):
            self._report(0, 'no MCAP file: it has no magic bytes')
            return []
        with self.path.open('rb') as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if whole[: len(MAGIC)] != MAGIC:
            self._report(0, 'no MCAP file: it does not begin with the magic bytes')
            return []
        self._whole = whole
        self.rewind()
        plan = _Plan(nbytes)
        chunks = self._read_summary(plan)
        offset: int | None = len(MAGIC)
        while offset is not None:
            offset = self._walk(offset, chunks, plan)
            plan.whole = False
        return plan.blocks

    def rewind(self) -> None:
        """Count from the first message again."""
        self._count = 0
        self._records_left = limits.CHUNK_RECORDS + len(self._whole) // 2

    def load(self, block: Block) -> Segment | None:
        """Return the messages of a block, None where there are none."""
        found = _Collector(self._count)
        if block.loose:
            found.open(self._whole, NO_CHUNK)
        for opcode, begin, end in records_of(self._whole, block.begin, block.end):
            if opcode == CHUNK:
                self._chunk(begin, end, found)
            elif opcode == MESSAGE:
                found.add(begin, end)
        self._count += len(found)
        return found.segment(block.end - block.begin) if len(found) else None

    def _walk(self, offset: int, chunks: list[int], plan: _Plan) -> int | None:
        """Take records into the plan from an offset on; return where to go on after damage.

        Args:
            offset: where a record begins.
            chunks: offsets of the chunks that the summary lists.
            plan: what is found.
        """
        whole = self._whole
        try:
            for opcode, begin, end in records_of(whole, offset, len(whole)):
                offset = begin - RECORD.size
                following = _after(chunks, offset)
                if following is not None and end > following:
                    raise DamageError(f'a record of {end - begin} bytes runs into the next chunk')
                plan.records_left -= 1
                if plan.records_left < 0:
                    raise _LimitError('the file has too many small records')
                if opcode == MESSAGE:
                    _, _, time_ns, _ = unpack(MESSAGE_HEAD.format, whole, begin, end)
                    plan.message(begin, end, time_ns)
                elif opcode == CHUNK:
                    self._plan_chunk(begin, end, plan)
                elif opcode == DATA_END:
                    if whole[-len(MAGIC) :] != MAGIC:
                        self._report(end, 'the index at the end is cut off')
                    break
                else:
                    self._declare(whole, opcode, begin, end)
                offset = end
            else:
                self._report(offset, 'the file ends without its index: recording was cut off')
        except _LimitError as error:
            self._report(offset, f'{error}; what follows is not read')
        except DamageError as damage:
            resume = _after(chunks, offset)
            go_on = f'going on at offset {resume}' if resume else 'what follows is not read'
            self._report(offset, f'{damage}; {go_on}')
            return resume
        return None

    def _plan_chunk(self, begin: int, end: int, plan: _Plan) -> None:
        """Take a chunk into the plan, by what its header says."""
        try:
            start_ns, end_ns, size, _ = unpack(CHUNK_HEAD.format, self._whole, begin, end)
            compression, _ = text_at(self._whole, begin + CHUNK_HEAD.size, end)
        except DamageError as damage:
            self._report(begin - RECORD.size, f'damaged chunk: {damage}; passed over')
            return
        plan.chunk(begin, end, (start_ns, end_ns), size if compression else 0)

    def _chunk(self, begin: int, end: int, found: _Collector) -> None:
        """Collect the messages of a chunk, or report why they cannot be read."""
        offset = begin - RECORD.size
        if self._records_left < 0:
            return
        try:
            records = uncompress(self._whole, begin, end)
            found.open(records, offset)
            count = 0
            for opcode, first, last in records_of(records, 0, len(records)):
                count += 1
                if count > self._records_left:
                    self._records_left = -1
                    raise DamageError(
                        f'more than {count - 1} records in chunks of {len(self._whole)} bytes; '
                        'what follows is not read'
                    )
                if opcode == MESSAGE:
                    found.add(first, last)
                elif opcode in (SCHEMA, CHANNEL):
                    self._declare(records, opcode, first, last)
                else:
                    self._report(offset, 'a record within a chunk that is no message')
            self._records_left -= count
        except DamageError as damage:
            self._report(offset, f'damaged chunk: {damage}; passed over')

    def _declare(self, buffer: memoryview, opcode: int, begin: int, end: int) -> None:
        """Read a schema or a channel; of two under one key the first counts."""
        if opcode == SCHEMA:
            (key,) = unpack('<H', buffer, begin, end)
            name, _ = text_at(buffer, begin + 2, end)
            self._types.setdefault(key, one_line(name))
        elif opcode == CHANNEL:
            key, schema = unpack('<HH', buffer, begin, end)
            name, _ = text_at(buffer, begin + 4, end)
            topic = Topic(one_line(name), self._types.get(schema, ''))
            if len(self.topics) >= limits.TOPICS and key not in self.topics:
                raise DamageError(f'more than {limits.TOPICS} channels')
            if self.topics.setdefault(key, topic) != topic:
                self._problems.add(
                    self.path,
                    f'channel {key} is declared twice, of different topics; the first counts',
                )

    def _read_summary(self, plan: _Plan) -> list[int]:
        """Learn the channels from the end of a complete file: the first chunk may be damaged.

        Returns:
            Where chunks begin: those whose record agrees with the summary, in order.
        """
        whole = self._whole
        chunks: list[int] = []
        footer = len(whole) - len(MAGIC) - FOOTER.size
        if footer < len(MAGIC) or whole[-len(MAGIC) :] != MAGIC:
            return chunks
        opcode, _, summary, _, _ = FOOTER.unpack_from(whole, footer)
        if opcode != 0x02 or not len(MAGIC) <= summary < footer:
            return chunks
        try:
            for kind, begin, end in records_of(whole, summary, footer):
                plan.records_left -= 1
                if plan.records_left < 0:
                    raise DamageError('too many small records')
                self._declare(whole, kind, begin, end)
                if kind == CHUNK_INDEX:
                    _, _, offset, length = unpack('<QQQQ', whole, begin, end)
                    record = CHUNK, length - RECORD.size
                    if offset < summary and RECORD.unpack_from(whole, offset) == record:
                        chunks.append(offset)
            self.knows_topics = bool(self.topics)  # A summary may leave them out.
        except DamageError as damage:
            self._report(summary, f'damaged summary: {damage}')
        return sorted(chunks)

    def _report(self, offset: int, reason: str) -> None:
        self._problems.add(self.path, reason, place=f'offset {offset}')


class _Plan:
    """Gathers the blocks of a file.

    Args:
        nbytes: size of the file.
    """

    def __init__(self, nbytes: int) -> None:
        self.blocks: list[Block] = []
        self.whole = True
        """There was no damage since the last block."""
        self.records_left = limits.LOOSE_RECORDS + nbytes // 24
        self._inflated_left = limits.INFLATED_BYTES + limits.INFLATION * nbytes

    def chunk(self, begin: int, end: int, times: tuple[int, int], inflated: int) -> None:
        """Add a chunk; small ones that follow in time, as a flushing recorder writes, are joined.

        Raises:
            _LimitError: the file unpacks to too much.
        """
        self._inflated_left -= inflated
        if self._inflated_left < 0:
            raise _LimitError(
                f'the chunks unpack to more than {limits.INFLATED_BYTES} bytes and '
                f'{limits.INFLATION} times the size of the file; unpack it with ros2 bag convert'
            )
        first, last = (min(time, LATEST_NS) for time in times)
        size = inflated or end - begin
        block = self._last()
        if (
            block is not None
            and not block.loose
            and block.end_ns <= first <= last
            and block.size + size <= SEGMENT_BYTES
        ):
            block.end, block.end_ns = end, last
            block.size += size
            block.memory = block.size
        else:
            begin -= RECORD.size
            self.blocks.append(Block(first, last, inflated, begin, end, size=size))

    def _last(self) -> Block | None:
        """Return the last block, None if nothing may be added to it."""
        block = self.blocks[-1] if self.blocks and self.whole else None
        self.whole = True
        return block

    def message(self, begin: int, end: int, time_ns: int) -> None:
        """Add a message outside of chunks."""
        time_ns, begin = min(time_ns, LATEST_NS), begin - RECORD.size
        block = self._last()
        full = block is None or block.count >= SEGMENT_MESSAGES or block.size >= SEGMENT_BYTES
        if block is None or not block.loose or full:
            block = Block(time_ns, time_ns, 0, begin, end, loose=True)
            self.blocks.append(block)
        block.end = end
        block.start_ns, block.end_ns = min(block.start_ns, time_ns), max(block.end_ns, time_ns)
        block.size += end - begin
        block.count += 1


class _Collector:
    """Gathers the messages of a segment.

    Args:
        first: number of the first message in the file.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self._buffers: list[memoryview] = []
        self._size = 0
        self._start = 0
        self._chunk = NO_CHUNK
        self._rows: list[tuple[int, int, int, int, int]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def open(self, buffer: memoryview, chunk: int) -> None:
        """Continue with the records of another chunk."""
        self._buffers.append(buffer)
        self._start, self._size = self._size, self._size + len(buffer)
        self._chunk = chunk

    def add(self, begin: int, end: int) -> None:
        """Add a message record of the buffer that was opened last."""
        data = begin + MESSAGE_HEAD.size
        if data > end:
            raise DamageError(f'a message record of {end - begin} bytes')
        channel, _, time_ns, _ = MESSAGE_HEAD.unpack_from(self._buffers[-1], begin)
        time_ns = min(time_ns, LATEST_NS)
        self._rows.append((channel, self._start + data, end - data, time_ns, self._chunk))

    def segment(self, file_bytes: int) -> Segment:
        """Return the messages added so far; nothing is copied if they lie in one buffer."""
        one = len(self._buffers) == 1
        buffer = self._buffers[0] if one else memoryview(b''.join(self._buffers))
        channel, start, size, time_ns, chunk = np.array(self._rows, dtype=np.int64).T
        return Segment(buffer, channel, start, size, time_ns, self.first, file_bytes, chunk)


def _after(chunks: list[int], offset: int) -> int | None:
    """Return where the first chunk behind an offset begins; None if none is known."""
    index = bisect_right(chunks, offset)
    return chunks[index] if index < len(chunks) else None
