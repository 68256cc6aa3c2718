# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a base policy was made for a robot, and which of its observations it is given."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import BasePolicyError, ConfigError
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.camera import check_size
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.prior import Prior


def check_fit(
    metadata: BasePolicyMetadata,
    observation_names: tuple[str, ...],
    action: ActionSpec,
    rate_hz: float,
) -> None:
    """Refuse a robot that the policy was not trained for, with all that differs.

    Raises:
        BasePolicyError: names differ in content or order, the actions are of another kind, the
            trained ones leave the robot's limits, or the control rate differs by more than 1 %.
    """
    if problems := list(_differences(metadata, observation_names, action, rate_hz)):
        raise BasePolicyError('; '.join(problems))


def _differences(
    metadata: BasePolicyMetadata,
    observation_names: tuple[str, ...],
    action: ActionSpec,
    rate_hz: float,
) -> Iterator[str]:
    yield from _different_names('observation', metadata.observation_names, observation_names)
    other_actions = list(_different_names('action', metadata.action_names, action.names))
    yield from other_actions
    yield from _different_kind(metadata, action)
    for index, name in enumerate(() if other_actions else action.names):
        low, high = metadata.action_min[index], metadata.action_max[index]
        lower, upper = action.lower[index], action.upper[index]
        # Networks compute in float32, in which 0.08 and 0.0799999982 are one number.
        if np.float32(low) < np.float32(lower) or np.float32(high) > np.float32(upper):
            yield (
                f'action {name!r}: trained range [{low:.9g}, {high:.9g}] leaves the robot '
                f'limits [{lower:.9g}, {upper:.9g}]; widen lower and upper below action in the '
                'robot YAML, or retrain'
            )
    if abs(metadata.rate_hz - rate_hz) > 0.01 * rate_hz:
        yield (
            f'base policy was trained at {metadata.rate_hz:g} Hz, the robot runs at {rate_hz:g} '
            'Hz; set control_rate_hz in the robot YAML or retrain'
        )


def _different_kind(metadata: BasePolicyMetadata, action: ActionSpec) -> Iterator[str]:
    """Yield what is wrong if one has continuous actions, and the other discrete ones."""
    prior = metadata.prior
    if prior is not Prior.NONE and action.is_discrete != (prior is Prior.CATEGORICAL):
        yield (
            f'the base policy has prior {prior}, the robot has {action.kind} actions: a '
            'categorical prior is for discrete ones, the others for continuous ones; correct '
            'kind below action in the robot YAML, or retrain'
        )
    elif action.is_discrete:
        ranges = zip(metadata.action_names, metadata.action_min, metadata.action_max, strict=True)
        for name, low, high in ranges:
            if (low, high) != (0.0, 1.0):
                yield (
                    f'action {name!r}: trained range [{low:g}, {high:g}], expected [0, 1]: '
                    'discrete actions are one-hot vectors'
                )


def _different_names(kind: str, model: tuple[str, ...], robot: tuple[str, ...]) -> Iterator[str]:
    """Yield what is wrong if two lists of names differ."""
    missing = [name for name in model if name not in robot]
    extra = [name for name in robot if name not in model]
    if missing or extra:
        yield (
            f'{kind} names differ: the base policy needs {missing or "nothing more"}, the robot '
            f'also has {extra or "nothing"}; correct the robot YAML'
        )
    elif model != robot:
        index = next(i for i, pair in enumerate(zip(model, robot, strict=True)) if len({*pair}) > 1)
        yield (
            f'{kind} order differs at index {index}: the base policy has {model[index]!r}, the '
            f'robot {robot[index]!r}; reorder the robot YAML'
        )


def columns_for(
    metadata: BasePolicyMetadata, robot: RobotConfig, name: str
) -> npt.NDArray[np.int64]:
    """Check a base policy against a robot, and return which of its observations it is given.

    These are all but those that an encoder makes of images which the policy sees itself, if it
    does not name them.

    Args:
        metadata: of the policy.
        robot: the robot.
        name: of the policy's file, for errors.

    Raises:
        BasePolicyError: names, limits, rate, cameras or sizes of images differ.
    """
    sizes, names = metadata.image_sizes, robot.observation_names
    channels = {channel.name: channel for channel in robot.channels if channel.is_image}
    if missing := sorted(set(sizes) - set(channels)):
        raise BasePolicyError(
            f'{name} wants images {missing}, robot {robot.name!r} has the image channels '
            f'{sorted(channels) or "none"}; name a channel in the robot YAML so'
        )
    own = set(metadata.observation_names)
    apart: set[str] = set()
    for camera, size in sizes.items():
        try:
            check_size(channels[camera], size)
        except ConfigError as error:
            raise BasePolicyError(str(error)) from error
        apart |= set(channels[camera].observation_names) - own
    kept = [index for index, each in enumerate(names) if each not in apart]
    check_fit(metadata, tuple(names[i] for i in kept), robot.action, robot.control_rate_hz)
    return np.array(kept, dtype=np.int64)
