# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Names, ranges and usual values of the numbers that a policy takes and gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.lerobot.dataset import DatasetFacts
from residual_rl_ros.importing.lerobot.folder import Feature, LerobotFolder
from residual_rl_ros.importing.lerobot.statistics import Statistics
from residual_rl_ros.importing.mapping import MappedNumbers
from residual_rl_ros.importing.options import ImportOptions
from residual_rl_ros.importing.policy import listed

Array = npt.NDArray[np.float64]
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
