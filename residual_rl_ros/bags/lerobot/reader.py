# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A LeRobot dataset to transitions: one that we exported, or one of another tool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from residual_rl_ros.bags.lerobot.format import (
    ACTION,
    INFO,
    REWARD,
    STATE,
    SUCCESS,
    LeRobotDataset,
    columns_of,
)
from residual_rl_ros.bags.rebuild.real_time import ReplayedController
from residual_rl_ros.base_policy.distribution import BasePolicy
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.errors import MalformedTransitionError, ResidualRLError
from residual_rl_ros.findings import Findings
from residual_rl_ros.numerics import Array, is_one_hot
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.robot.stamps import to_nanoseconds
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Source, Success, Transition

SAME_RATE = 0.01
"""Largest relative difference between the rates of dataset and base policy."""


def exported_transitions(dataset: LeRobotDataset, problems: Findings) -> Iterator[Transition]:
    """Yield the transitions of a dataset that we exported, with float32's precision.

    Args:
        dataset: with a layout.
        problems: receives frames that are no transitions, which are skipped.

    Raises:
        ResidualRLError: a file or a column is missing or damaged.
    """
    layout = dataset.layout
    assert layout is not None
    wanted = columns_of(layout)
    expected = {source: layout.columns[source] for source, _ in wanted.values()}
    for column, (source, _) in wanted.items():
        width = expected[source].stop - expected[source].start
        if dataset.width(column) != width:
            raise ResidualRLError(
                f'{dataset.path / INFO}: feature {column!r} has {dataset.width(column)} numbers, '
                f'the layout says {width}'
            )
    count = 0
    for file, columns in dataset.frames(list(wanted)):
        values = np.empty((len(columns[STATE]), layout.size))
        for column, (source, _) in wanted.items():
            values[:, expected[source]] = columns[column]
        table = TransitionTable(layout, values)
        valid = table.valid()
        for row in np.flatnonzero(~valid).tolist():
            try:
                layout.decode(values[row], layout.label)
            except MalformedTransitionError as error:
                problems.add(file, str(error), place=f'frame {count + row}', kind='malformed')
        count += len(values)
        yield from table.rows(valid)
    _check_count(dataset, count, problems)


def dataset_episodes(
    dataset: LeRobotDataset, columns: list[str], problems: Findings
) -> Iterator[tuple[Path, dict[str, Array]]]:
    """Yield the frames of each episode: the file of the last one, and (count, width) a column.

    Args:
        dataset: a dataset of any tool.
        columns: what to read, beside `episode_index` and `frame_index`.
        problems: receives another number of frames than the dataset says.

    Raises:
        ResidualRLError: a file or a column is missing or damaged.
    """
    waiting: list[dict[str, Array]] = []
    count, last = 0, dataset.path

    def joined() -> tuple[Path, dict[str, Array]]:
        return last, {
            name: np.concatenate([piece[name] for piece in waiting]).astype(np.float64)
            for name in waiting[0]
        }

    for file, frames in dataset.frames(['episode_index', 'frame_index', *columns]):
        index = frames['episode_index'][:, 0]
        count, last = count + len(index), file
        if not np.isfinite(index).all():
            raise ResidualRLError(f'{file}: episode_index holds what is no number')
        bounds = [0, *(np.flatnonzero(np.diff(index)) + 1).tolist(), len(index)]
        for begin, end in pairwise(bounds):
            piece = {name: values[begin:end] for name, values in frames.items()}
            if waiting and waiting[-1]['episode_index'][0] != piece['episode_index'][0]:
                yield joined()
                waiting = []
            if end > begin:
                waiting.append(piece)
    if waiting:
        yield joined()
    _check_count(dataset, count, problems)


@dataclass(frozen=True)
class _Episode:
    """Consecutive frames of another tool's dataset."""

    index: int
    observations: Array
    """Shape (count, n), in the order of the base policy."""
    actions: Array
    """Shape (count, m)."""
    rewards: Array | None
    """Shape (count,)."""
    successes: Array | None
    """Shape (count,), not 0 where the task was solved."""

    def outcome(self) -> Success:
        """Return the label, from the last frame.

        Without labels, rewards of 0 and 1 decide; a shaped reward does not.
        """
        if self.successes is not None:
            return Success(int(self.successes[-1] != 0.0))
        if self.rewards is not None and np.isin(self.rewards, (0.0, 1.0)).all():
            return Success(int(self.rewards[-1]))
        return Success.UNLABELLED

    def feedback(self) -> list[StepFeedback]:
        """Return what follows each action but the last, whose next observation is not recorded.

        The last action's reward counts with the one before it: it is often the only one.
        """
        outcome = self.outcome()
        solved = outcome is Success.SUCCESS
        if self.rewards is not None:
            rewards = [*self.rewards[:-2].tolist(), float(self.rewards[-2:].sum())]
        else:
            rewards = [0.0] * (len(self.actions) - 2) + [float(solved)]
        going_on = [StepFeedback(reward, False, False, Success.UNLABELLED) for reward in rewards]
        return [*going_on[:-1], StepFeedback(rewards[-1], solved, not solved, outcome)]


