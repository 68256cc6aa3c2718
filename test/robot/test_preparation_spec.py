# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a robot does between episodes is checked with its description, before anything moves."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from residual_rl_ros.checks.robot import check_robot
from residual_rl_ros.control.home import GoHome
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.description import RobotConfig, load_robot
from residual_rl_ros.robot.preparation_spec import HomeKeys, home_of
from residual_rl_ros.robot.topics import FLOAT_ARRAY, JOINT_STATE

DESCRIPTION: dict[str, Any] = {
    'name': 'bench',
    'control_rate_hz': 20.0,
    'command': {'topic': 'commands', 'type': FLOAT_ARRAY},
    'action': {
        'names': ['a.position', 'b.position'],
        'lower': [-1.0, -2.0],
        'upper': [1.0, 2.0],
        'max_velocity': [2.0, 4.0],
        'measured_by': ['arm.position.a', 'arm.position.b'],
    },
    'observation': {
        'channels': ['arm'],
        'arm': {
            'topic': 'joint_states',
            'type': JOINT_STATE,
            'fields': ['position'],
            'joints': ['a', 'b'],
            'max_age_s': 0.2,
        },
    },
}


def described(**changes: Any) -> RobotConfig:
    """Return the robot with sections of its own, or with keys of its actions replaced."""
    description = copy.deepcopy(DESCRIPTION)
    description['action'].update(changes.pop('action', {}))
    return RobotConfig.from_mapping({**description, **changes})


@pytest.mark.parametrize(
    'positions', [{'b.position': 1.5}, {'b': {'position': 1.5}}], ids=['from a file', 'from ROS']
)
def test_home_is_given_by_action_name(positions: dict[str, Any]) -> None:
    home = described(home={'positions': positions, 'velocity_share': 0.5}).home
    assert home is not None
    np.testing.assert_array_equal(home.goal, [np.nan, 1.5])
    np.testing.assert_allclose(home.max_step, [0.05, 0.1])
    np.testing.assert_allclose(home.tolerance, [0.1, 0.2])
    assert home.when == 'between_episodes'
    assert described().home is None


@pytest.mark.parametrize(
    ('home', 'message'),
    [
        ({}, r'robot.home.positions is missing, expected a map'),
        ({'positions': {}}, r'home.positions is empty'),
        (
            {'positions': {'a.position_': 0.0}},
            r'home.positions.a.position_ is no action; did you mean',
        ),
        ({'positions': {'a.position': 1.5}}, r'a.position is 1.5, expected a number from -1 to 1'),
        ({'positions': {'a.position': float('nan')}}, r'a.position is nan, expected a number'),
        ({'positions': {'a.position': '1e-1'}}, r'to YAML 1e-1 is a string: write 1.0e-1'),
        ({'positions': {'a.position': True}}, r'a.position is True, expected a number'),
        (
            {'positions': {'b.position': 1.0, 'b': {'position': 1.5}}},
            r'home.positions.b.position is given twice',
        ),
        ({'acceleration_s': 1e9}, r'robot.home.acceleration_s is 1000000000.0, expected .* 60'),
        ({'timeout_s': 1e300}, r'robot.home.timeout_s is 1e\+300, expected .* 3600'),
        ({'when': 'always'}, r"robot.home.when is 'always', expected one of between_episodes"),
        ({'velocity_share': 1.5}, r'robot.home.velocity_share is 1.5, expected a number > 0'),
        ({'tolerance': [0.1, 0.1, 0.1]}, r'home.tolerance is .* one for each of a.position'),
    ],
)
def test_a_home_that_cannot_be_reached_is_refused_by_key(
    home: dict[str, Any], message: str
) -> None:
    given = home if 'positions' in home or not home else {'positions': {'a.position': 0.0}, **home}
    with pytest.raises(ConfigError, match=message):
        described(home=given)


def in_velocities(*fields: str, **changes: Any) -> RobotConfig:
    """Return a robot that is commanded in velocities, whose joints are measured so."""
    channel = {**DESCRIPTION['observation']['arm'], 'fields': list(fields)}
    return described(
        action={
            'names': ['a.velocity', 'b.velocity'],
            'units': ['rad/s', 'rad/s'],
            'measured_by': ['arm.velocity.a', 'arm.velocity.b'],
        },
        observation={'channels': ['arm'], 'arm': {**channel, **changes.pop('channel', {})}},
        **changes,
    )


