# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the sections of a robot YAML must not say of each other is refused by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot import consistency
from residual_rl_ros.robot.command import TRAJECTORY
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.topics import FLOAT_ARRAY, JOINT_STATE

ROBOT: dict[str, Any] = {
    'name': 'two',
    'control_rate_hz': 50,
    'command': {'topic': 'jtc', 'type': TRAJECTORY, 'joints': ['pan', 'lift']},
    'action': {
        'names': ['pan.position', 'lift.position'],
        'units': ['rad', 'rad'],
        'lower': [-2.0, -2.0],
        'upper': [2.0, 2.0],
        'max_velocity': [1.0, 1.0],
        'measured_by': ['arm.position.pan', 'arm.position.lift'],
    },
    'observation': {
        'channels': ['arm'],
        'arm': {
            'topic': 'joint_states',
            'type': JOINT_STATE,
            'fields': ['position', 'velocity'],
            'joints': ['pan', 'lift'],
            'max_age_s': 0.1,
        },
    },
}
WRENCH = {
    'topic': 'joint_states',
    'type': 'geometry_msgs/msg/WrenchStamped',
    'fields': ['force.x'],
    'max_age_s': 0.1,
}


def changed(**values: Any) -> dict[str, Any]:
    """Return the robot with values by dotted keys, with two underscores for a dot."""
    robot = copy.deepcopy(ROBOT)
    for key, value in values.items():
        *parents, last = key.split('__')
        place = robot
        for parent in parents:
            place = place[parent]
        place[last] = value
    return robot


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (
            {'action__measured_by': ['arm.position.lift', 'arm.position.pan']},
            "of 'pan.position' is 'arm.position.lift', but its command moves joint 'pan', which",
        ),
        (
            {'action__measured_by': ['arm.velocity.pan', 'arm.position.lift']},
            "is 'arm.velocity.pan', a velocity, expected its position: its unit is rad",
        ),
        (
            {'action__measured_by': ['arm.position.pan', 'arm.position.pan']},
            "measured_by names 'arm.position.pan' 2 times, expected one observation for each",
        ),
        ({'command__topic': 'joint_states'}, "'joint_states', which measures the robot too"),
        ({'command__topic': 'takeover/command'}, "which is not the robot's: expected that of its"),
        ({'command__topic': '~/feedback'}, "'~/feedback', which is not the robot's"),
        ({'command__topic': 'a' * 260}, 'has 260 letters, expected at most 200'),
        (
            {'observation__channels': ['arm', 'wrist'], 'observation__wrist': WRENCH},
            "reads 'joint_states' as sensor_msgs/msg/JointState and as geometry_msgs/msg/Wrench",
        ),
    ],
    ids=lambda each: '' if isinstance(each, str) else str(each)[:40],
)
def test_a_contradiction_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        RobotConfig.from_mapping(changed(**changes))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ('measured_by', 'said'),
    [
        (
            ['arm.velocity.pan', 'arm.velocity.lift'],
            'a velocity, expected its position: without robot.action.units it is one',
        ),
        (
            ['arm.position.lift', 'arm.position.pan'],
            "is 'arm.position.lift', but its name says joint 'pan', which that channel has too",
        ),
    ],
)
def test_a_command_that_names_neither_joints_nor_units_is_compared_too(
    measured_by: list[str], said: str
) -> None:
    command = {'topic': 'commands', 'type': FLOAT_ARRAY}
    robot = changed(command=command, action__measured_by=measured_by)
    del robot['action']['units']
    with pytest.raises(ConfigError) as raised:
        RobotConfig.from_mapping(robot)
    assert said in str(raised.value)


def test_the_robot_itself_and_one_whose_driver_names_joints_otherwise_are_accepted() -> None:
    RobotConfig.from_mapping(ROBOT)
    RobotConfig.from_mapping(changed(command__joints=['left/pan', 'left/lift']))


def test_a_list_of_joints_in_another_order_than_the_command_is_refused() -> None:
    said = list(consistency._of_order('joints', ('lift', 'pan', ''), ('pan', 'lift', 'hand')))
    assert said == [
        "joints has 'lift' where the command moves 'pan': expected the order of the command",
        "joints has 'pan' where the command moves 'lift': expected the order of the command",
    ]
    assert not list(consistency._of_order('joints', ('a', 'b'), ('left/a', '')))
