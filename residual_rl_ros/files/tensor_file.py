# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tensors in safetensors bytes: what a header says is bounded before it is believed."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import shown

MAX_HEADER_BYTES = 2**17
"""Largest header of a weight message or file of tensors. While JSON is parsed a control loop cannot
run. The header of an actor has some kB, most of it names of observations."""
MAX_TENSORS = 1024
"""Most tensors of either; an actor with its critics has less than 100 as a rule."""
MAX_VALUES = 10**4
"""Most values in a header: names, sizes, maps and lists."""
MAX_DIMENSIONS = 8
"""Most dimensions of a tensor."""
MAX_OFFSET = 2**53 - 1
"""Largest size and offset [byte]: what float64 holds."""
DTYPES = {
    **{'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BOOL': '?'},
    **{'I64': '<i8', 'I32': '<i4', 'I16': '<i2', 'I8': 'i1'},
    **{'U64': '<u8', 'U32': '<u4', 'U16': '<u2', 'U8': 'u1'},
}
"""Types of tensors by their names in a safetensors header."""


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor lies in safetensors bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    """Offset of its first byte from the beginning of the file or message."""
    end: int

    def cut(self, data: bytes | memoryview) -> npt.NDArray[Any]:
        """Return a copy of the tensor."""
        flat = np.frombuffer(data, self.dtype, math.prod(self.shape), self.begin)
        return flat.reshape(self.shape).copy()


def tensor_places(
    data: bytes | memoryview, size: int | None = None
) -> tuple[dict[str, TensorPlace], dict[str, Any]]:
    """Return where the tensors of safetensors bytes lie, by name, and the metadata.

    Size and number of entries are bounded before JSON is parsed; no tensor is touched. Every
    message and every file of tensors is read by this.

    Args:
        data: the message, or the first `8 + MAX_HEADER_BYTES` bytes of a file.
        size: size of the whole [byte]; None is that of the data.

    Raises:
        ValueError: it is something else, or too large; or `RecursionError`, `TypeError`.
    """
    size = len(data) if size is None else size
    length = int.from_bytes(data[:8], 'little')
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(
            f'the header has {length} of {size} bytes, expected 2 to {MAX_HEADER_BYTES} that are '
            'there'
        )
    text = bytes(data[8 : 8 + length])
    for what, limit, marks in (
        ('tensors', MAX_TENSORS, (b'data_offsets',)),
        ('values', MAX_VALUES, (b',', b'[', b'{')),
    ):
        count = sum(map(text.count, marks))
        if count > limit:
            raise ValueError(f'the header has {count} {what}, expected <= {limit}')
    entries = json.loads(text.decode('utf-8'))
    if not isinstance(entries, dict):
        raise ValueError('the header is no map')
    metadata = entries.pop('__metadata__', {})
    places = {name: _place(name, entry, 8 + length) for name, entry in entries.items()}
    begin = 8 + length
    for name, place in sorted(places.items(), key=lambda item: (item[1].begin, item[1].end)):
        if place.begin != begin:
            raise ValueError(f'tensor {shown(name)} begins at {place.begin}, expected {begin}')
        begin = place.end
    if begin != size:
        raise ValueError(f'the tensors end at {begin}, expected {size}')
    return places, metadata


def check_tensor_file(path: Path) -> None:
    """Refuse a file of tensors whose header is none, before anything is made of it.

    Raises:
        OSError: it cannot be read.
        ValueError: see `tensor_places`.
    """
    with path.open('rb') as file:
        tensor_places(file.read(8 + MAX_HEADER_BYTES), os.fstat(file.fileno()).st_size)


def _place(name: str, entry: Any, offset: int) -> TensorPlace:
    """Return where a tensor lies by its entry in a header."""
    begin, end = entry['data_offsets']
    shape, dtype = tuple(entry['shape']), np.dtype(DTYPES[entry['dtype']])
    if not all(type(value) is int and 0 <= value <= MAX_OFFSET for value in (begin, end, *shape)):
        raise ValueError(f'tensor {shown(name)} is {shown(entry)}, expected whole numbers')
    if math.prod(shape) * dtype.itemsize != end - begin or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f'tensor {shown(name)} of shape {shown(shape)} has {end - begin} bytes')
    return TensorPlace(dtype, shape, offset + begin, offset + end)
