# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How far a long command is: a bar with an estimate on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 30.0
"""Time between two lines where there is no terminal [s]."""


class Report(Protocol):
    """Takes how much is done, and optionally a new description."""

    def __call__(self, done: float, description: str = '') -> None:
        """Show it."""


def say(console: Console, text: str) -> None:
    """Print a line as it is: names that are to be typed are neither cut, wrapped nor coloured."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(
    console: Console,
    description: str,
    total: float,
    done: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Report]:
    """Show progress until the context ends.

    Args:
        console: where it goes.
        description: what is being done.
        total: how much there is to do.
        done: how much of it was done before.
        clock: monotonic time [s].

    Yields:
        A function that is told how much is done.
    """
    if not console.is_terminal or console.quiet:
        yield _Lines(console, description, total, done, clock)
        return
    columns = (TextColumn('{task.description}'), BarColumn(), TaskProgressColumn())
    times = (TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn())
    with Progress(*columns, *times, console=console) as bars:
        bar = bars.add_task(escape(description), total=total)
        bars.update(bar, completed=done)

        def show(done: float, description: str = '') -> None:
            bars.update(bar, completed=done)
            if description:
                bars.update(bar, description=escape(description))

        yield show


class _Lines:
    """Progress without a terminal."""

    def __init__(
        self,
        console: Console,
        description: str,
        total: float,
        done: float,
        clock: Callable[[], float],
    ) -> None:
        self._console = console
        self._description = description
        self._total, self._begun = total, done
        self._clock = clock
        self._started = self._said = clock()

    def __call__(self, done: float, description: str = '') -> None:
        """Print a line if the last one was some time ago."""
        self._description = description or self._description
        now = self._clock()
        if now - self._said < LINE_EVERY_S or done <= self._begun:
            return
        self._said = now
        elapsed = now - self._started
        left = elapsed * max(0.0, self._total - done) / (done - self._begun)
        spent, rest = (timedelta(seconds=round(seconds)) for seconds in (elapsed, left))
        say(
            self._console,
            f'{self._description}: {done / self._total:.0%}, {spent} gone, about {rest} left',
        )
