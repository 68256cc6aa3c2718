# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Serialised ROS messages (CDR): whole ones through `rosbags`, labelled arrays by the thousand.

Transitions, and commands and observations that are plain numbers, travel and are recorded as a
Float64MultiArray with one labelled dimension. A node publishes these bytes as they are: to fill a
message and have rclpy convert it takes a third longer.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from residual_rl_ros.errors import BagError, ConfigError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.codecs import find_codec, installed_codecs

ENCAPSULATION = b'\x00\x01\x00\x00'
"""Plain CDR, little endian."""


def array_head(label: str, size: int) -> tuple[bytes, ...]:
    """Return what comes before the numbers.

    Args:
        label: label of the dimension.
        size: how many numbers follow.

    Returns:
        Encapsulation, label, padding, sizes, padding.
    """
    text = label.encode() + b'\0'
    head = struct.pack('<II', 1, len(text)) + text
    gap = -len(head) % 4
    return (
        *(ENCAPSULATION, head, bytes(gap)),
        struct.pack('<IIII', size, size, 0, size),
        bytes(-(len(head) + gap + 16) % 8),
    )


def labelled_array(values: npt.ArrayLike, label: str = '') -> bytes:
    """Return the message.

    Args:
        values: numbers, in one dimension.
        label: label of the dimension.
    """
    data = np.ascontiguousarray(values, dtype='<f8')
    return b''.join((*array_head(label, data.size), data.tobytes()))


Integers = npt.NDArray[np.int64]

STORES = {
    'humble': Stores.ROS2_HUMBLE,
    'jazzy': Stores.ROS2_JAZZY,
    'kilted': Stores.ROS2_KILTED,
}
"""Distributions whose bags are read; the messages that we use are the same in all of them."""
DEFAULT_STORE = 'jazzy'


@lru_cache
def typestore(distribution: str = DEFAULT_STORE) -> Typestore:
    """Return the message definitions of a ROS distribution.

    Raises:
        BagError: unknown distribution.
    """
    if distribution not in STORES:
        raise BagError(f'ROS distribution is {distribution!r}, expected one of {", ".join(STORES)}')
    return get_typestore(STORES[distribution])


def knows(kind: str) -> bool:
    """Return whether messages of a type are read and written, by the definition of a codec too.

    Raises:
        ConfigError: a codec cannot be loaded, or its definition cannot be read.
    """
    store = typestore()
    if kind not in store.fielddefs and kind in installed_codecs():
        definition = find_codec(kind).definition
        try:
            store.register(get_types_from_msg(definition, kind) if definition else {})
        except TypesysError as error:
            raise ConfigError(f'definition in the codec of {kind}: {error}') from error
    return kind in store.fielddefs


def deserialize(data: bytes | memoryview, kind: str) -> Any:
    """Return a message as an object with the attributes of its ROS message.

    Raises:
        BagError: unknown type, or bytes that are not such a message.
    """
    store = typestore()
    if not knows(kind):
        raise BagError(f'message type {kind!r} is not known to ROS 2 {DEFAULT_STORE}')
    try:
        return store.deserialize_cdr(bytes(data), kind)
    except Exception as error:
        raise BagError(f'{len(data)} bytes are no {kind}: {error!r}') from error


def serialize(message: Any, kind: str) -> bytes:
    """Return the bytes of a message made of `typestore().types`."""
    return bytes(typestore().serialize_cdr(message, kind))


class ArrayPrefix:
    """What comes before the numbers of a labelled Float64MultiArray: the same in every message.

    Args:
        label: label of the only dimension.
        size: number of values.
    """

    def __init__(self, label: str, size: int) -> None:
        self.size = size
        parts = array_head(label, size)
        self.content = np.frombuffer(b''.join(parts), dtype=np.uint8)
        # Encapsulation options and padding may hold anything.
        encapsulation, head, gap, counts, tail = map(len, parts)
        lengths = (2, encapsulation - 2, head, gap, counts, tail)
        self._matters = np.repeat((True, False, True, False, True, False), lengths)

    def cut(self, buffer: memoryview, start: Integers) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return the numbers of many messages and which of the messages have this prefix.

        Args:
            buffer: holds the messages.
            start: where each begins, shape (count,); at least `nbytes` bytes must follow.

        Returns:
            Values, shape (count, size), and whether each row is such a message, shape (count,).
        """
        if not len(start):
            return np.empty((0, self.size)), np.empty(0, dtype=bool)
        whole = np.frombuffer(buffer, dtype=np.uint8)
        rows = np.lib.stride_tricks.sliding_window_view(whole, self.nbytes)[start]
        head = rows[:, : len(self.content)]
        fits = ((head == self.content) | ~self._matters).all(axis=1)
        values = np.ascontiguousarray(rows[:, len(self.content) :]).view('<f8')
        return values.astype(np.float64, copy=False), fits

    @property
    def nbytes(self) -> int:
        """Length of a message [byte]."""
        return len(self.content) + 8 * self.size
