# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The runs of a comparison or benchmark, methods x tasks x seeds: each is a cell of a grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from residual_rl_ros.comparison.protocol import RESIDUAL, RETRAIN
from residual_rl_ros.comparison.workers import finish_here, finish_on_ray
from residual_rl_ros.config.run import ResolvedRun
from residual_rl_ros.errors import FormatError, ResidualRLError
from residual_rl_ros.evaluation.progress import Report, progress, say
from residual_rl_ros.files.json_text import read_run_json
from residual_rl_ros.training.identity import run_identity, stored_identity
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
        found = stored_identity(read_run_json(path).get('run', {}))
    except (FormatError, AttributeError, TypeError, ValueError) as error:
        raise ResidualRLError(f'cannot read {str(path)!r}: {error}') from error
    wanted = stored_identity(wanted)
    # A change of the protocol can change every number: it is named first.
    for key in sorted(wanted, key=lambda key: key != 'protocol'):
        if key not in found or found[key] != wanted[key]:
            raise ResidualRLError(
                f'{str(path)!r} is of another run: {key} is {found.get(key, "not recorded")} '
                f'there and {wanted[key]} in this grid; choose another --out, or remove '
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
