# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Names, ranges and usual values of the numbers of a policy, as it and its dataset tell them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residual_rl_ros.errors import FormatError, PolicyImportError
from residual_rl_ros.files.json_text import parse_json, read_json
from residual_rl_ros.files.limits import EPISODES, RESULT_BYTES, read_text
from residual_rl_ros.importing.lerobot.folder import ACTION, Feature, LerobotFolder, flat_names
from residual_rl_ros.importing.lerobot.statistics import Statistics
from residual_rl_ros.importing.mapping import ImportOptions, MappedNumbers
from residual_rl_ros.importing.policy import listed
from residual_rl_ros.numerics import Array

INFO = 'meta/info.json'
STATISTICS = 'meta/stats.json'
OF_EPISODES = 'meta/episodes_stats.jsonl'
"""Statistics of version 2.1, a line for each episode."""


@dataclass(frozen=True)
class DatasetFacts:
    """What is taken from a dataset."""

    rate_hz: float
    names: Mapping[str, tuple[str, ...]]
    """Names of the numbers of each feature that has some."""
    action_range: tuple[Array, Array] | None
    """Smallest and largest action, shape (m,); None if it does not say."""


NOTHING = DatasetFacts(0.0, {}, None)


def read_dataset(path: Path) -> DatasetFacts:
    """Read the folder `meta` of a dataset.

    Raises:
        PolicyImportError: it is missing or damaged.
    """
    try:
        info = read_json(path / INFO)
        rate = float(info['fps'])
        names = {
            str(key): flat_names(feature.get('names')) for key, feature in info['features'].items()
        }
        return DatasetFacts(rate, names, _action_range(path))
    except FormatError as error:
        raise PolicyImportError(
            f'{str(path)!r} is no LeRobot dataset with {INFO}: {error}; correct --dataset'
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PolicyImportError(
            f'{str(path)!r}: {INFO} or its statistics are not those of a LeRobot dataset: {error!r}'
        ) from error


def _action_range(path: Path) -> tuple[Array, Array] | None:
    """Return the range of all actions.

    Raises:
        FormatError, ValueError, KeyError, TypeError: the statistics are none.
    """
    if (path / STATISTICS).exists():
        every = [read_json(path / STATISTICS, RESULT_BYTES)]
    elif (path / OF_EPISODES).exists():
        lines = read_text(path / OF_EPISODES, RESULT_BYTES).splitlines()
        if len(lines) > EPISODES:
            raise ValueError(f'{OF_EPISODES} has {len(lines)} lines, expected at most {EPISODES}')
        every = [parse_json(line, OF_EPISODES)['stats'] for line in lines if line.strip()]
    else:
        return None
    if not every or any(ACTION not in each for each in every):
        return None
    low = np.min([_numbers(each[ACTION]['min']) for each in every], axis=0)
    high = np.max([_numbers(each[ACTION]['max']) for each in every], axis=0)
    return low, high


def _numbers(values: Any) -> Array:
    numbers = np.array(values, dtype=np.float64).ravel()
    if not np.isfinite(numbers).all():
        raise ValueError(f'{values} are not finite numbers')
    return numbers


SHORT = {'STATE': 'state', 'ENV': 'environment_state', 'ACTION': 'action'}
"""How numbers without names are called, with their index."""
FEWEST_SPANS = 1e-6
"""A number that varied less than this in the training data is said to be constant."""


def names_of(feature: Feature, dataset: DatasetFacts) -> tuple[str, ...]:
    """Return names of the numbers of a feature: those of the checkpoint, the dataset, or generic.

    Names of another count are of something else, and so is a dataset that has them.
    """
    count = feature.shape[0]
    for names in (feature.names, dataset.names.get(feature.key, ())):
        if len(names) == count and len(set(names)) == count:
            return names
    return tuple(f'{SHORT[feature.kind]}.{index}' for index in range(count))


def range_of(
    folder: LerobotFolder,
    statistics: Statistics,
    dataset: DatasetFacts,
    options: ImportOptions,
) -> tuple[Array | None, Array | None]:
    """Return smallest and largest action in units of the checkpoint, if anything says them."""
    known = statistics.known.get(folder.action.key, {})
    if {'min', 'max'} <= set(known):
        return _array(known['min']), _array(known['max'])
    if dataset.action_range is not None:
        low, high = dataset.action_range
        if len(low) != folder.action.shape[0]:
            raise PolicyImportError(
                f'the dataset has actions of {len(low)} numbers, the checkpoint of '
                f'{folder.action.shape[0]}; give the dataset that it was trained on'
            )
        return low, high
    if options.range_std is not None and {'mean', 'std'} <= set(known):
        mean, std = _array(known['mean']), _array(known['std'])
        return mean - options.range_std * std, mean + options.range_std * std
    return None, None


def _array(tensor: Tensor) -> Array:
    return tensor.numpy().astype(np.float64).ravel()


def usual_observation(
    folder: LerobotFolder, statistics: Statistics, observation: MappedNumbers
) -> tuple[Tensor, Tensor]:
    """Return centre and spread of the robot's observations, shape (n,) each."""
    centres, spreads = [], []
    for feature in folder.numbers:
        known = statistics.known.get(feature.key, {})
        if {'mean', 'std'} <= set(known):
            centre, spread = _array(known['mean']), _array(known['std'])
        elif {'min', 'max'} <= set(known):
            low, high = _array(known['min']), _array(known['max'])
            centre, spread = (low + high) / 2, (high - low) / 4
        else:
            centre, spread = np.zeros(feature.shape[0]), np.ones(feature.shape[0])
        centres.append(centre)
        spreads.append(spread)
    made = np.zeros((2, len(observation.names)))
    index = list(observation.index)
    made[0, index] = (np.concatenate(centres) - observation.bias) / observation.gain
    made[1, index] = np.concatenate(spreads) / np.abs(observation.gain)
    return torch.from_numpy(made[0]).float(), torch.from_numpy(made[1]).float()


def remarks_on(
    folder: LerobotFolder, statistics: Statistics, dataset: DatasetFacts, options: ImportOptions
) -> list[str]:
    """Return what the user should know of the numbers."""
    remarks = []
    known_range = {'min', 'max'} <= set(statistics.known.get(folder.action.key, {}))
    if options.range_std is not None and not known_range and dataset.action_range is None:
        remarks.append(
            f'the range of the actions is their mean ± {options.range_std:g} standard deviations: '
            'the bound of the residual follows from it (--dataset says the real one)'
        )
    used = {each.key for each in (*folder.numbers, *folder.cameras)}
    unused = [each.key for each in folder.inputs if each.key not in used]
    if unused:
        remarks.append(f'the policy does not look at {listed(unused)}: no input for it')
    generic = [
        each.key
        for each in (*folder.numbers, folder.action)
        if names_of(each, dataset)[0] == f'{SHORT[each.kind]}.0'
    ]
    if generic:
        remarks.append(
            f'the checkpoint does not name the numbers of {listed(generic)}: they are called '
            'state.0 and so on; give --dataset or a --map with names'
        )
    for feature in folder.numbers:
        normalisation = statistics.normalisations[feature.key]
        if normalisation.mode == 'IDENTITY':
            continue
        still = np.flatnonzero(_array(normalisation.span) < FEWEST_SPANS)
        if len(still):
            names = [names_of(feature, dataset)[place] for place in still]
            remarks.append(
                f'{listed(names)} never changed in the training data: any other value is far '
                'outside of what the policy has seen'
            )
    return remarks
