# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several commands share one action vector: each action must go to exactly one, and come back."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from residual_rl_ros.errors import CommandError, ConfigError
from residual_rl_ros.robot.command import (
    FLOAT,
    GRIPPER,
    POSE,
    TRAJECTORY,
    TWIST,
    TWIST_STAMPED,
    WRENCH,
    Command,
    CommandDecoder,
    CommandVector,
    check_lockstep,
)
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.topics import FLOAT_ARRAY, JOINT_STATE

ARM = {'topic': 'arm/commands', 'type': FLOAT_ARRAY, 'actions': ['j1', 'j2']}
HAND = {'topic': 'hand/gripper_cmd', 'type': GRIPPER, 'actions': ['hand'], 'threshold': 0.002}
ROBOT: dict[str, Any] = {
    'name': 'two',
    'control_rate_hz': 50.0,
    'command': {'channels': ['arm', 'hand'], 'arm': ARM, 'hand': HAND},
    'action': {
        'names': ['j1', 'hand', 'j2'],
        'units': ['rad', 'm', 'rad'],
        'lower': [-1.0, 0.0, -1.0],
        'upper': [1.0, 0.08, 1.0],
        'max_velocity': [1.0, 0.1, 1.0],
    },
    'observation': {
        'channels': ['state'],
        'state': {'topic': 'state', 'type': FLOAT_ARRAY, 'fields': ['x'], 'max_age_s': 0.1},
    },
}


def robot(**changes: Any) -> RobotConfig:
    """Return the robot with changed keys, named by their paths with `__` between."""
    mapping = copy.deepcopy(ROBOT)
    for path, value in changes.items():
        *parents, key = path.split('__')
        section = mapping
        for parent in parents:
            section = section[parent]
        if value is None:
            del section[key]
        else:
            section[key] = value
    return RobotConfig.from_mapping(mapping)


def test_each_command_carries_its_part_of_the_action_vector() -> None:
    arm, hand = robot().commands
    vector = np.array([1.0, 2.0, 3.0])
    assert arm.part_of(vector).tolist() == [1.0, 3.0]
    assert hand.part_of(vector).tolist() == [2.0]
    assert robot().action.grippers == (1,)
    assert (hand.name, hand.threshold, hand.every, hand.is_action) == ('hand', 0.002, 1, True)


def test_an_operator_of_several_commands_sends_all_actions_at_once() -> None:
    assert robot().takeover == Command('takeover/command', FLOAT_ARRAY, name='takeover')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'command__hand__actions': ['j1']}, r"action 'j1' is in several: arm, hand"),
        ({'command__arm__actions': ['j1']}, r"action 'j2' is in none; expected each action in"),
        ({'command__arm__actions': None}, r'robot.command.arm.actions is missing, expected some'),
        ({'command__arm__actions': ['j9']}, r"robot.command.arm.actions names \['j9'\], expected"),
        ({'command__channels': ['arm']}, r'robot.command.hand is not in robot.command.channels'),
        ({'command__channels': []}, r'robot.command.channels is \[\], expected a list'),
        ({'command__channels': 'arm'}, r"robot.command.channels is 'arm', expected a list"),
        (
            {'command__channels': ['arm', 'hand', 'arm']},
            r"channels names 'arm', expected each name",
        ),
        ({'command__hand__topic': 'arm/commands'}, r"2 commands have the topic 'arm/commands'"),
        ({'command__hand__rate_hz': 30.0}, r'hand.rate_hz is 30, expected a whole fraction or'),
        ({'command__hand__threshold': -1.0}, r'robot.command.hand.threshold is -1.0'),
        (
            {'command__hand__actions': ['hand', 'j2'], 'command__arm__actions': ['j1']},
            r'hand.type is .*GripperCommand.*, which carries one number, and it has the 2 actions',
        ),
        ({'action__kind': 'discrete'}, r'robot.action'),
    ],
)
def test_actions_that_are_missing_or_shared_are_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        robot(**changes)


