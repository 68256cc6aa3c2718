# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A LeRobot checkpoint as a base policy: network, normalisation, units, names and metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from residual_rl_ros.base_policy.inputs import OWN_INPUTS, ImageInput
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import BasePolicyError, PolicyImportError
from residual_rl_ros.importing.lerobot.builders import Built, build
from residual_rl_ros.importing.lerobot.cameras import ImagePreparation
from residual_rl_ros.importing.lerobot.core import Observed
from residual_rl_ros.importing.lerobot.dataset import NOTHING, DatasetFacts, read_dataset
from residual_rl_ros.importing.lerobot.folder import LerobotFolder, read_folder
from residual_rl_ros.importing.lerobot.numbers import (
    names_of,
    range_of,
    remarks_on,
    usual_observation,
)
from residual_rl_ros.importing.lerobot.statistics import Statistics, read_statistics
from residual_rl_ros.importing.mapping import MappedNumbers, map_numbers, robot_range
from residual_rl_ros.importing.options import ImportOptions
from residual_rl_ros.importing.policy import ImportedPolicy, PolicyInput, listed
from residual_rl_ros.importing.units import FromRobot, ToRobot
from residual_rl_ros.robot.image_encoder import FEATURES


class LerobotPolicy(nn.Module):
    """Takes what the robot has and returns what it is to do.

    Args:
        folder: what the checkpoint takes and gives.
        statistics: how that is normalised.
        built: the network.
        observation: units and order of the observation.
        action: of the action.
    """

    def __init__(
        self,
        folder: LerobotFolder,
        statistics: Statistics,
        built: Built,
        observation: MappedNumbers,
        action: MappedNumbers,
    ) -> None:
        super().__init__()
        normalisations = statistics.normalisations
        self.noisy = bool(built.noise_shape)
        self.from_robot, self.to_robot = FromRobot(observation), ToRobot(action)
        self.sizes = [each.shape[0] for each in folder.numbers]
        self.kinds = tuple(each.kind for each in folder.numbers)
        self.numbers = nn.ModuleList(normalisations[each.key] for each in folder.numbers)
        self.cameras = nn.ModuleList(
            ImagePreparation(normalisations[each.key]) for each in folder.cameras
        )
        self.action = normalisations[folder.action.key]
        self.core = built.core

    def forward(self, observation: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Return the actions and the features of each camera.

        Args:
            observation: shape (batch, n_obs_steps, n).
            *others: the noise, if the policy takes some, and the pictures of each camera.
        """
        noise, pictures = (others[0], others[1:]) if self.noisy else (None, others)
        parts = torch.split(self.from_robot(observation), self.sizes, dim=-1)
        normal = [scale(part) for scale, part in zip(self.numbers, parts, strict=True)]
        by_kind = dict(zip(self.kinds, normal, strict=True))
        observed = Observed(
            by_kind.get('STATE'),
            by_kind.get('ENV'),
            tuple(camera(each) for camera, each in zip(self.cameras, pictures, strict=True)),
        )
        chunk, features = self.core(observed, noise)
        return self.to_robot(self.action.inverse(chunk)), *features


def import_lerobot(path: Path, options: ImportOptions) -> ImportedPolicy:
    """Read a folder and rebuild its policy.

    Raises:
        PolicyImportError: a file is missing or damaged, or something is not said that must be.
    """
    folder = read_folder(path)
    if not folder.numbers:
        raise PolicyImportError(
            f'{path}: the policy takes no observation.state and no observation.environment_state; '
            'a base policy has an observation vector, so such a one cannot be imported'
        )
    statistics = read_statistics(folder)
    dataset = read_dataset(options.dataset) if options.dataset else NOTHING
    return _assemble(folder, statistics, dataset, build(folder, options), options)


def _assemble(
    folder: LerobotFolder,
    statistics: Statistics,
    dataset: DatasetFacts,
    built: Built,
    options: ImportOptions,
) -> ImportedPolicy:
    """Return the policy with all that surrounds its network."""
    policy_map = options.map
    cameras = [statistics.renamed.get(each.key, each.key) for each in folder.cameras]
    policy_map.check_cameras(cameras)
    seen = [name for each in folder.numbers for name in names_of(each, dataset)]
    done = list(names_of(folder.action, dataset))
    observation = map_numbers(policy_map, 'observation', seen)
    action = map_numbers(policy_map, 'action', done)
    low, high = robot_range(action, *range_of(folder, statistics, dataset, options), done)
    images = _images(folder, [policy_map.channel(name) for name in cameras], built)
    try:
        metadata = BasePolicyMetadata(
            observation_names=observation.names,
            action_names=action.names,
            action_min=low,
            action_max=high,
            rate_hz=_rate(dataset, options),
            n_obs_steps=built.n_obs_steps,
            horizon=built.horizon,
            exec_start=built.exec_start,
            exec_steps=policy_map.exec_steps or built.exec_steps,
            kind=folder.policy_type,
            task=policy_map.task,
            inputs=images,
            noise_shape=built.noise_shape,
            noise_default=options.noise_default or built.noise_default,
            source=f'lerobot {folder.policy_type}',
        )
    except BasePolicyError as error:
        raise PolicyImportError(f'{error}; correct --map or the options') from error
    centre, spread = usual_observation(folder, statistics, observation)
    inputs = [PolicyInput('observation', centre.expand(built.n_obs_steps, -1), spread)]
    if built.noise_shape:
        inputs.append(PolicyInput('noise', torch.zeros(built.noise_shape)))
    for image in images:
        shape = (built.n_obs_steps, image.height, image.width, 3)
        inputs.append(PolicyInput(image.name, torch.zeros(shape, dtype=torch.uint8)))
    return ImportedPolicy(
        network=LerobotPolicy(folder, statistics, built, observation, action).eval(),
        metadata=metadata,
        inputs=tuple(inputs),
        outputs=('action', *(f'{image.name}{FEATURES}' for image in images)),
        remarks=(*built.remarks, *remarks_on(folder, statistics, dataset, options)),
    )


def _rate(dataset: DatasetFacts, options: ImportOptions) -> float:
    rate = options.map.rate_hz or dataset.rate_hz
    if not rate:
        raise PolicyImportError(
            'the checkpoint does not say its control rate; give --rate-hz, rate_hz in --map, or '
            'the dataset that it was trained on (--dataset)'
        )
    return rate


def _images(folder: LerobotFolder, channels: Sequence[str], built: Built) -> tuple[ImageInput, ...]:
    """Return the image inputs, in the order in which the network takes them."""
    taken = [name for name in channels if name in OWN_INPUTS]
    if taken:
        raise PolicyImportError(
            f'a camera has the channel {listed(taken)}, which is the name of another input; give '
            'it another below images in --map'
        )
    return tuple(
        ImageInput(name, camera.shape[1], camera.shape[2], built.feature_names)
        for name, camera in zip(channels, folder.cameras, strict=True)
    )
