# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Walk the records of an MCAP file from front to back (https://mcap.dev/spec).

No index is needed: a recorder that was killed leaves none. Messages before a damage are read, a
chunk that is damaged inside is skipped, and each damage is reported with its offset.
"""

from __future__ import annotations

import mmap
import struct
import sys
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np

from residual_rl_ros.bags.segment import NO_CHUNK, Block, Segment, Topic
from residual_rl_ros.errors import one_line
from residual_rl_ros.files import limits
from residual_rl_ros.findings import Findings

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b'\x89MCAP0\r\n'
SCHEMA, CHANNEL, MESSAGE, CHUNK, CHUNK_INDEX, DATA_END = 0x03, 0x04, 0x05, 0x06, 0x08, 0x0F
RECORD = struct.Struct('<BQ')
"""Opcode and length of what follows."""
MESSAGE_HEAD = struct.Struct('<HIQQ')
"""Channel, sequence, log time and publish time; the message follows."""
CHUNK_HEAD = struct.Struct('<QQQI')
"""First and last log time, uncompressed size and CRC-32; compression and records follow."""
FOOTER = struct.Struct('<BQQQI')
"""The last record, before the magic: opcode, length, start of the summary, offsets, CRC-32."""
SEGMENT_MESSAGES, SEGMENT_BYTES = 4096, 1 << 20
"""Small chunks, as a flushing recorder writes them, are read together up to these limits."""
LATEST_NS = 2**63 - 1
WINDOW_LOG = 26
"""Largest window of a zstd frame, which the decompressor allocates: 2 to this power [byte]."""


class _DamageError(Exception):
    """Bytes that are no record."""


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
        for opcode, begin, end in _records(self._whole, block.begin, block.end):
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
            for opcode, begin, end in _records(whole, offset, len(whole)):
                offset = begin - RECORD.size
                following = _after(chunks, offset)
                if following is not None and end > following:
                    raise _DamageError(f'a record of {end - begin} bytes runs into the next chunk')
                plan.records_left -= 1
                if plan.records_left < 0:
                    raise _LimitError('the file has too many small records')
                if opcode == MESSAGE:
                    _, _, time_ns, _ = _unpack(MESSAGE_HEAD.format, whole, begin, end)
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
        except _DamageError as damage:
            resume = _after(chunks, offset)
            go_on = f'going on at offset {resume}' if resume else 'what follows is not read'
            self._report(offset, f'{damage}; {go_on}')
            return resume
        return None

    def _plan_chunk(self, begin: int, end: int, plan: _Plan) -> None:
        """Take a chunk into the plan, by what its header says."""
        try:
            start_ns, end_ns, size, _ = _unpack(CHUNK_HEAD.format, self._whole, begin, end)
            compression, _ = _text(self._whole, begin + CHUNK_HEAD.size, end)
        except _DamageError as damage:
            self._report(begin - RECORD.size, f'damaged chunk: {damage}; passed over')
            return
        plan.chunk(begin, end, (start_ns, end_ns), size if compression else 0)

    def _chunk(self, begin: int, end: int, found: _Collector) -> None:
        """Collect the messages of a chunk, or report why they cannot be read."""
        offset = begin - RECORD.size
        if self._records_left < 0:
            return
        try:
            records = _uncompress(self._whole, begin, end)
            found.open(records, offset)
            count = 0
            for opcode, first, last in _records(records, 0, len(records)):
                count += 1
                if count > self._records_left:
                    self._records_left = -1
                    raise _DamageError(
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
        except _DamageError as damage:
            self._report(offset, f'damaged chunk: {damage}; passed over')

    def _declare(self, buffer: memoryview, opcode: int, begin: int, end: int) -> None:
        """Read a schema or a channel; of two under one key the first counts."""
        if opcode == SCHEMA:
            (key,) = _unpack('<H', buffer, begin, end)
            name, _ = _text(buffer, begin + 2, end)
            self._types.setdefault(key, one_line(name))
        elif opcode == CHANNEL:
            key, schema = _unpack('<HH', buffer, begin, end)
            name, _ = _text(buffer, begin + 4, end)
            topic = Topic(one_line(name), self._types.get(schema, ''))
            if len(self.topics) >= limits.TOPICS and key not in self.topics:
                raise _DamageError(f'more than {limits.TOPICS} channels')
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
            for kind, begin, end in _records(whole, summary, footer):
                plan.records_left -= 1
                if plan.records_left < 0:
                    raise _DamageError('too many small records')
                self._declare(whole, kind, begin, end)
                if kind == CHUNK_INDEX:
                    _, _, offset, length = _unpack('<QQQQ', whole, begin, end)
                    record = CHUNK, length - RECORD.size
                    if offset < summary and RECORD.unpack_from(whole, offset) == record:
                        chunks.append(offset)
            self.knows_topics = bool(self.topics)  # A summary may leave them out.
        except _DamageError as damage:
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
            raise _DamageError(f'a message record of {end - begin} bytes')
        channel, _, time_ns, _ = MESSAGE_HEAD.unpack_from(self._buffers[-1], begin)
        time_ns = min(time_ns, LATEST_NS)
        self._rows.append((channel, self._start + data, end - data, time_ns, self._chunk))

    def segment(self, file_bytes: int) -> Segment:
        """Return the messages added so far; nothing is copied if they lie in one buffer."""
        one = len(self._buffers) == 1
        buffer = self._buffers[0] if one else memoryview(b''.join(self._buffers))
        channel, start, size, time_ns, chunk = np.array(self._rows, dtype=np.int64).T
        return Segment(buffer, channel, start, size, time_ns, self.first, file_bytes, chunk)


def _records(buffer: memoryview, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield opcode, begin and end of every record's content."""
    unpack, head = RECORD.unpack_from, RECORD.size
    while begin < end:
        if begin + head > end:
            raise _DamageError(f'cut off after {end - begin} bytes of a record')
        opcode, length = unpack(buffer, begin)
        begin += head
        if opcode == 0:
            raise _DamageError('opcode 0 is no record')
        if length > end - begin:
            raise _DamageError(f'a record of {length} bytes where {end - begin} are left')
        yield opcode, begin, begin + length
        begin += length


