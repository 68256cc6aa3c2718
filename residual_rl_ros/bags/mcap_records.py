# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The records of an MCAP file (https://mcap.dev/spec): what they begin with, and their bytes."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import lz4.frame

from residual_rl_ros.files import limits

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
WINDOW_LOG = 26
"""Largest window of a zstd frame, which the decompressor allocates: 2 to this power [byte]."""


class DamageError(Exception):
    """Bytes that are no record."""


def records_of(buffer: memoryview, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield opcode, begin and end of every record's content."""
    unpack, head = RECORD.unpack_from, RECORD.size
    while begin < end:
        if begin + head > end:
            raise DamageError(f'cut off after {end - begin} bytes of a record')
        opcode, length = unpack(buffer, begin)
        begin += head
        if opcode == 0:
            raise DamageError('opcode 0 is no record')
        if length > end - begin:
            raise DamageError(f'a record of {length} bytes where {end - begin} are left')
        yield opcode, begin, begin + length
        begin += length


def uncompress(buffer: memoryview, begin: int, end: int) -> memoryview:
    """Return the records of a chunk."""
    _, _, size, crc = unpack(CHUNK_HEAD.format, buffer, begin, end)
    compression, begin = text_at(buffer, begin + CHUNK_HEAD.size, end)
    (length,) = unpack('<Q', buffer, begin, end)
    begin += 8
    if length > end - begin or (compression and size > limits.MESSAGE_BYTES):
        raise DamageError(f'{length} bytes of {size} uncompressed where {end - begin} are left')
    stored = buffer[begin : begin + length]
    try:
        if compression == '':
            records = stored
        elif compression == 'zstd':
            records = memoryview(_zstd().decompress(stored, size + 1))
        elif compression == 'lz4':
            records = memoryview(lz4.frame.LZ4FrameDecompressor().decompress(stored, size + 1))
        else:
            raise DamageError(f'compression {compression!r}, expected none, zstd or lz4')
    except (zstd.ZstdError, RuntimeError, ValueError) as error:
        raise DamageError(f'{compression}: {error}') from error
    if len(records) != size:
        found = f'{len(records)} bytes' if len(records) < size else 'more'
        raise DamageError(f'{found} uncompressed, expected {size} bytes')
    if crc and zlib.crc32(records) != crc:
        raise DamageError(f'CRC-32 {zlib.crc32(records):08x}, expected {crc:08x}')
    return records


def _zstd() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})


def unpack(layout: str, buffer: memoryview, begin: int, end: int) -> tuple[Any, ...]:
    """Return numbers in the layout of `struct`."""
    if begin + struct.calcsize(layout) > end:
        raise DamageError(f'a record of {end - begin} bytes is too short')
    return struct.unpack_from(layout, buffer, begin)


def text_at(buffer: memoryview, begin: int, end: int) -> tuple[str, int]:
    """Return a string and where it ends."""
    (length,) = unpack('<I', buffer, begin, end)
    begin += 4
    if length > end - begin:
        raise DamageError(f'a text of {length} bytes where {end - begin} are left')
    return buffer[begin : begin + length].tobytes().decode(errors='replace'), begin + length
