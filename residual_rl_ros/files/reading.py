# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bytes and text of a file that may be anything."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from residual_rl_ros.errors import FormatError
from residual_rl_ros.files.limits import TEXT_BYTES


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the content of a regular file; pipes and devices, which may never end, are refused.

    Args:
        path: the file.
        limit: largest size [byte].

    Raises:
        FormatError: it cannot be read, is no regular file or is too large.
    """
    try:
        # Without this flag the opening of a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, 'rb') as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FormatError(f'{path.name} is no regular file')
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:  # A name may hold a null character.
        reason = getattr(error, 'strerror', None) or error
        raise FormatError(f'{path.name} cannot be read: {reason}') from error
    if len(content) > limit:
        raise FormatError(f'{path.name} is larger than {limit} bytes')
    return content


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """Return the content of a text file in UTF-8.

    Raises:
        FormatError: as of `read_bytes`, or it is no such text.
    """
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f'{path.name} is no text in UTF-8: {error}') from error
