# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a robot YAML says of its channels is checked before anything moves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml

from residual_rl_ros.resources import resource_path
from residual_rl_ros.robot.observation_section import ObservationSection
from residual_rl_ros.robot.topics import (
    BOOL,
    COMPRESSED_IMAGE,
    FLOAT,
    FLOAT_ARRAY,
    JOINT_STATE,
    JOY,
    LASER_SCAN,
    POSE,
    TF,
)
from residual_rl_ros.robot.transforms import ChannelTransform

COMMON = {'topic': 'topic', 'max_age_s': 0.1}
SCAN = {**COMMON, 'type': LASER_SCAN, 'beams': 4}
PAD = {**COMMON, 'type': JOY, 'fields': ['axes.0', 'buttons.12']}
NUMBER = {**COMMON, 'type': FLOAT}
ARRAY = {**COMMON, 'type': FLOAT_ARRAY, 'fields': ['a', 'b']}
ARM = {**COMMON, 'type': JOINT_STATE, 'fields': ['position', 'velocity'], 'joints': ['j', 'k']}
ORIENTATION = [f'orientation.{axis}' for axis in 'xyzw']
TOOL = {**COMMON, 'type': POSE, 'fields': ['position.x', *ORIENTATION], 'rotation': 'rotation_6d'}
CAMERA = {**COMMON, 'type': 'sensor_msgs/msg/Image', 'encoder': 'none'}
HAND = {
    **{'type': 'tf', 'source_frame': '/hand', 'target_frame': 'base', 'max_age_s': 0.1},
    'fields': ['position.x', *ORIENTATION],
}
GOAL = {'topic': 'goal', 'type': POSE, 'fields': ['position.x'], 'latched': True}


def section(channel: dict[str, Any]) -> ObservationSection:
    made = ObservationSection([])
    made.read({'channels': ['c'], 'c': channel})
    return made


@pytest.mark.parametrize(
    ('channel', 'names'),
    [
        ({**SCAN, 'lower': [0.1], 'scale': [1, 2, 3, 4]}, [f'c.range{i}' for i in range(4)]),
        (PAD, ['c.axes.0', 'c.buttons.12']),
        (NUMBER, ['c.data']),
        ({**COMMON, 'type': BOOL}, ['c.data']),
        (
            {**HAND, 'rotation': 'rotation_6d', 'offset': [1.0]},
            ['c.position.x', *(f'c.rotation_6d.{i}' for i in range(6))],
        ),
        ({**GOAL, 'scale': [0.001], 'wrap': ['position.x']}, ['c.position.x']),
        ({**CAMERA, 'depth_range': [0, 2], 'camera_info_topic': 'info'}, []),
        ({**ARRAY, 'degrees': True, 'wrap': ['b'], 'offset': [1, 2]}, ['c.a', 'c.b']),
        (
            {**ARM, 'wrap': ['position.j', 'velocity'], 'scale': [1.0, 2.0, 3.0, 4.0]},
            ['c.position.j', 'c.position.k', 'c.velocity.j', 'c.velocity.k'],
        ),
        (
            {**TOOL, 'scale': [2.0] * 7, 'upper': [9.0] * 7, 'frame_id': 'base'},
            ['c.position.x', *(f'c.rotation_6d.{i}' for i in range(6))],
        ),
    ],
)
def test_a_channel_says_which_values_it_has(channel: dict[str, Any], names: list[str]) -> None:
    made = section(channel)
    assert made.problems == []
    assert list(made.channels[0].observation_names) == names


@pytest.mark.parametrize(
    ('marker', 'sizes'),
    [(JOY, [24, 2, 8, 1]), ('type: tf', [9]), ('latched: true', [2])],
)
def test_the_channels_of_the_how_to_are_read(marker: str, sizes: list[int]) -> None:
    page = resource_path('docs', 'how-to', 'robot_file.md').read_text(encoding='utf-8')
    (block,) = (part for part in page.split('```') if part.startswith('yaml') and marker in part)
    made = ObservationSection([])
    made.read(yaml.safe_load(block.removeprefix('yaml'))['observation'])
    assert made.problems == []
    assert [len(channel.observation_names) for channel in made.channels] == sizes


def test_a_channel_says_which_topics_it_needs() -> None:
    hand = section({**HAND, 'topic': 'tf'}).channels[0]
    assert [(each.topic, each.type, each.latched) for each in hand.sources] == [
        ('tf', TF, False),
        ('tf_static', TF, True),
    ]
    assert hand.source_frame == 'hand'  # As tf2 has it, without the slash of old.
    goal = section(GOAL).channels[0]
    assert [(each.topic, each.latched) for each in goal.sources] == [('goal', True)]
    assert (goal.stamped_by, goal.takes_effect, goal.max_age_s) == ('receipt', 'episode', math.inf)
    camera = section({**CAMERA, 'camera_info_topic': 'info'}).channels[0]
    assert [each.topic for each in camera.sources] == ['topic', 'info']


