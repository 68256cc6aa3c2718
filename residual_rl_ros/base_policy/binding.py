# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a base policy fits a robot, and what of the robot's observation it is given."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import BasePolicyError, ConfigError
from residual_rl_ros.robot.camera import check_size
from residual_rl_ros.robot.description import RobotConfig


def columns_for(
    metadata: BasePolicyMetadata, robot: RobotConfig, name: str
) -> npt.NDArray[np.int64]:
    """Check a base policy against a robot, and return which of its observations it is given.

    These are all but those that an encoder makes of pictures which the policy sees itself, if it
    does not name them.

    Args:
        metadata: of the policy.
        robot: the robot.
        name: of the policy's file, for errors.

    Raises:
        BasePolicyError: names, limits, rate, cameras or sizes of pictures differ.
    """
    sizes, names = metadata.picture_sizes, robot.observation_names
    channels = {channel.name: channel for channel in robot.channels if channel.is_image}
    if missing := sorted(set(sizes) - set(channels)):
        raise BasePolicyError(
            f'{name} wants pictures {missing}, robot {robot.name!r} has the image channels '
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
    metadata.check_robot(tuple(names[i] for i in kept), robot.action, robot.control_rate_hz)
    return np.array(kept, dtype=np.int64)
