# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An environment with cameras as the policy of its robot sees it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from residual_rl_ros.robot.camera import Camera
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.topics import Channel
from residual_rl_ros.tasks.checked import Env
from residual_rl_ros.tasks.registry import STATE


class RobotView(gymnasium.ObservationWrapper[Any, Any, Any]):
    """A task with cameras as its robot's policy sees it: one vector, and images beside it."""

    def __init__(self, env: Env, robot: RobotConfig) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, gymnasium.spaces.Dict)
        space = env.observation_space
        self._robot = robot
        self._cameras = {
            channel.name: Camera(channel, _image_size(channel, space[channel.name]))
            for channel in robot.channels
            if channel.is_image
        }
        self.robot_images: dict[str, npt.NDArray[np.uint8]] = {}
        """Newest image of each camera, preprocessed, shape (height, width, 3)."""
        self.observation_names = robot.observation_names
        """Names of the observation."""
        count = len(robot.observation_names)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (count,), np.float32)

    def observation(self, observation: Any) -> npt.NDArray[np.float32]:
        """Return the observation, shape (n,), and keep the images."""
        parts = split_observation(observation, self._robot)
        self.robot_images = {}
        for index, channel in enumerate(self._robot.channels):
            if channel.is_image:
                parts[index], image = self._cameras[channel.name].look(parts[index])
                assert image is not None
                self.robot_images[channel.name] = image
        return np.concatenate(parts, dtype=np.float32)


def _image_size(channel: Channel, space: gymnasium.Space[Any]) -> tuple[int, int]:
    """Return height and width of the images that the policy sees of a camera [px]."""
    assert space.shape is not None
    height, width = channel.preprocessing.size or space.shape[:2]
    return height, width


def split_observation(observation: Any, robot: RobotConfig) -> list[npt.NDArray[Any]]:
    """Cut an environment's observation into what each channel of the robot carries.

    Args:
        observation: a vector, or a dictionary of the vector `state` and an image for each image
            channel under the channel's name.
        robot: names the channels, in order.
    """
    images = observation if isinstance(observation, dict) else {}
    state = images.get(STATE, observation)
    values: list[npt.NDArray[Any]] = []
    begin = 0
    for channel in robot.channels:
        if channel.is_image:
            values.append(images[channel.name])
            continue
        end = begin + len(channel.observation_names)
        values.append(np.asarray(state[begin:end], dtype=np.float64))
        begin = end
    return values