class ForeignDataset:
    """Makes transitions of another tool's frames: observation and action of neighbours.

    The base policy is run over the observations by the control loop's own accounting. A decision
    whose actions are the base policy's has source base; any other is a takeover
    without a residual.

    Args:
        dataset: without a layout of ours.
        policy: base policy, whose names and rate the dataset must have.
        config: decision_steps, residual_scale and seed.
        by_position: take the numbers in their order and ignore their names.

    Raises:
        ResidualRLError: names, sizes or the rate differ.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        policy: BasePolicy,
        config: ControllerConfig,
        by_position: bool = False,
    ) -> None:
        self._dataset = dataset
        meta = policy.metadata
        self._states = self._order(STATE, meta.observation_names, by_position)
        self._actions = self._order(ACTION, meta.action_names, by_position)
        if abs(dataset.fps - meta.rate_hz) > SAME_RATE * meta.rate_hz:
            raise ResidualRLError(
                f'{dataset.path / INFO}: fps is {dataset.fps:g}, the base policy was trained at '
                f'{meta.rate_hz:g} Hz; resample the dataset or train a base policy at its rate'
            )
        action = ActionSpec.recorded(meta.action_names, meta.prior is Prior.CATEGORICAL)
        controller = config.build(policy, action, ReplayedController)
        assert isinstance(controller, ReplayedController)
        self._controller = controller
        self.layout: TransitionLayout = controller.layout

    def transitions(self, problems: Findings) -> Iterator[Transition]:
        """Yield the transitions.

        Args:
            problems: receives episodes that cannot be used.

        Raises:
            ResidualRLError: a file or a column is missing or damaged.
        """
        controller, start = self._controller, 0
        try:
            for episode in self._episodes(problems):
                count = len(episode.actions)
                stamps = ((start + np.arange(count)) / self._dataset.fps).tolist()
                start += count
                controller.commands = {
                    to_nanoseconds(stamp): action
                    for stamp, action in zip(stamps, episode.actions, strict=True)
                }
                controller.begin_episode(episode.index, episode.observations[0], stamps[0])
                for step, feedback in enumerate(episode.feedback(), start=1):
                    controller.command()
                    made = controller.step(episode.observations[step], stamps[step], feedback)
                    if made is not None:
                        yield _by_operator(made)
        finally:
            controller.close()

    def _order(
        self, column: str, wanted: tuple[str, ...], by_position: bool
    ) -> npt.NDArray[np.int64]:
        """Return which numbers of a column are the base policy's, in its order."""
        width = self._dataset.width(column)
        names = self._dataset.names(column)
        if by_position:
            if width != len(wanted):
                raise ResidualRLError(
                    f'feature {column!r} has {width} numbers, the base policy needs {len(wanted)}: '
                    f'{", ".join(wanted)}'
                )
            return np.arange(width)
        missing = [name for name in wanted if name not in (names or [])]
        extra = [name for name in names or [] if name not in wanted]
        if missing or (column == ACTION and extra):
            has = ', '.join(names) if names else f'{width} numbers without names'
            raise ResidualRLError(
                f'feature {column!r} lacks {", ".join(missing) or "nothing"} of the base policy '
                f'and has {has}; rename them in {INFO}, or take them in their order with '
                '--by-position'
            )
        return np.array([(names or []).index(name) for name in wanted])

    def _episodes(self, problems: Findings) -> Iterator[_Episode]:
        labels = [column for column in (REWARD, SUCCESS) if column in self._dataset.features]
        columns = [STATE, ACTION, *labels]
        for file, frames in dataset_episodes(self._dataset, columns, problems):
            yield from self._episode(frames, file, problems)

    def _episode(
        self, columns: dict[str, Array], file: Path, problems: Findings
    ) -> Iterator[_Episode]:
        """Yield an episode, unless something is wrong with it."""
        index = int(columns['episode_index'][0, 0])
        reason = ''
        if len(columns[ACTION]) < 2:
            reason = 'has one frame, expected two or more; passed over'
        elif not all(np.isfinite(values).all() for values in columns.values()):
            reason = 'holds a number that is not finite; passed over'
        elif (np.diff(columns['frame_index'][:, 0]) != 1.0).any():
            reason = 'lacks frames (frame_index jumps); passed over'
        elif self.layout.discrete and not is_one_hot(columns[ACTION]):
            reason = 'has actions that are not one-hot, as discrete ones are; passed over'
        if reason:
            problems.add(file, f'episode {reason}', place=f'episode {index}')
            return
        yield _Episode(
            index,
            columns[STATE][:, self._states],
            columns[ACTION][:, self._actions],
            columns[REWARD][:, 0] if REWARD in columns else None,
            columns[SUCCESS][:, 0] if SUCCESS in columns else None,
        )


def _by_operator(made: Transition) -> Transition:
    """Return a transition whose difference to the base is an operator's, not a residual."""
    if made.source is not Source.RESIDUAL:
        return made
    nothing = np.zeros_like(made.residual_action)
    return replace(made, source=Source.TAKEOVER, residual_action=nothing)


def _check_count(dataset: LeRobotDataset, count: int, problems: Findings) -> None:
    if count != dataset.total_frames:
        problems.add(
            dataset.path / 'data',
            f'holds {count} frames, {INFO} says {dataset.total_frames}; is it all downloaded?',
        )