def _after(chunks: list[int], offset: int) -> int | None:
    """Return where the first chunk behind an offset begins; None if none is known."""
    index = bisect_right(chunks, offset)
    return chunks[index] if index < len(chunks) else None


def _uncompress(buffer: memoryview, begin: int, end: int) -> memoryview:
    """Return the records of a chunk."""
    _, _, size, crc = _unpack(CHUNK_HEAD.format, buffer, begin, end)
    compression, begin = _text(buffer, begin + CHUNK_HEAD.size, end)
    (length,) = _unpack('<Q', buffer, begin, end)
    begin += 8
    if length > end - begin or (compression and size > limits.MESSAGE_BYTES):
        raise _DamageError(f'{length} bytes of {size} uncompressed where {end - begin} are left')
    stored = buffer[begin : begin + length]
    try:
        if compression == '':
            records = stored
        elif compression == 'zstd':
            records = memoryview(_zstd().decompress(stored, size + 1))
        elif compression == 'lz4':
            records = memoryview(lz4.frame.LZ4FrameDecompressor().decompress(stored, size + 1))
        else:
            raise _DamageError(f'compression {compression!r}, expected none, zstd or lz4')
    except (zstd.ZstdError, RuntimeError, ValueError) as error:
        raise _DamageError(f'{compression}: {error}') from error
    if len(records) != size:
        found = f'{len(records)} bytes' if len(records) < size else 'more'
        raise _DamageError(f'{found} uncompressed, expected {size} bytes')
    if crc and zlib.crc32(records) != crc:
        raise _DamageError(f'CRC-32 {zlib.crc32(records):08x}, expected {crc:08x}')
    return records


def _zstd() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})


def _unpack(layout: str, buffer: memoryview, begin: int, end: int) -> tuple[Any, ...]:
    if begin + struct.calcsize(layout) > end:
        raise _DamageError(f'a record of {end - begin} bytes is too short')
    return struct.unpack_from(layout, buffer, begin)


def _text(buffer: memoryview, begin: int, end: int) -> tuple[str, int]:
    """Return a string and where it ends."""
    (length,) = _unpack('<I', buffer, begin, end)
    begin += 4
    if length > end - begin:
        raise _DamageError(f'a text of {length} bytes where {end - begin} are left')
    return buffer[begin : begin + length].tobytes().decode(errors='replace'), begin + length
