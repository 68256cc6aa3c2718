# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Demonstrations as frames: what a dataset has, and which of it the base policy observes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from residual_rl_ros.bags.lerobot.format import ACTION, REWARD, SUCCESS, LeRobotDataset
from residual_rl_ros.bags.lerobot.reader import dataset_episodes
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import DemonstrationError, FormatError, shown
from residual_rl_ros.files.yaml_text import read_yaml
from residual_rl_ros.findings import Findings
from residual_rl_ros.numerics import Array, Mask
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.transitions.layout import MAX_OBSERVATION

Number = tuple[str, int]
"""A column of a dataset, and the index of a number in it."""

SAME_RATE = 0.01
"""Largest relative difference between the rates of dataset and base policy."""
LIMIT_MARGIN = 0.01
"""A demonstrated action may be outside of the robot's limits by so much of their range."""


@dataclass(frozen=True)
class DemonstratedEpisode:
    """What one demonstration holds, one row a control step."""

    place: str
    """What it is called in its file."""
    index: int
    """Its number in the file."""
    observations: Array
    """Observations before each action and, where it was recorded, the one after the last, shape
    (steps, n) or (steps + 1, n), in the order of the base policy."""
    actions: Array
    """Shape (steps, m), in the order of the base policy."""
    rewards: Array | None = None
    """Reward of each step, shape (steps,)."""
    solved: Mask | None = None
    """Whether the task was solved after each step, shape (steps,)."""


class FrameSource(Protocol):
    """A file or folder of demonstrations, one row a control step."""

    path: Path
    rate_hz: float | None
    """Control steps per second; None if the file does not say."""
    action_names: tuple[str, ...] | None
    """Names of the actions; None if they have none."""
    action_size: int

    @property
    def numbers(self) -> Mapping[str, Number]:
        """The numbers that can be observed, each by every name that it has."""

    def episodes(
        self, observed: Sequence[Number], order: Sequence[int]
    ) -> Iterator[DemonstratedEpisode]:
        """Yield the demonstrations.

        Args:
            observed: the numbers of the observation, in the order of the base policy.
            order: which of the actions are the base policy's, in its order.

        Raises:
            ResidualRLError: the file is damaged, or asks for more than the limits.
        """


def fitting_episodes(
    source: FrameSource,
    metadata: BasePolicyMetadata,
    limits: ActionSpec | None,
    observation_map: Mapping[str, str],
) -> Iterator[DemonstratedEpisode]:
    """Yield the demonstrations of a source that fits a base policy, every number checked.

    Args:
        source: the demonstrations.
        metadata: names and rate of the base policy.
        limits: of the robot's actions; None where they are not known.
        observation_map: names of the source for observations of the base policy.

    Raises:
        ResidualRLError: names, sizes, ranges or rates differ, or a value is no number.
    """
    rate = source.rate_hz
    if rate is not None and not abs(rate - metadata.rate_hz) <= SAME_RATE * metadata.rate_hz:
        raise DemonstrationError(
            f'{source.path}: was recorded at {rate:g} Hz, the robot runs at {metadata.rate_hz:g} '
            'Hz; resample it, or train a base policy at its rate'
        )
    observed = observed_numbers(source, metadata.observation_names, observation_map)
    order = action_order(source, metadata.action_names)
    for episode in source.episodes(observed, order):
        _check_numbers(source.path, episode, metadata)
        yield episode if limits is None else _within(source.path, episode, limits)


def observed_numbers(
    source: FrameSource, wanted: Sequence[str], observation_map: Mapping[str, str]
) -> list[Number]:
    """Return where the numbers of the base policy's observation are, in its order.

    Raises:
        DemonstrationError: names what is missing, what there is, and how to map it.
    """
    numbers = source.numbers
    unknown = [name for name in observation_map if name not in wanted]
    if unknown:
        raise DemonstrationError(
            f'observation map: the base policy does not observe {", ".join(unknown)}; it observes '
            f'{", ".join(wanted)}'
        )
    found = [numbers.get(observation_map.get(name, name), numbers.get(name)) for name in wanted]
    missing = [
        f'{name} (mapped to {observation_map[name]})' if name in observation_map else name
        for name, number in zip(wanted, found, strict=True)
        if number is None
    ]
    if missing:
        example = missing[0].partition(' ')[0]
        raise DemonstrationError(
            f'{source.path}: lacks {_listed(missing)} of the base policy; it has '
            f'{_listed(list(numbers)) or "no vector of numbers"}; say which is which with '
            f"--observation-map '{example}=KEY[INDEX]', or a YAML file of such pairs"
        )
    return [number for number in found if number is not None]


def action_order(source: FrameSource, wanted: Sequence[str]) -> list[int]:
    """Return which actions of a source are the base policy's, in its order.

    Raises:
        DemonstrationError: they are another action space; both are named.
    """
    names = source.action_names
    if names is not None and sorted(names) != sorted(wanted):
        raise DemonstrationError(
            f'{source.path}: demonstrates the actions {_listed(names)}, the base policy has '
            f'{_listed(wanted)}; convert the dataset, or name its actions as the base policy does'
        )
    if source.action_size != len(wanted):
        raise DemonstrationError(
            f'{source.path}: demonstrates {source.action_size} actions, the base policy has '
            f'{len(wanted)}: {_listed(wanted)}'
        )
    return list(range(len(wanted))) if names is None else [names.index(name) for name in wanted]


