# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where the runs of a comparison happen: here, in processes of their own, or on a Ray cluster.

A run that fails, or whose process dies, costs no other. Whoever ends a run lets it save first.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.evaluation.progress import Report
from residual_rl_ros.tasks.checked import foreign

if TYPE_CHECKING:
    from residual_rl_ros.comparison.grid import Cell

Shares = Callable[[int, float], None]
"""Takes the index of a run and the share of it that is done."""
REPORT_EVERY_S = 0.5
"""Time between two reports of a run in a process of its own [s]."""


def finish_here(runs: Sequence[Cell], workers: int, report: Shares) -> Iterator[tuple[int, str]]:
    """Run all of them on this machine.

    Args:
        runs: the runs.
        workers: how many at the same time; a single one runs in this process.
        report: takes how far each of them is.

    Yields:
        The index of each run as it ends, and why it failed if it did.
    """
    if workers == 1:
        for index, run in enumerate(runs):
            yield index, _reason(run, lambda done, _='', index=index: report(index, done))
        return
    context = multiprocessing.get_context('spawn')
    resource_tracker.ensure_running()  # Its start, with that of the first process, unblocks SIGINT.
    waiting = deque(enumerate(runs))
    running: dict[Connection, tuple[int, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, run = waiting.popleft()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(run, sender))
                # While it imports, a Ctrl-C waits for it.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                process.start()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                sender.close()
                running[receiver] = index, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                index, process = running[ready]
                answer = _receive(ready)
                if isinstance(answer, float):
                    report(index, answer)
                    continue
                del running[ready]
                process.join()
                died = f'its process ended with {_exit(process.exitcode)}'
                yield index, died if answer is None else answer
    finally:
        for _, process in running.values():
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(process.pid or 0, signal.SIGINT)  # It saves, then ends.
        for _, process in running.values():
            process.join()


def finish_on_ray(runs: Sequence[Cell], address: str) -> Iterator[tuple[int, str]]:
    """Run all of them on a Ray cluster that shares the files.

    Yields:
        As `finish_here`.

    Raises:
        ResidualRLError: Ray is missing, or there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise ResidualRLError("--ray needs Ray: pip install 'residual_rl_ros[ray]'") from error
    try:
        ray.init(address=address, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ResidualRLError(f'no Ray cluster at {address!r}: {error}') from error
    try:
        remote: Callable[..., Any] = ray.remote(num_cpus=1)(_reason).remote
        waiting = {remote(_absolute(run)): index for index, run in enumerate(runs)}
        while waiting:
            (done,), _ = ray.wait(list(waiting))
            try:
                reason = ray.get(done)
            except ray.exceptions.RayError as error:
                reason = str(error)
            yield waiting.pop(done), reason
    finally:
        ray.shutdown()


def _absolute(run: Cell) -> Cell:
    """Return a cell whose files do not depend on where a process was started."""

    def path(name: str) -> str:
        return str(Path(name).resolve()) if Path(name).suffix else name

    config = run.options.config
    config = replace(config, robot=path(config.robot), base_policy=path(config.base_policy))
    options = replace(run.options, config=config, output_dir=run.folder.resolve())
    return replace(run, options=options, recipe=path(run.recipe))


def _reason(run: Cell, report: Report | None = None) -> str:
    """Run one cell; return why it failed, '' if it did not."""
    quiet: Report = report or (lambda done, description='': None)
    try:
        foreign('the run', lambda: run.run(Console(quiet=True), quiet))
    except ResidualRLError as error:
        return str(error) or type(error).__name__
    return ''


def _work(run: Cell, sender: Connection) -> None:
    """Run one cell in this process, and tell the parent how far it is and how it ended."""
    os.setpgrp()  # A terminal's Ctrl-C is the parent's to pass on, once.
    threading.Thread(target=_follow_parent, daemon=True).start()
    reported = 0.0

    def report(done: float, description: str = '') -> None:
        nonlocal reported
        del description
        now = time.monotonic()
        if now - reported >= REPORT_EVERY_S:
            reported = now
            with contextlib.suppress(OSError):  # Then the parent has gone, and this run ends soon.
                sender.send(float(done))

    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        reason = _reason(run, report)
    except KeyboardInterrupt:
        reason = 'interrupted'
    with contextlib.suppress(OSError):
        sender.send(reason)


def _follow_parent() -> None:
    """Save and end when the parent has died."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGINT)


def _receive(receiver: Connection) -> float | str | None:
    """Return what a run tells; None if its process died."""
    try:
        answer: float | str = receiver.recv()
    except (EOFError, OSError):
        return None
    return answer


def _exit(code: int | None) -> str:
    """Return an exit code in words."""
    return f'signal {-code}' if code is not None and code < 0 else f'exit code {code}'