def test_keys_become_the_transform_of_the_channel() -> None:
    keys = {'degrees': True, 'scale': [2], 'offset': [1], 'wrap': ['a'], 'stamped_by': 'receipt'}
    (channel,) = section({**ARRAY, **keys}).channels
    assert channel.transform == ChannelTransform((2.0,), (1.0,), True, ('a',), '')
    assert section(NUMBER).channels[0].stamped_by == 'receipt'
    assert section({**TOOL, 'frame_id': 'base'}).channels[0].frame_id == 'base'


@pytest.mark.parametrize(
    ('channel', 'problem'),
    [
        ({**COMMON, 'type': LASER_SCAN}, 'c.beams is missing'),
        ({**SCAN, 'beams': 0}, 'c.beams is 0, expected a whole number >= 1'),
        ({**SCAN, 'fields': ['ranges']}, "c.fields is ['ranges'], expected none: beams names them"),
        ({**SCAN, 'lower': [0.1, 0.2]}, 'c.lower has 2 values, expected 1 or 4'),
        ({**PAD, 'fields': ['axes.x', 'axes.0']}, "c.fields has ['axes.x'], expected axes.0"),
        ({**NUMBER, 'stamped_by': 'header'}, "c.stamped_by is 'header', expected one of receipt"),
        ({**NUMBER, 'frame_id': 'base'}, 'Float64 has no header; remove it'),
        ({**ARRAY, 'scale': [1, 2, 3]}, 'c.scale has 3 values, expected 1 or 2'),
        ({**ARRAY, 'offset': [1, 2, 3]}, 'c.offset has 3 values, expected 1 or 2'),
        ({**ARRAY, 'scale': [1, 0]}, 'c.scale is [1.0, 0.0], expected no 0'),
        ({**ARRAY, 'wrap': ['x']}, "c.wrap names ['x'], expected some of a, b"),
        ({**ARRAY, 'rotation': 'quaternion'}, 'c.rotation is unknown'),
        ({**PAD, 'degrees': True}, 'c.degrees is true, expected it for sensor_msgs/msg/JointState'),
        (
            {**TOOL, 'fields': ORIENTATION[1:]},
            "c.rotation is 'rotation_6d', expected orientation.x",
        ),
        ({**TOOL, 'rotation': 'euler'}, "c.rotation is 'euler', expected one of quaternion"),
        ({**TOOL, 'upper': [9.0] * 5}, 'c.upper has 5 values, expected 1 or 7'),
        ({**CAMERA, 'scale': [2.0]}, 'c has transforms, expected none for a camera'),
        ({**HAND, 'target_frame': 'hand'}, "c.source_frame and target_frame are both 'hand'"),
        ({**HAND, 'frame_id': 'base'}, "c.frame_id is 'base', but target_frame says it"),
        ({**HAND, 'fields': ['linear.x']}, "c.fields is ['linear.x'], expected a list of position"),
        ({**HAND, 'degrees': True}, 'c.degrees is true, expected it for'),
        ({**HAND, 'source_frame': ''}, "c.source_frame is '', expected a non-empty string"),
        ({**GOAL, 'max_age_s': 0.5}, 'c.max_age_s is 0.5, but latched is true'),
        ({**GOAL, 'latched': False}, 'c.max_age_s is missing, expected a number > 0.0'),
        ({**GOAL, 'takes_effect': 'later'}, "c.takes_effect is 'later', expected one of episode"),
        ({**ARRAY, 'takes_effect': 'at_once'}, "c.takes_effect is 'at_once', which only a latched"),
        (
            {**CAMERA, 'max_age_s': 1.0, 'depth_range': [2, 1]},
            'c.depth_range is [2, 1], expected 0',
        ),
        ({**CAMERA, 'depth_range': [1]}, 'c.depth_range is [1.0], expected [nearest, farthest]'),
        ({**CAMERA, 'depth_invalid': 1.0}, 'c.depth_invalid is 1 without a depth_range'),
        (
            {**CAMERA, 'type': COMPRESSED_IMAGE, 'depth_range': [0, 1]},
            'c.depth_range is given, but sensor_msgs/msg/CompressedImage holds no distances',
        ),
        (
            {**CAMERA, 'camera_info_topic': 'info', 'camera_info': 'front.yaml'},
            'c.camera_info_topic is given beside another calibration',
        ),
    ],
)
def test_a_mistake_in_a_channel_is_named(channel: dict[str, Any], problem: str) -> None:
    (said,) = section(channel).problems
    assert said.startswith('robot.observation.c')
    assert problem in said
