# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A policy that sees images runs on a robot that observes features of them beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_policy import metadata_of, write_policy
from robot_builders import make_action_spec

from residual_rl_ros.base_policy.inputs import Context
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.errors import BasePolicyError
from residual_rl_ros.robot.command import Command
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.image_preprocessing import ImagePreprocessing
from residual_rl_ros.robot.topics import FLOAT_ARRAY, IMAGE, JOINT_STATE, NO_ENCODER, Channel

META = metadata_of()
STATE = (
    Channel('arm', 'joint_states', JOINT_STATE, ('position',), ('a', 'b'), 0.1),
    Channel('tool', 'tool', FLOAT_ARRAY, ('z',), (), 0.1),
)


def robot_with(*cameras: Channel) -> RobotConfig:
    """Return the robot of the policy, whose cameras come first."""
    commands = (Command('command', FLOAT_ARRAY),)
    return RobotConfig('robot', META.rate_hz, commands, make_action_spec(), (*cameras, *STATE))


def camera(name: str = 'camera', fields: tuple[str, ...] = (), **keys: object) -> Channel:
    """Return an image channel."""
    return Channel(name, 'image_raw', IMAGE, fields, (), 0.1, NO_ENCODER, **keys)  # type: ignore[arg-type]


def test_values_of_a_camera_are_for_the_residual_and_not_for_the_policy(tmp_path: Path) -> None:
    policy = OnnxBasePolicy(write_policy(tmp_path / 'a.onnx'))
    noises = np.zeros((1, 2, 2), dtype=np.float32)
    images = Context({'camera': np.full((2, 2, 3, 3), 5, dtype=np.uint8)})
    alone = policy.plan(np.ones((2, 3), np.float32), noises, images)
    policy.bind(robot_with(camera(fields=('red', 'blue'))))
    assert policy.metadata.observation_names == (
        'camera.red',
        'camera.blue',
        *META.observation_names,
    )
    window = np.concatenate([np.full((2, 2), np.nan), np.ones((2, 3))], axis=1)
    seen = policy.plan(window.astype(np.float32), noises, Context(images.images))
    np.testing.assert_array_equal(seen, alone)


def test_a_robot_without_values_of_the_camera_is_as_good(tmp_path: Path) -> None:
    policy = OnnxBasePolicy(write_policy(tmp_path / 'a.onnx'))
    policy.bind(robot_with(camera()))
    assert policy.metadata == META


def test_a_robot_without_the_camera_is_refused(tmp_path: Path) -> None:
    policy = OnnxBasePolicy(write_policy(tmp_path / 'a.onnx'))
    with pytest.raises(
        BasePolicyError, match=r"wants images \['camera'\], robot 'robot' has .* \['wrist'\]"
    ):
        policy.bind(robot_with(camera('wrist')))


def test_a_camera_of_another_size_is_refused(tmp_path: Path) -> None:
    policy = OnnxBasePolicy(write_policy(tmp_path / 'a.onnx'))
    small = camera(preprocessing=ImagePreprocessing(resize=(1, 1)))
    with pytest.raises(BasePolicyError, match=r"'camera': an image is 1 x 1 .* wants 2 x 3; set"):
        policy.bind(robot_with(small))


def test_values_of_another_camera_are_refused(tmp_path: Path) -> None:
    policy = OnnxBasePolicy(write_policy(tmp_path / 'a.onnx'))
    with pytest.raises(BasePolicyError, match=r"the robot also has \['wrist.red'\]"):
        policy.bind(robot_with(camera(), camera('wrist', ('red',))))
