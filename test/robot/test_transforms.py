# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers are brought into the policy's units before they are an observation."""

from __future__ import annotations

import math
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from residual_rl_ros.errors import ObservationError
from residual_rl_ros.robot.decoders import message_decoder
from residual_rl_ros.robot.topics import (
    FLOAT_ARRAY,
    JOINT_STATE,
    ODOMETRY,
    POSE,
    POSE_WITH_COVARIANCE,
    Channel,
)
from residual_rl_ros.robot.transforms import ChannelTransform

HEADER = Message(stamp=Message(sec=1, nanosec=0), frame_id='base')
ORIENTATION = tuple(f'orientation.{axis}' for axis in 'xyzw')


def array_channel(*fields: str, **keys: Any) -> Channel:
    return Channel('s', 'state', FLOAT_ARRAY, fields, (), 0.1, transform=ChannelTransform(**keys))


def array_message(*values: float) -> Any:
    return Message(data=list(values), layout=Message(dim=[]))


def values_of(channel: Channel, message: Any) -> list[float]:
    reading = message_decoder(channel).read(message, lambda: 1.0)
    assert reading is not None
    return [float(value) for value in reading.values]


def pose(quaternion: Any, position: float = 3.0) -> Any:
    parts = dict(zip('xyzw', map(float, quaternion), strict=True))
    found = Message(position=Message(x=position, z=position + 1.0), orientation=Message(**parts))
    return Message(header=HEADER, pose=found)


def test_degrees_then_scale_then_offset_then_wrap() -> None:
    channel = array_channel(
        'a', 'b', degrees=True, scale=(2.0, -1.0), offset=(0.5, 0.25), wrap=('a',)
    )
    wrapped = 2.0 * math.radians(100.0) + 0.5 - 2.0 * math.pi
    expected = [wrapped, -math.radians(720.0) + 0.25]
    assert values_of(channel, array_message(100.0, 720.0)) == pytest.approx(expected)


def test_one_value_of_scale_and_offset_is_for_all() -> None:
    channel = array_channel('a', 'b', scale=(0.01,), offset=(-1.0,))
    assert values_of(channel, array_message(0.0, 200.0)) == [-1.0, 1.0]


@pytest.mark.parametrize('turns', [-7, -1, 0, 1, 1000])
def test_a_wrapped_angle_is_the_same_direction(turns: int) -> None:
    for angle in (-3.1, 0.0, 1.0, 3.1):
        (value,) = values_of(
            array_channel('a', wrap=('a',)), array_message(angle + turns * math.tau)
        )
        assert value == pytest.approx(angle, abs=1e-9)


def test_what_is_not_finite_or_too_many_is_left_for_the_check_of_values() -> None:
    channel = array_channel('a', 'b', scale=(2.0, 1e300), wrap=('a',))
    first, second = values_of(channel, array_message(math.inf, 1e300))
    assert math.isnan(first)
    assert second == math.inf
    assert values_of(channel, array_message(1.0, 2.0, 3.0)) == [1.0, 2.0, 3.0]


def joint_channel(**keys: Any) -> Channel:
    fields = ('position', 'velocity', 'effort')
    transform = ChannelTransform(**keys)
    return Channel('arm', 'joints', JOINT_STATE, fields, ('a', 'b'), 0.1, transform=transform)


def joint_message(position: list[float]) -> Any:
    return Message(
        header=HEADER, name=['b', 'a'], position=position, velocity=[90.0] * 2, effort=[5.0] * 2
    )


def test_efforts_are_not_in_degrees_and_one_joint_can_be_wrapped() -> None:
    channel = joint_channel(degrees=True, wrap=('position.b',))
    half = math.pi / 2.0
    expected = [3.0 * half, -half, half, half, 5.0, 5.0]
    message = joint_message([270.0, 270.0])
    assert values_of(channel, message) == pytest.approx(expected)
    assert message.position == [270.0, 270.0]


def test_an_encoder_that_counts_in_degrees_is_not_taken_for_two_publishers() -> None:
    reader = message_decoder(joint_channel(degrees=True))

    def alternate(angle: float) -> None:
        for step in range(40):
            reader.read(joint_message([angle * (step % 2)] * 2), lambda: 1.0)

    alternate(0.088)  # Neighbouring ticks of a servo.
    with pytest.raises(ObservationError, match='two publishers'):
        alternate(30.0)


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ([0.0, 0.6, 0.0, -0.8], [0.0, -0.6, 0.0, 0.8]),
        ([0.0, 0.6, 0.0, 0.8], [0.0, 0.6, 0.0, 0.8]),
        ([0.0, -1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]),
        ([0.0, 0.0, 0.0, 1.009], [0.0, 0.0, 0.0, 1.0]),
    ],
)
def test_of_the_two_quaternions_of_a_rotation_one_is_seen(
    given: list[float], expected: list[float]
) -> None:
    transform = ChannelTransform(rotation='quaternion')
    fields = ('position.x', *ORIENTATION)
    channel = Channel('tool', 'pose', POSE, fields, (), 0.1, transform=transform)
    assert values_of(channel, pose(given)) == pytest.approx([3.0, *expected])
    assert channel.observation_names == tuple(f'tool.{field}' for field in fields)


def test_six_numbers_are_the_first_two_columns_of_the_rotation() -> None:
    fields = ('position.x', *ORIENTATION[::-1], 'position.z')
    transform = ChannelTransform(rotation='rotation_6d', scale=(1.0,) * 7 + (10.0,))
    channel = Channel('tool', 'pose', POSE, fields, (), 0.1, transform=transform)
    names = [f'tool.rotation_6d.{index}' for index in range(6)]
    assert channel.observation_names == ('tool.position.x', *names, 'tool.position.z')
    rotations = Rotation.random(8, random_state=1)
    for quaternion, matrix in zip(rotations.as_quat(), rotations.as_matrix(), strict=True):
        seen = values_of(channel, pose(-quaternion))
        np.testing.assert_allclose(seen, [3.0, *matrix[:, 0], *matrix[:, 1], 40.0], atol=1e-12)


@pytest.mark.parametrize('kind', [ODOMETRY, POSE_WITH_COVARIANCE])
def test_poses_inside_of_other_messages_have_a_rotation(kind: str) -> None:
    root = 'pose.pose.' if kind == ODOMETRY else ''
    fields = tuple(root + field for field in ORIENTATION)
    transform = ChannelTransform(rotation='rotation_6d')
    channel = Channel('base', 'pose', kind, fields, (), 0.1, transform=transform)
    inner = pose([0.0, 0.0, 1.0, 0.0])
    message = Message(header=HEADER, pose=inner)
    assert values_of(channel, message) == pytest.approx([-1.0, 0.0, 0.0, 0.0, -1.0, 0.0])
    assert channel.observation_names[0] == f'base.{root}rotation_6d.0'


@pytest.mark.parametrize('quaternion', [[0.0] * 4, [math.nan] * 4, [0.0, 0.0, 0.0, 2.0]])
def test_an_orientation_that_is_no_rotation_is_refused(quaternion: list[float]) -> None:
    transform = ChannelTransform(rotation='quaternion')
    channel = Channel('tool', 'pose', POSE, ORIENTATION, (), 0.1, transform=transform)
    with pytest.raises(
        ObservationError, match=r"channel 'tool' \(pose\): orientation .* expected 1"
    ):
        values_of(channel, pose(quaternion))
