# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scans, gamepads, estimated poses and single numbers as observations, as a bag holds them."""

from __future__ import annotations

import math
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest

from residual_rl_ros.errors import ConfigError, ObservationError
from residual_rl_ros.robot.decoders import message_decoder
from residual_rl_ros.robot.topics import (
    BOOL,
    FLOAT,
    JOY,
    LASER_SCAN,
    POSE,
    POSE_WITH_COVARIANCE,
    Channel,
)
from residual_rl_ros.transitions.cdr import deserialize, serialize, typestore

SCAN = Channel('scan', 'scan', LASER_SCAN, (), (), 0.1, beams=3)
PAD = Channel('pad', 'joy', JOY, ('axes.1', 'buttons.0'), (), 0.1)


def header(frame: str = 'laser') -> Any:
    types = typestore().types
    stamp = types['builtin_interfaces/msg/Time'](sec=5, nanosec=0)
    return types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame)


def recorded(kind: str, **values: Any) -> Any:
    """Return a message after its way through a bag."""
    return deserialize(serialize(typestore().types[kind](**values), kind), kind)


def scan(ranges: list[float], low: float = 0.1, high: float = 8.0) -> Any:
    angles = dict.fromkeys(
        ('angle_min', 'angle_max', 'angle_increment', 'time_increment', 'scan_time'), 0.0
    )
    limits = {'range_min': low, 'range_max': high}
    data = np.array(ranges, dtype=np.float32)
    nothing = np.array([], dtype=np.float32)
    return recorded(
        LASER_SCAN, header=header(), ranges=data, intensities=nothing, **angles, **limits
    )


def joy(axes: list[float], buttons: list[int]) -> Any:
    return recorded(
        JOY,
        header=header(''),
        axes=np.array(axes, dtype=np.float32),
        buttons=np.array(buttons, dtype=np.int32),
    )


def values_of(channel: Channel, message: Any) -> list[float]:
    decoder = message_decoder(channel)
    decoder.check(message)
    reading = decoder.read(message, lambda: 9.0)
    assert reading is not None
    assert reading.values.dtype == np.float64
    return [float(value) for value in reading.values]


def test_a_beam_is_the_nearest_that_its_sector_sees() -> None:
    assert SCAN.observation_names == ('scan.range0', 'scan.range1', 'scan.range2')
    assert values_of(SCAN, scan([3.0, 2.0, 5.0, 4.0, 7.0, 6.0])) == [2.0, 4.0, 6.0]
    assert values_of(SCAN, scan([3.0, 2.0, 5.0, 4.0, 7.0, 6.0, 1.0])) == [2.0, 4.0, 1.0]
    assert values_of(SCAN, scan([3.0, 2.0, 5.0])) == [3.0, 2.0, 5.0]


@pytest.mark.parametrize('count', range(3, 40))
def test_sectors_are_equal_and_leave_no_range_out(count: int) -> None:
    sectors = []
    for place in range(count):
        ranges = [5.0] * count
        ranges[place] = 1.0
        values = values_of(SCAN, scan(ranges))
        assert values.count(1.0) == 1
        sectors.append(values.index(1.0))
    sizes = [sectors.count(sector) for sector in range(3)]
    assert sectors == sorted(sectors)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ('seen', 'expected'),
    [(math.inf, 8.0), (math.nan, 8.0), (0.0, 8.0), (99.0, 8.0), (0.05, 0.125), (-math.inf, 0.125)],
)
def test_ranges_are_clipped_to_what_the_scanner_can_say(seen: float, expected: float) -> None:
    assert values_of(SCAN, scan([seen, 1.0, 2.0], low=0.125)) == [expected, 1.0, 2.0]


def test_what_saw_nothing_hides_nothing_beside_it() -> None:
    ranges = [math.nan, 1.5, 0.0, 2.5, math.inf, 3.5]
    assert values_of(SCAN, scan(ranges)) == [1.5, 2.5, 3.5]


@pytest.mark.parametrize(
    ('message', 'reason'),
    [
        (scan([1.0, 2.0]), r"channel 'scan' \(scan\): 2 ranges, expected .* each of 3"),
        (scan([1.0] * 3, high=math.inf), 'range_max inf, expected'),
        (scan([1.0] * 3, low=9.0), 'range_min 9 and range_max 8, expected'),
    ],
)
def test_a_scan_that_cannot_be_used_is_refused(message: Any, reason: str) -> None:
    with pytest.raises(ObservationError, match=reason):
        values_of(SCAN, message)


def test_a_gamepad_is_read_by_index() -> None:
    assert PAD.observation_names == ('pad.axes.1', 'pad.buttons.0')
    assert values_of(PAD, joy([0.0, -0.5], [1])) == [-0.5, 1.0]


@pytest.mark.parametrize(
    ('axes', 'buttons', 'missing'), [([0.0], [1], 'axes.1'), ([0, 0], [], 'buttons.0')]
)
def test_a_gamepad_with_less_is_refused_by_name(
    axes: list[float], buttons: list[int], missing: str
) -> None:
    with pytest.raises(ObservationError, match=rf"'pad' \(joy\): .* robot YAML names {missing}"):
        values_of(PAD, joy(axes, buttons))


@pytest.mark.parametrize(('kind', 'said', 'value'), [(FLOAT, 0.25, 0.25), (BOOL, True, 1.0)])
def test_a_single_number_counts_from_its_receipt(kind: str, said: Any, value: float) -> None:
    channel = Channel('grip', 'grip', kind, ('data',), (), 0.1, stamped_by='receipt')
    assert channel.observation_names == ('grip.data',)
    assert values_of(channel, recorded(kind, data=said)) == [value]
    reading = message_decoder(channel).read(recorded(kind, data=said), lambda: 9.0)
    assert reading is not None
    assert (reading.stamp, reading.stamped) == (9.0, False)
    with pytest.raises(ConfigError, match='has no stamp; lockstep needs one'):
        message_decoder(channel, lockstep=True)


def test_an_estimated_pose_is_read_as_a_pose() -> None:
    types = typestore().types
    point = types['geometry_msgs/msg/Point'](x=1.0, y=2.0, z=3.0)
    turn = types['geometry_msgs/msg/Quaternion'](x=0.0, y=0.0, z=0.6, w=0.8)
    inner = types['geometry_msgs/msg/Pose'](position=point, orientation=turn)
    both = types['geometry_msgs/msg/PoseWithCovariance'](pose=inner, covariance=np.zeros(36))
    message = recorded(POSE_WITH_COVARIANCE, header=header('map'), pose=both)
    fields = ('position.y', 'orientation.z')
    channel = Channel('amcl', 'amcl_pose', POSE_WITH_COVARIANCE, fields, (), 0.1)
    assert values_of(channel, message) == [2.0, 0.6]


def test_another_frame_than_the_declared_one_is_refused() -> None:
    channel = Channel('tool', 'pose', POSE, ('position.x',), (), 0.1, frame_id='base_link')
    for stamped_by in ('header', 'receipt'):
        stamp = Message(sec=1, nanosec=0)
        message = Message(
            header=Message(stamp=stamp, frame_id='base_link'),
            pose=Message(position=Message(x=1.5)),
        )
        decoder = message_decoder(Channel(**{**vars(channel), 'stamped_by': stamped_by}))
        reading = decoder.read(message, lambda: 1.0)
        assert reading is not None
        assert reading.values.tolist() == [1.5]
        message.header.frame_id = 'map'
        with pytest.raises(
            ObservationError, match=r"'tool' \(pose\): frame_id is 'map', expected 'base_link'"
        ):
            decoder.read(message, lambda: 1.0)
