# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Play episodes in several processes, each of which builds what it needs once."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, ClassVar, TypeVar

Player = TypeVar('Player')
Job = TypeVar('Job')
Result = TypeVar('Result')
JOBS_AT_ONCE = 5
"""Jobs that a process is handed together."""


def in_processes(
    build: Callable[[], Player],
    play: Callable[[Player, Job], Result],
    jobs: Sequence[Job],
    workers: int,
) -> Iterator[Result]:
    """Yield the result of every job, in order.

    Args:
        build: makes what plays in a process; it must be picklable, as `play` must.
        play: does one job.
        jobs: what is to be done.
        workers: processes.
    """
    # Fork would copy the threads of ONNX Runtime and rclpy in an undefined state.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context, _Process.begin, (build,)) as pool:
        yield from pool.map(partial(_Process.run, play), jobs, chunksize=JOBS_AT_ONCE)


class _Process:
    """What a process plays with."""

    player: ClassVar[Any]

    @classmethod
    def begin(cls, build: Callable[[], Any]) -> None:
        """Build it."""
        # A terminal's Ctrl-C is the parent's to handle.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        cls.player = build()

    @classmethod
    def run(cls, play: Callable[[Any, Job], Result], job: Job) -> Result:
        """Do one job."""
        return play(cls.player, job)