def test_joints_in_velocity_have_a_home_where_their_positions_are_measured() -> None:
    home = {'positions': {'b.velocity': 5.5}, 'velocity_share': 0.5}
    robot = in_velocities('position', 'velocity', home=home)
    assert robot.home is not None
    assert robot.home.measured_by == ('', 'arm.position.b')
    np.testing.assert_allclose(robot.home.max_step[1], 0.5 * 2.0 / 20.0)
    np.testing.assert_allclose(robot.home.tolerance[1], 2.0 * 0.05)
    report = check_robot(robot, 'bench')
    assert report.problems == []
    assert report.facts['home'] == 'between_episodes: b.velocity 5.5'
    refused = r'home.positions.b.velocity is commanded in rad/s and measured by .*arm.velocity.b'
    with pytest.raises(ConfigError, match=refused):
        in_velocities('velocity', home=home)
    with pytest.raises(ConfigError, match=refused):
        in_velocities('position', 'velocity', home=home, channel={'scale': [57.3]})
    with pytest.raises(ConfigError, match=r'is 1e\+300, expected a number from -1000 to 1000'):
        in_velocities('position', 'velocity', home={'positions': {'b.velocity': 1e300}})


def test_a_base_that_drives_has_no_home() -> None:
    home, names = {'positions': {'linear.x': 0.0}}, ['linear.x', 'angular.z']
    fields = ['pose.pose.position.x', 'twist.twist.linear.x', 'twist.twist.angular.z']
    odometry = {'topic': 'odom', 'type': 'nav_msgs/msg/Odometry', 'max_age_s': 0.2}
    with pytest.raises(ConfigError, match=r'in m/s .* a base that drives has no home: remove it'):
        described(
            home=home,
            command={'topic': 'cmd_vel', 'type': 'geometry_msgs/msg/Twist', 'fields': names},
            action={
                'names': names,
                'measured_by': [f'odom.{field}' for field in fields[1:]],
            },
            observation={'channels': ['odom'], 'odom': {**odometry, 'fields': fields}},
        )


def test_only_positions_that_are_measured_have_a_home() -> None:
    home = {'positions': {'a.position': 0.0}}
    for unit in ('rad/step', 'N m'):
        with pytest.raises(ConfigError, match=rf'a.position is commanded in {unit}, expected an'):
            described(home=home, action={'units': [unit, unit]})
    with pytest.raises(ConfigError, match=r'home needs .* action.measured_by'):
        described(home=home, action={'measured_by': []})


@pytest.mark.parametrize(
    ('positions', 'message'),
    [
        ({'x': 0.0, 'w': 1.0}, r'has some of x, y, z, w: they are one orientation, give all'),
        (dict.fromkeys('xyzw', 0.0), r'x, y, z, w has length 0, expected a quaternion of length 1'),
    ],
)
def test_home_has_a_whole_orientation_or_none(positions: dict[str, Any], message: str) -> None:
    action = ActionSpec(
        names=tuple('xyzw'),
        lower=np.full(4, -1.0),
        upper=np.full(4, 1.0),
        max_step=np.full(4, 0.05),
        measured_by=tuple('xyzw'),
        orientations=((0, 1, 2, 3),),
    )
    with pytest.raises(ConfigError, match=message):
        home_of(HomeKeys(positions=positions), action, 0.05)


def test_a_home_outside_of_the_workspace_is_refused_before_anything_moves() -> None:
    robot, _ = load_robot('ur_forward_position')
    stretched = dict.fromkeys(robot.action.names, 0.0)
    home = home_of(HomeKeys(positions=stretched), robot.action, 0.02)
    safety = SafetyFilter(robot.action)
    with pytest.raises(ConfigError, match=r'bring tool0 to .*, outside of robot.action.workspace'):
        GoHome(home, safety, 0.02)
    # A joint that stays may be anywhere; what moves no joint, such as a gripper, may stay.
    staying = replace(home, goal=np.array([np.nan, *home.goal[1:]]))
    GoHome(staying, safety, 0.02)
    assert robot.action.workspace is not None
    joints = ('', *robot.action.workspace.joints[1:])
    workspace = replace(robot.action.workspace, joints=joints)
    without = SafetyFilter(replace(robot.action, workspace=workspace))
    with pytest.raises(ConfigError, match=r'bring tool0 to .*, outside of robot.action.workspace'):
        GoHome(staying, without, 0.02)
    (remark,) = check_robot(replace(robot, home=staying), 'ur').remarks
    assert 'shoulder_pan_joint.position in the middle of the range: give a home to each' in remark


@pytest.mark.parametrize(
    ('reset', 'message'),
    [
        ({}, r'robot.reset.service, command and settle_s are missing'),
        ({'service': 'a', 'command': ['b']}, r'robot.reset.command is given beside service'),
        ({'settle_s': 1e30}, r'robot.reset.settle_s is 1e\+30, expected .* 86400'),
        ({'service': 'a', 'timeout_s': 1e300}, r'robot.reset.timeout_s is 1e\+300, expected'),
        ({'command': 'reset.sh now'}, r'robot.reset.command is .*, expected a list of strings'),
        ({'service': 'a', 'service_type': 'std_srvs/srv/SetBool'}, r'service_type is'),
    ],
)
def test_a_reset_that_says_two_things_or_nothing_is_refused(
    reset: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        described(reset=reset)
    assert described(reset={'settle_s': 2.0}).reset is not None