def test_a_slower_command_is_sent_with_every_so_many_control_steps() -> None:
    assert robot(command__hand__rate_hz=10.0).commands[1].every == 5


@pytest.mark.parametrize(
    ('fields', 'orientation', 'message'),
    [
        (['position.x', 'orientation.w'], None, r'expected all four of orientation'),
        (['position.x', 'rotation_vector.x'], [0.0, 0.0, 0.0, 0.0], r'quaternion .* of length 1'),
        (['position.x', 'velocity.x'], None, r"'velocity.x'.*, expected a list of position.x"),
    ],
)
def test_a_pose_has_one_orientation(
    fields: list[str], orientation: list[float] | None, message: str
) -> None:
    pose = {'topic': 'target', 'type': POSE, 'actions': ['j1', 'j2'], 'frame_id': 'base'}
    pose |= {'fields': fields, **({'orientation': orientation} if orientation else {})}
    with pytest.raises(ConfigError, match=message):
        robot(command__arm=pose, action__units=['m', 'm', 'rad'])


def test_a_robot_knows_which_actions_make_an_orientation() -> None:
    pose = {'topic': 'target', 'type': POSE, 'actions': ['j2', 'j1'], 'frame_id': 'base'}
    pose['fields'] = ['rotation_vector.x', 'rotation_vector.z']
    spec = robot(command__arm=pose, action__units=['rad', 'm', 'rad']).action
    assert spec.orientations == ((2, -1, 0),)
    assert robot().action.orientations == ()


def test_commands_that_differ_say_their_units() -> None:
    twist = {'topic': 'cmd_vel', 'type': TWIST, 'actions': ['j1', 'j2']}
    twist['fields'] = ['linear.x', 'angular.z']
    with pytest.raises(ConfigError, match=r'action.units is missing: .* do not say those of hand'):
        robot(command__arm=twist, action__units=None)
    spec = robot(command__arm=twist, action__units=['m/s', 'm', 'rad/s']).action
    assert spec.goes_to_zero.tolist() == [True, False, True]
    assert spec.hold == ('zero', 'last', 'zero')
    force = twist | {'type': WRENCH, 'fields': ['force.x', 'torque.z'], 'frame_id': 'tool'}
    with pytest.raises(ConfigError, match=r"units is \['m/s', 'rad/s'\] for 'arm'"):
        robot(command__arm=force, action__units=['m/s', 'm', 'rad/s'])


def test_each_command_holds_in_its_own_way() -> None:
    spec = robot(
        action__units=['1', '1', '1'],
        command__arm={**ARM, 'hold': 'zero'},
        command__hand={**HAND, 'hold': 'last'},
    ).action
    assert spec.goes_to_zero.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ('command', 'message'),
    [
        ({'rate_hz': 500.0, 'units': ['rad/step', 'm', 'rad/step']}, r'increments, of which each'),
        ({'rate_hz': 10.0, 'units': ['rad/step', 'm', 'rad/step']}, r'increments, of which each'),
        ({'interpolation': 'linear'}, r'but has no rate_hz above the control rate 50'),
        ({'max_jerk': [1.0, 1.0]}, r'but has no rate_hz above the control rate 50'),
        ({'rate_hz': 500.0, 'max_jerk': [1.0, 1.0]}, r'max_acceleration and max_jerk, 2 values'),
        ({'actions': ['j1', 'j1', 'j2']}, r'arm.actions names one twice'),
    ],
)
def test_what_cannot_be_sent_between_two_steps_is_refused(
    command: dict[str, Any], message: str
) -> None:
    units = command.pop('units', None)
    with pytest.raises(ConfigError, match=message):
        robot(
            command__arm={**ARM, **command},
            **({'action__units': units} if units else {}),
        )


