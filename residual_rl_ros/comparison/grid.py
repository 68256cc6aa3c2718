# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The runs of a comparison or benchmark, methods x tasks x seeds, and where they happen.

A run that fails, or whose process dies, costs no other. Whoever ends a run lets it save first.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from rich.console import Console

from residual_rl_ros.comparison.protocol import RESIDUAL, RETRAIN
from residual_rl_ros.config.run import ResolvedRun
from residual_rl_ros.errors import FormatError, ResidualRLError
from residual_rl_ros.evaluation.progress import Report, progress, say
from residual_rl_ros.files.json_text import read_run_json
from residual_rl_ros.tasks.checked import foreign
from residual_rl_ros.training.identity import NOT_SAID, differing, run_identity
from residual_rl_ros.training.options import TrainOptions
from residual_rl_ros.training.retrain import retrain_identity, run_retraining
from residual_rl_ros.training.run_folder import SUMMARY
from residual_rl_ros.training.train import run_training


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    task: str
    """Name of the task in tables."""
    method: str
    """Name of the method in tables."""
    options: TrainOptions
    kind: str = RESIDUAL
    """`residual`, or `retrain`: the base is trained again, and there is no learner."""
    recipe: str = ''
    """Recipe of the base policy, of a `retrain`; empty is the one that the model names."""

    @property
    def folder(self) -> Path:
        """Where the run is."""
        return self.options.output_dir

    def run(self, console: Console, report: Report) -> Mapping[str, Any]:
        """Run it, or what is left of it, and return its summary.

        Raises:
            ResidualRLError: bad input, or the environment failed.
        """
        if self.kind == RETRAIN:
            return run_retraining(self.options, self.recipe, console, report)
        return run_training(self.options, console, report)

    def identity(self, run: ResolvedRun) -> dict[str, Any]:
        """Return what its results are of, as JSON values.

        Args:
            run: its configuration, resolved.
        """
        return (retrain_identity if self.kind == RETRAIN else run_identity)(run, self.options)


def finished(cells: Sequence[Cell]) -> set[Path]:
    """Return the folders that hold exactly the run of their cell, finished.

    Raises:
        ResidualRLError: a folder holds another one, for example a shorter one.
    """
    resolved: dict[tuple[str, str], ResolvedRun] = {}
    found = set()
    for cell in cells:
        if (cell.folder / SUMMARY).exists():
            key = cell.task, cell.method
            if key not in resolved:
                resolved[key] = cell.options.config.resolve()
            _check_same(cell.folder, cell.identity(resolved[key]))
            found.add(cell.folder)
    return found


def _check_same(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse a finished run that is not the wanted one.

    Raises:
        ResidualRLError: names what differs.
    """
    path = folder / SUMMARY
    try:
        found = dict(read_run_json(path).get('run', {}))
    except (FormatError, AttributeError, TypeError, ValueError) as error:
        raise ResidualRLError(f'cannot read {str(path)!r}: {error}') from error
    # A change of the protocol can change every number: it is named first.
    for key in sorted(differing(found, wanted), key=lambda key: key != 'protocol'):
        raise ResidualRLError(
            f'{str(path)!r} is of another run: {key} is {found.get(key, NOT_SAID)} there and '
            f'{wanted.get(key, NOT_SAID)} in this grid; choose another --out, or remove '
            f'{str(folder)!r}'
        )


def check_grid(cells: Sequence[Cell]) -> None:
    """Refuse a grid in which two cells are one, or a number is wrong.

    Raises:
        ResidualRLError: names it.
    """
    for folder, count in Counter(cell.folder for cell in cells).items():
        if count > 1:
            raise ResidualRLError(
                f'{count} runs of this grid would share {str(folder)!r}; give every task, method '
                'and seed once, and two configurations of one task another --out each'
            )
    checked = {(cell.task, cell.method): cell for cell in cells if cell.kind == RESIDUAL}
    for cell in checked.values():
        cell.options.config.learner_config()


def run_grid(
    cells: Sequence[Cell], workers: int, ray: str | None, console: Console
) -> dict[Path, str]:
    """Run the given cells of a grid; a failed one does not stop the others.

    Args:
        cells: the runs.
        workers: runs at the same time.
        ray: address of a Ray cluster to run on instead of this machine.
        console: where progress goes.

    Returns:
        The folders of runs that failed, and why.

    Raises:
        ResidualRLError: Ray is missing, or there is no such cluster.
    """
    if not cells:
        return {}
    failed: dict[Path, str] = {}
    shares = [0.0] * len(cells)
    ended = 0
    with progress(console, f'0 of {len(cells)} runs ended', len(cells)) as show:

        def report(index: int, share: float) -> None:
            shares[index] = share
            show(sum(shares), f'{ended} of {len(cells)} runs ended')

        finished = finish_here(cells, workers, report) if ray is None else finish_on_ray(cells, ray)
        for index, reason in finished:
            ended += 1
            folder = cells[index].folder
            say(console, f'{ended}/{len(cells)} {folder}{reason and f" failed: {reason}"}')
            if reason:
                failed[folder] = reason
            report(index, 1.0)
    return failed


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
