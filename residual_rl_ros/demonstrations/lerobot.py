# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in LeRobot datasets of other tools: one frame a control step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from residual_rl_ros.bags.lerobot.format import ACTION, REWARD, SUCCESS, LeRobotDataset
from residual_rl_ros.bags.lerobot.reader import dataset_episodes
from residual_rl_ros.demonstrations.frames import DemonstratedEpisode, Number
from residual_rl_ros.errors import DemonstrationError
from residual_rl_ros.findings import Findings

OBSERVATION = 'observation.'
PICTURES = ('video', 'image')


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
            if column.startswith(OBSERVATION) and vector and feature.get('dtype') not in PICTURES:
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