def test_a_trajectory_has_one_point_or_as_many_as_are_wanted() -> None:
    arm = {**ARM, 'type': TRAJECTORY, 'joints': ['a', 'b']}
    assert robot(command__arm=arm).commands[0].horizon_steps == 0
    assert robot(command__arm={**arm, 'horizon_steps': 8}).commands[0].horizon_steps == 8
    with pytest.raises(ConfigError, match=r'horizon_steps is 8, but rate_hz is above'):
        robot(command__arm={**arm, 'horizon_steps': 8, 'rate_hz': 500.0})
    with pytest.raises(ConfigError, match='horizon_steps'):
        robot(command__arm={**ARM, 'horizon_steps': 8})


def test_a_lone_command_carries_every_action() -> None:
    with pytest.raises(ConfigError, match=r"action 'hand' is in none"):
        robot(command=ARM)


@pytest.mark.parametrize(
    'command',
    [{**HAND, 'hold': 'zero'}, {'topic': '/arm/commands', 'type': FLOAT, 'actions': ['hand']}],
)
def test_a_gripper_that_would_go_to_zero_and_a_topic_said_twice_are_refused(
    command: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError, match=r'is a position: remove hold|2 commands have the topic'):
        robot(command__hand=command)


def test_an_operator_of_permuted_actions_sends_them_in_the_order_of_the_actions() -> None:
    joints = {'type': JOINT_STATE, 'topic': 'c', 'actions': ['j2', 'hand', 'j1']}
    permuted = robot(command={**joints, 'joints': ['b', 'h', 'a']})
    assert permuted.takeover.type == FLOAT_ARRAY


@pytest.mark.parametrize('kind', [FLOAT_ARRAY, TRAJECTORY, TWIST, POSE, WRENCH])
def test_an_operator_commands_in_the_message_of_a_robot_that_has_one_topic(kind: str) -> None:
    mapping = robot()
    alone = replace(mapping, commands=(Command('commands', kind, frame_id='tool0'),))
    operator = alone.takeover
    assert (operator.topic, operator.type, operator.frame_id) == ('takeover/command', kind, 'tool0')


def test_a_command_in_another_frame_is_refused_and_one_that_names_none_is_not() -> None:
    command = Command('takeover/command', TWIST_STAMPED, fields=('linear.z',), frame_id='tool0')
    decoder = CommandDecoder(command, 1)

    def up(frame: str) -> Any:
        linear = SimpleNamespace(x=0.0, y=0.0, z=0.2)
        header = SimpleNamespace(frame_id=frame)
        return SimpleNamespace(header=header, twist=SimpleNamespace(linear=linear))

    assert decoder.values(up('tool0')) == decoder.values(up('')) == [0.2]
    with pytest.raises(CommandError, match="frame_id is 'base_link', expected 'tool0'"):
        decoder.values(up('base_link'))


def test_a_vector_is_complete_when_every_command_has_said_its_part() -> None:
    commands = (Command('a', FLOAT_ARRAY, indices=(0, 2)), Command('b', FLOAT, indices=(1,)))
    vector = CommandVector(commands, 3)
    assert vector.put(0, np.array([1.0, 3.0])) is None
    complete = vector.put(1, np.array([2.0]))
    assert complete is not None
    assert complete.tolist() == [1.0, 2.0, 3.0]
    assert vector.put(1, np.array([5.0])) is None
    newest = vector.put(0, np.array([4.0, 6.0]), complete=False)
    assert newest is not None
    assert newest.tolist() == [4.0, 5.0, 6.0]
    assert vector.put(1, np.array([7.0]), complete=False) is not None


@pytest.mark.parametrize('kind', [FLOAT, TWIST, GRIPPER])
def test_in_lockstep_every_command_must_say_what_it_answers(kind: str) -> None:
    with pytest.raises(ConfigError, match=r'carry no stamp'):
        check_lockstep([Command('a', FLOAT_ARRAY), Command('b', kind)])
