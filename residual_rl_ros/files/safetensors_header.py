# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The header of a safetensors file or message, checked before anything is made of it.

Eight bytes say how long it is, JSON says type, shape and place of every tensor
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from residual_rl_ros.errors import FormatError
from residual_rl_ros.files.json_text import parse_json
from residual_rl_ros.files.limits import HEADER_BYTES, TENSORS

PREFIX = 8
METADATA = '__metadata__'


def parse_header(
    message: bytes | memoryview, what: str, nbytes: int | None = None
) -> dict[str, Any]:
    """Return the header of a message.

    Args:
        message: safetensors bytes, or as many of them as hold the header.
        what: what it is, for the error.
        nbytes: length of the whole [byte]; None where `message` is it.

    Raises:
        FormatError: it is none, or asks for more than the limits.
    """
    nbytes = len(message) if nbytes is None else nbytes
    length = int.from_bytes(message[:PREFIX], 'little')
    if nbytes < PREFIX or length > nbytes - PREFIX:
        raise FormatError(f'{what} of {nbytes} bytes is no safetensors: its header is cut off')
    if length > HEADER_BYTES:
        raise FormatError(f'{what} has a header of {length} bytes, expected at most {HEADER_BYTES}')
    try:
        text = bytes(message[PREFIX : PREFIX + length]).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f'{what}: its header is no text in UTF-8') from error
    header = parse_json(text, f'header of {what}')
    if not isinstance(header, dict):
        raise FormatError(f'header of {what} is a {type(header).__name__}, expected an object')
    count = len(header.keys() - {METADATA})
    if count > TENSORS:
        raise FormatError(f'{what} has {count} tensors, expected at most {TENSORS}')
    return header


def check_file(path: Path) -> None:
    """Refuse a file whose header asks for more than the limits.

    Raises:
        FormatError: it does, or it cannot be read.
    """
    try:
        with path.open('rb') as file:
            head = file.read(PREFIX + HEADER_BYTES)
            parse_header(head, path.name, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise FormatError(f'{path.name} cannot be read: {error.strerror}') from error
