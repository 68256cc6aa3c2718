# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The project's own files of demonstrations: safetensors with names and rate.

All demonstrations lie one after the other in `observations` (steps, n) and `actions` (steps, m);
`lengths` (demonstrations,) says how many steps each has. Optional are `rewards` (steps,) and
`last_observations` (demonstrations, n), those after the last actions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from residual_rl_ros.demonstrations.frames import DemonstratedEpisode, Number
from residual_rl_ros.errors import DemonstrationError, FormatError
from residual_rl_ros.files.json_text import parse_json
from residual_rl_ros.files.limits import DEMONSTRATION_BYTES, EPISODES, read_bytes
from residual_rl_ros.files.tensor_file import tensor_places
from residual_rl_ros.residual_policy.weights import UNREADABLE
from residual_rl_ros.resources import write_bytes
from residual_rl_ros.robot.names import check_names

Tensors = dict[str, npt.NDArray[Any]]
METADATA = 'demonstrations'
"""Name of the entry in the safetensors header that holds ours, as JSON."""
VERSION = 1
OPTIONAL = ('rewards', 'last_observations')


def write_demonstrations(
    path: Path,
    episodes: Sequence[DemonstratedEpisode],
    observation_names: Sequence[str],
    action_names: Sequence[str],
    rate_hz: float,
) -> None:
    """Write demonstrations, with the precision of float32.

    Args:
        path: the file.
        episodes: all with rewards, or none; likewise with an observation after the last action.
        observation_names: in the order of the columns.
        action_names: likewise.
        rate_hz: control steps per second.

    Raises:
        OutputError: the file cannot be written.
    """
    lengths = [len(episode.actions) for episode in episodes]
    seen = [e.observations[:steps] for e, steps in zip(episodes, lengths, strict=True)]
    tensors: Tensors = {
        'observations': np.concatenate(seen).astype(np.float32),
        'actions': np.concatenate([e.actions for e in episodes]).astype(np.float32),
        'lengths': np.array(lengths, dtype=np.int64),
    }
    rewards = [episode.rewards for episode in episodes if episode.rewards is not None]
    if len(rewards) == len(episodes):
        tensors['rewards'] = np.concatenate(rewards).astype(np.float32)
    if all(len(e.observations) > len(e.actions) for e in episodes):
        tensors['last_observations'] = np.stack([e.observations[-1] for e in episodes]).astype(
            np.float32
        )
    fields = {
        'version': VERSION,
        'observation_names': list(observation_names),
        'action_names': list(action_names),
        'rate_hz': rate_hz,
    }
    write_bytes(path, save(tensors, {METADATA: json.dumps(fields)}))


class DemonstrationFile:
    """A file that `write_demonstrations` wrote.

    Args:
        path: where it is.

    Raises:
        DemonstrationError: it is something else, damaged or too large.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            data = read_bytes(path, DEMONSTRATION_BYTES)
            places, metadata = tensor_places(data)
            fields = parse_json(metadata[METADATA], 'the header')
            if fields['version'] != VERSION:
                raise ValueError(f'version is {fields["version"]}, expected {VERSION}')
            self._names = check_names('observation', list(fields['observation_names']))
            actions = check_names('action', list(fields['action_names']))
            self.action_names: tuple[str, ...] | None = actions
            self.action_size = len(actions)
            self.rate_hz: float | None = float(fields['rate_hz'])
            self._tensors = {name: place.cut(data) for name, place in places.items()}
            self._check_tensors()
        except (FormatError, *UNREADABLE) as error:
            reason = f'{error!r}' if isinstance(error, KeyError) else error
            raise DemonstrationError(
                f'{path}: is no file of demonstrations, such as train-base writes: {reason}'
            ) from error

    @property
    def numbers(self) -> Mapping[str, Number]:
        """The numbers of the observation by their names."""
        return {name: ('observations', index) for index, name in enumerate(self._names)}

    def episodes(
        self, observed: Sequence[Number], order: Sequence[int]
    ) -> Iterator[DemonstratedEpisode]:
        """Yield the demonstrations; see `FrameSource`."""
        columns = [index for _, index in observed]
        tensors = {name: values.astype(np.float64) for name, values in self._tensors.items()}
        end = 0
        for index, steps in enumerate(self._tensors['lengths'].tolist()):
            rows, end = slice(end, end + steps), end + steps
            seen = tensors['observations'][rows]
            if 'last_observations' in tensors:
                seen = np.concatenate([seen, tensors['last_observations'][index : index + 1]])
            yield DemonstratedEpisode(
                f'demonstration {index}',
                index,
                seen[:, columns],
                tensors['actions'][rows][:, list(order)],
                tensors['rewards'][rows] if 'rewards' in tensors else None,
            )

    def _check_tensors(self) -> None:
        """Check that the tensors fit each other.

        Raises:
            ValueError: they do not, or there are too many demonstrations.
        """
        lengths = self._tensors['lengths']
        usable = lengths.dtype == np.int64 and lengths.ndim == 1 and 1 <= len(lengths) <= EPISODES
        if not usable or not (lengths >= 1).all():
            raise ValueError(
                f'lengths has {len(lengths)} values of {lengths.dtype}, expected 1 to {EPISODES} '
                'whole numbers from 1 on'
            )
        # A sum of int64 could wrap.
        steps = sum(lengths.tolist())
        expected = {
            'observations': (steps, len(self._names)),
            'actions': (steps, self.action_size),
            'rewards': (steps,),
            'last_observations': (len(lengths), len(self._names)),
        }
        for name, shape in expected.items():
            if name in OPTIONAL and name not in self._tensors:
                continue
            tensor = self._tensors[name]
            if tensor.dtype != np.float32 or tensor.shape != shape:
                raise ValueError(
                    f'{name} is {tensor.dtype} of shape {tensor.shape}, expected float32 of shape '
                    f'{shape}'
                )
