# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keys as they are pressed in a terminal."""

from __future__ import annotations

import os
import select
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


def read_keys(descriptor: int, limit_s: float) -> str | None:
    """Return the keys that are pressed within a time, None when the terminal has closed.

    All of them: one that stayed in a buffer would wait for the next.

    Args:
        descriptor: of `single_keys`.
        limit_s: how long to wait for the first [s].
    """
    if not select.select([descriptor], [], [], limit_s)[0]:
        return ''
    try:
        return os.read(descriptor, 1024).decode(errors='replace') or None
    except OSError:
        return None


@contextmanager
def single_keys(keys: TextIO) -> Iterator[int]:
    """Deliver keys one by one, without Enter and echo, and none that would stop the output.

    Args:
        keys: the terminal.
    """
    descriptor = keys.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    now = termios.tcgetattr(descriptor)
    now[0] &= ~(termios.IXON | termios.IXOFF)
    termios.tcsetattr(descriptor, termios.TCSANOW, now)
    try:
        yield descriptor
    finally:
        # If the terminal has closed there is nothing to restore.
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
