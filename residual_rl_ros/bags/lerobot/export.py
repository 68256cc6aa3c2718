# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Transition bags to a LeRobot dataset.

An episode of the dataset is a run of decisions without a gap: where transitions were lost, a new
one begins, because readers take neighbouring frames for neighbours in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.lerobot.writer import LeRobotWriter
from residual_rl_ros.bags.transitions.reader import TransitionBlock, TransitionReader
from residual_rl_ros.errors import BagError, ResidualRLError
from residual_rl_ros.findings import Findings
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.table import TransitionTable

SAME_RATE = 0.005
"""Largest relative difference of a measured rate to the whole number that it is taken for."""


@dataclass
class Exported:
    """What became of bags."""

    robot: str
    """Namespace."""
    fps: float
    """Decisions per second."""
    transitions: int = 0
    episodes: int = 0
    unfinished: int = 0
    """Episodes whose last frame is not done: cut by a gap, or not recorded to the end."""
    problems: list[Findings] = field(default_factory=list)
    """Findings, bag by bag."""


def export_bags(
    paths: Sequence[Path],
    out: Path,
    robot: str | None = None,
    task: str = '',
    fps: float | None = None,
    on_read: Callable[[int], None] = lambda nbytes: None,
) -> Exported:
    """Write the transitions of one robot as a LeRobot dataset.

    Args:
        paths: bags, in order; the layout is that of the robot's first transition.
        out: folder, does not exist yet.
        robot: namespace; None where the bags hold one robot.
        task: what it does, in words.
        fps: decisions per second; None takes the median of the stamps' differences.
        on_read: called with the bytes of files read since the last call; all are read twice.

    Raises:
        BagError: the bags hold no such transitions.
        ResidualRLError: the rate is unknown, or the dataset cannot be written.
    """
    robot, layout, measured = _survey(paths, robot, on_read)
    if fps is None:
        fps = measured
    if fps is None:
        raise ResidualRLError(
            'the decision rate is unknown: no two decisions follow each other with growing stamps; '
            'give it with --fps'
        )
    if fps <= 0.0:
        raise ResidualRLError(f'--fps is {fps:g}, expected a positive number')
    exported = Exported(robot, fps)
    try:
        with LeRobotWriter(out, layout, fps, task, robot) as writer:
            tables = _tables(paths, robot, layout, exported.problems, on_read)
            for episode in _episodes(tables):
                writer.write(episode)
                exported.episodes += 1
                exported.transitions += len(episode)
                exported.unfinished += not episode.done[-1]
    except OSError as error:
        raise ResidualRLError(f'{str(out)!r} cannot be written: {error.strerror}') from error
    return exported


def _survey(
    paths: Sequence[Path], robot: str | None, on_read: Callable[[int], None]
) -> tuple[str, TransitionLayout, float | None]:
    """Return the robot, its layout and its decision rate [Hz], None if that is unknown."""
    layouts: dict[str, TransitionLayout] = {}
    intervals: dict[str, list[npt.NDArray[np.float64]]] = {}
    problems: list[str] = []
    for path in paths:
        bag = Bag(path)
        for block in _blocks(bag, on_read):
            layouts.setdefault(block.robot, block.table.layout)
            steps = np.diff(block.table.header('stamp'))[block.table.follows()]
            intervals.setdefault(block.robot, []).append(steps)
        problems.extend(str(problem) for problem in bag.problems)
    if not layouts:
        raise BagError('; '.join(['no transitions in the bags', *problems]))
    wanted = None if robot is None else robot.strip('/')
    if wanted is None and len(layouts) > 1:
        raise BagError(f'the bags hold robots {sorted(layouts)}; choose one with --robot')
    chosen = next(iter(layouts)) if wanted is None else wanted
    if chosen not in layouts:
        raise BagError(f'--robot is {robot!r}, the bags hold {sorted(layouts)}')
    between = np.concatenate(intervals[chosen])
    between = between[between > 0.0]
    return chosen, layouts[chosen], _rate(float(np.median(between))) if len(between) else None


def _rate(decision_s: float) -> float:
    """Return decisions per second, whole where it is nearly so."""
    rate = 1.0 / decision_s
    whole = round(rate)
    return float(whole) if whole and abs(rate - whole) <= SAME_RATE * whole else round(rate, 3)


def _tables(
    paths: Sequence[Path],
    robot: str,
    layout: TransitionLayout,
    problems: list[Findings],
    on_read: Callable[[int], None],
) -> Iterator[TransitionTable]:
    """Yield the transitions of one robot and layout; report those of other layouts."""
    for path in paths:
        bag = Bag(path)
        problems.append(bag.problems)
        for block in _blocks(bag, on_read):
            if block.robot != robot:
                continue
            if block.table.layout == layout:
                yield block.table
                continue
            bag.problems.add(
                bag.path,
                f'layout {block.table.layout.label} instead of {layout.label}; skipped: export '
                'base policies, decision_steps and residual_scales apart',
                kind=block.table.layout.label,
                count=len(block.table),
            )


def _blocks(bag: Bag, on_read: Callable[[int], None]) -> Iterator[TransitionBlock]:
    """Yield the transitions of a bag."""
    return TransitionReader(bag, lambda _, segment: on_read(segment.file_bytes)).blocks()


def _episodes(tables: Iterator[TransitionTable]) -> Iterator[TransitionTable]:
    """Yield runs of decisions that follow one another."""
    run: list[TransitionTable] = []
    for table in tables:
        breaks = (np.flatnonzero(~table.follows()) + 1).tolist()
        for begin, end in pairwise([0, *breaks, len(table)]):
            piece = table.rows(slice(begin, end))
            if run and not _joined([run[-1].rows(slice(-1, None)), piece]).follows()[0]:
                yield _joined(run)
                run = []
            run.append(piece)
    if run:
        yield _joined(run)


def _joined(pieces: list[TransitionTable]) -> TransitionTable:
    return TransitionTable(pieces[0].layout, np.concatenate([piece.values for piece in pieces]))