def read_observation_map(texts: Sequence[str]) -> dict[str, str]:
    """Return the names of a dataset by those of the base policy.

    Args:
        texts: each `name=key[index]`, or the path of a YAML file that maps names to such keys.

    Raises:
        DemonstrationError: one is neither.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, key = text.partition('=')
        if equals and name and key:
            pairs[name.strip()] = key.strip()
            continue
        try:
            content = read_yaml(Path(text))
        except FormatError as error:
            raise DemonstrationError(
                f'observation map {text!r} is neither NAME=KEY[INDEX] nor a YAML file: {error}'
            ) from error
        if not isinstance(content, Mapping) or not all(
            isinstance(part, str) for pair in content.items() for part in pair
        ):
            raise DemonstrationError(
                f'observation map {text!r} holds {shown(content)}, expected names of the base '
                'policy, each with KEY[INDEX] of the dataset'
            )
        pairs |= content
    return pairs


def _listed(names: Sequence[str]) -> str:
    """Return names as a person reads them: a vector as its range, and not hundreds."""
    texts: list[str] = []
    for name in names:
        key, bracket, index = name.rpartition('[')
        if bracket and index != '0]' and texts and texts[-1].startswith(f'{key}[0'):
            texts[-1] = f'{key}[0..{index}'
        else:
            texts.append(name)
    more = f' and {len(texts) - 30} more' if len(texts) > 30 else ''
    return ', '.join(texts[:30]) + more


def _check_numbers(path: Path, episode: DemonstratedEpisode, metadata: BasePolicyMetadata) -> None:
    """Refuse what is no number, or no plausible one.

    Raises:
        DemonstrationError: names file, episode, step and number.
    """
    parts = [
        ('observation', episode.observations, metadata.observation_names),
        ('action', episode.actions, metadata.action_names),
    ]
    if episode.rewards is not None:
        parts.append(('reward', episode.rewards[:, None], ('',)))
    for kind, values, names in parts:
        # NaN is not smaller either. An action has closer limits, those of the layout.
        wrong = np.argwhere(~(np.abs(values) <= MAX_OBSERVATION))
        if len(wrong):
            step, index = wrong[0].tolist()
            raise DemonstrationError(
                f'{path}: {episode.place}, step {step}: {kind} {names[index]} is '
                f'{values[step, index]:g}, expected a number up to {MAX_OBSERVATION:g}; repair or '
                'remove the demonstration'
            )


def _within(path: Path, episode: DemonstratedEpisode, limits: ActionSpec) -> DemonstratedEpisode:
    """Return a demonstration whose actions the robot can execute, clamped to its limits.

    Raises:
        DemonstrationError: an action is far outside of them: it is of another action space.
    """
    lower, upper = limits.lower, limits.upper
    span = np.where(np.isfinite(upper - lower), upper - lower, 0.0)
    beyond = np.maximum(lower - episode.actions, episode.actions - upper)
    wrong = np.argwhere(beyond > LIMIT_MARGIN * span)
    if len(wrong):
        step, index = wrong[0].tolist()
        values = episode.actions[:, index]
        raise DemonstrationError(
            f'{path}: {episode.place}, step {step}: action {limits.names[index]} spans '
            f'{values.min():g} to {values.max():g} in this demonstration, the robot takes '
            f'{lower[index]:g} to {upper[index]:g}; convert the actions to the units of the robot, '
            'or clip them'
        )
    return replace(episode, actions=episode.actions.clip(lower, upper))


OBSERVATION = 'observation.'
IMAGES = ('video', 'image')


class LeRobotDemonstrations:
    """The frames of a dataset, whatever its columns are called.

    Args:
        dataset: without a layout of ours.
    """

    def __init__(self, dataset: LeRobotDataset) -> None:
        self._dataset = dataset
        self.path = dataset.path
        self.rate_hz: float | None = dataset.fps
        self.action_size = dataset.width(ACTION)
        names = dataset.names(ACTION)
        self.action_names = None if names is None else tuple(names)

    @property
    def numbers(self) -> Mapping[str, Number]:
        """The numbers of the columns `observation.*`: by their names, and as `column[index]`."""
        named: dict[str, Number] = {}
        placed: dict[str, Number] = {}
        for column, feature in self._dataset.features.items():
            shape = feature.get('shape')
            vector = isinstance(shape, list) and len(shape) == 1
            if column.startswith(OBSERVATION) and vector and feature.get('dtype') not in IMAGES:
                width = self._dataset.width(column)
                for index, name in enumerate(self._dataset.names(column) or ()):
                    named.setdefault(name, (column, index))
                placed |= {f'{column}[{index}]': (column, index) for index in range(width)}
        return {**named, **placed}

    def episodes(
        self, observed: Sequence[Number], order: Sequence[int]
    ) -> Iterator[DemonstratedEpisode]:
        """Yield the demonstrations; see `FrameSource`."""
        labels = [name for name in (REWARD, SUCCESS) if name in self._dataset.features]
        columns = [*dict.fromkeys(column for column, _ in observed), ACTION, *labels]
        problems = Findings()
        for file, values in dataset_episodes(self._dataset, columns, problems):
            index = int(values['episode_index'][0, 0])
            if (np.diff(values['frame_index'][:, 0]) != 1.0).any():
                raise DemonstrationError(
                    f'{file}: episode {index} lacks frames (frame_index jumps); remove it'
                )
            seen = np.stack([values[column][:, at] for column, at in observed], axis=1)
            yield DemonstratedEpisode(
                f'episode {index}',
                index,
                seen,
                values[ACTION][:, list(order)],
                values[REWARD][:, 0] if REWARD in values else None,
                values[SUCCESS][:, 0] != 0.0 if SUCCESS in values else None,
            )
        for problem in problems:
            raise DemonstrationError(str(problem))
