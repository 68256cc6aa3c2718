# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bars that show on a terminal how far a command has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn


def progress_bars() -> Progress:
    """Return a context for bars on stderr; there are none if that is no terminal."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextmanager
def reading_bar(nbytes: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while files are read.

    Args:
        nbytes: how many bytes will be read.

    Yields:
        What takes the bytes read since it was called last.
    """
    with progress_bars() as bars:
        task = bars.add_task('reading', total=nbytes)
        yield lambda read: bars.advance(task, read)
        bars.update(task, completed=nbytes)
