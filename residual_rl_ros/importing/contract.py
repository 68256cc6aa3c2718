# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From what a torch zip says of its policy to the metadata and the inputs of the graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from residual_rl_ros.base_policy.inputs import ImageInput, Input
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import BasePolicyError, PolicyImportError
from residual_rl_ros.importing.mapping import (
    FromRobot,
    MappedNumbers,
    PolicyMap,
    ToRobot,
    map_numbers,
    robot_range,
)
from residual_rl_ros.importing.policy import PolicyInput
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.image_encoder import FEATURES


@dataclass(frozen=True)
class Described:
    """A policy in the words of its checkpoint."""

    observations: tuple[str, ...]
    """Names of the state's numbers."""
    actions: tuple[str, ...]
    low: Array
    """Smallest trained action, shape (m,)."""
    high: Array
    """Largest likewise."""
    n_obs_steps: int
    horizon: int
    exec_start: int
    exec_steps: int
    kind: str
    source: str
    rate_hz: float = 0.0
    """Control rate of the training data [Hz]; 0: unknown."""
    task: str = ''
    cameras: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Height and width of the images of each camera [px]."""
    features: Mapping[str, int] = field(default_factory=dict)
    """Numbers of the features of each camera."""


@dataclass(frozen=True)
class Contract:
    """The same in the words of the robot."""

    observation: MappedNumbers
    action: MappedNumbers
    metadata: BasePolicyMetadata
    images: tuple[ImageInput, ...] = ()
    """In the order of the checkpoint's cameras."""

    @property
    def from_robot(self) -> FromRobot:
        """Return the first layer of the graph."""
        return FromRobot(self.observation)

    @property
    def to_robot(self) -> ToRobot:
        """Return the last layer of the graph."""
        return ToRobot(self.action)

    def observation_input(self, centre: Array, spread: Array) -> PolicyInput:
        """Return the input `observation`.

        Args:
            centre: usual values in the checkpoint, shape (n,).
            spread: their standard deviation.
        """
        mean, std = np.zeros(len(self.observation.names)), np.ones(len(self.observation.names))
        index = list(self.observation.index)
        mean[index] = (centre - self.observation.bias) / self.observation.gain
        std[index] = np.abs(spread / self.observation.gain)
        steps = self.metadata.n_obs_steps
        window = torch.from_numpy(np.tile(mean, (steps, 1))).float()
        return PolicyInput('observation', window, torch.from_numpy(std).float())

    @property
    def feature_outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs with features, in the order of the cameras."""
        return tuple(f'{each.name}{FEATURES}' for each in self.images)

    def image_inputs(self) -> tuple[PolicyInput, ...]:
        """Return the inputs of images, in the order of the checkpoint's cameras."""
        steps = self.metadata.n_obs_steps
        return tuple(
            PolicyInput(
                each.name, torch.zeros((steps, each.height, each.width, 3), dtype=torch.uint8)
            )
            for each in self.images
        )


def make_contract(
    policy: Described,
    policy_map: PolicyMap,
    inputs: tuple[Input, ...] = (),
    noise_shape: tuple[int, ...] = (),
    noise_default: str = 'normal',
) -> Contract:
    """Return what a policy is on the robot.

    Args:
        policy: what the checkpoint says.
        policy_map: what the user says.
        inputs: of the graph, beside images.
        noise_shape: as of the metadata.
        noise_default: likewise.

    Raises:
        PolicyImportError: the rate is unknown, or names of the map fit nowhere.
    """
    rate_hz = policy_map.rate_hz or policy.rate_hz
    if not rate_hz > 0.0:
        raise PolicyImportError(
            'the checkpoint does not say the control rate of its training data; give --rate-hz or '
            'rate_hz in --map'
        )
    policy_map.check_cameras(list(policy.cameras))
    images = tuple(
        ImageInput(
            name := policy_map.channel(camera),
            *size,
            features=tuple(f'{name}.{index}' for index in range(policy.features.get(camera, 0))),
        )
        for camera, size in policy.cameras.items()
    )
    observation = map_numbers(policy_map, 'observation', policy.observations)
    action = map_numbers(policy_map, 'action', policy.actions)
    low, high = robot_range(action, policy.low, policy.high, policy.actions)
    exec_steps = policy_map.exec_steps or policy.exec_steps
    try:
        metadata = BasePolicyMetadata(
            observation_names=observation.names,
            action_names=action.names,
            action_min=low,
            action_max=high,
            rate_hz=rate_hz,
            n_obs_steps=policy.n_obs_steps,
            horizon=policy.horizon,
            exec_start=policy.exec_start,
            exec_steps=exec_steps,
            kind=policy.kind,
            task=policy_map.task or policy.task,
            inputs=(*images, *inputs),
            noise_shape=noise_shape,
            noise_default=noise_default,
            source=policy.source,
        )
    except BasePolicyError as error:
        raise PolicyImportError(f'the policy does not fit the contract: {error}') from error
    return Contract(observation, action, metadata, images)


def named(key: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return a name for each number of an entry: its key, and a number if there are several."""
    count = math.prod(shape)
    return (key,) if count == 1 else tuple(f'{key}.{index}' for index in range(count))
