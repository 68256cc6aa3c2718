# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Limits come from the URDF, and what does not fit it is refused by name before anything moves."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from urdf_builders import UR5E_JOINTS, joint, link, two_links, ur5e_like, urdf

from residual_rl_ros.checks.robot import check_robot
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.command import GRIPPER
from residual_rl_ros.robot.description import RobotConfig, with_own_limits
from residual_rl_ros.robot.topics import FLOAT_ARRAY, JOINT_STATE
from residual_rl_ros.robot.urdf import TOPIC, urdf_errors

pytest.importorskip('pinocchio', reason='needs pinocchio: residual_rl_ros[urdf]')


BOX: dict[str, Any] = {'lower': [-2.5, -2.5, -0.1], 'upper': [2.5, 2.5, 0.1]}
TIP = BOX | {'point': 'tip'}


def description(file: Path | str, joints: tuple[str, ...], **action: Any) -> dict[str, Any]:
    """Return a robot of joint positions whose URDF is in a file, at 20 Hz."""
    return {
        'name': 'bench',
        'control_rate_hz': 20,
        'robot_description': {'urdf': str(file)},
        'command': {'topic': 'commands', 'type': FLOAT_ARRAY},
        'action': {
            'names': [f'{name}.position' for name in joints],
            'measured_by': [f'arm.position.{name}' for name in joints],
            **action,
        },
        'observation': {
            'channels': ['arm'],
            'arm': {
                'topic': 'joint_states',
                'type': JOINT_STATE,
                'fields': ['position', 'velocity', 'effort'],
                'joints': list(joints),
                'max_age_s': 0.2,
            },
        },
    }


def written(folder: Path, text: str) -> Path:
    """Write a URDF and return its file."""
    path = folder / 'arm.urdf'
    path.write_text(text)
    return path


def made(folder: Path, text: str, joints: tuple[str, ...] = ('a', 'b'), **action: Any) -> Any:
    """Return the robot of a URDF."""
    return RobotConfig.from_mapping(description(written(folder, text), joints, **action))


def test_missing_limits_are_those_of_the_urdf_at_a_share_of_its_velocities(tmp_path: Path) -> None:
    mapping = description(written(tmp_path, ur5e_like()), UR5E_JOINTS)
    action = RobotConfig.from_mapping(mapping).action
    reach = np.array([2.0, 2.0, 1.0, 2.0, 2.0, 2.0]) * np.pi
    np.testing.assert_allclose([action.lower, action.upper], [-reach, reach])
    np.testing.assert_allclose(action.max_step, 0.5 * np.pi / 20.0)
    mapping['robot_description']['velocity_share'] = 0.1
    np.testing.assert_allclose(RobotConfig.from_mapping(mapping).action.max_step, np.pi / 200.0)


def test_limits_that_are_written_stay_bit_for_bit_and_fill_nothing(tmp_path: Path) -> None:
    robot = made(tmp_path, two_links(), lower=[-3.0, -0.1], upper=[3.0, 2.9], max_velocity=[1, 2])
    assert robot.action.lower.tolist() == [-3.0, -0.1]
    assert robot.action.max_step.tolist() == [1 / 20, 2 / 20]
    assert robot.from_urdf == ()
    assert made(tmp_path, two_links(), lower=[-1, -1]).from_urdf == ('upper', 'max_velocity')


@pytest.mark.parametrize(
    ('units', 'measured', 'lower', 'upper'),
    [
        ('rad/s', 'velocity', -1.0, 1.0),
        ('rad/step', 'position', -0.05, 0.05),
        ('N m', 'effort', -150.0, 150.0),
    ],
)
def test_velocities_increments_and_efforts_have_limits_too(
    tmp_path: Path, units: str, measured: str, lower: float, upper: float
) -> None:
    """What they may change in a second no URDF says."""
    more = {'units': [units] * 2, 'measured_by': [f'arm.{measured}.a', f'arm.{measured}.b']}
    action = made(tmp_path, two_links(), max_velocity=[1.0, 1.0], **more).action
    np.testing.assert_allclose([action.lower, action.upper], [[lower] * 2, [upper] * 2])
    with pytest.raises(ConfigError, match=r'max_velocity is missing, .* none for a.position, b'):
        made(tmp_path, two_links(), **more)


@pytest.mark.parametrize(
    ('key', 'values', 'bound'),
    [
        ('lower', [-3.1, -1.0], r"lower of 'a.position' is -3.1, beyond -3 "),
        ('upper', [1.0, 3.1], r"upper of 'b.position' is 3.1, beyond 3 "),
        ('max_velocity', [1.0, 2.1], r"max_velocity of 'b.position' is 2.1, beyond 2 "),
    ],
)
def test_limits_wider_than_the_urdf_are_refused_by_name(
    tmp_path: Path, key: str, values: list[float], bound: str
) -> None:
    with pytest.raises(ConfigError, match=bound):
        made(tmp_path, two_links(), **{key: values})


@pytest.mark.parametrize(
    ('limit', 'action', 'reason'),
    [
        (
            'lower="6.283" upper="-6.283" velocity="2"',
            {},
            "lower and upper of 'a.position' are 6.283",
        ),
        (
            'lower="-3" upper="3" velocity="2"',
            {'lower': [4.0]},
            'are 4 and 3, of which robot_description gives upper: change the URDF, or write both',
        ),
        (
            'lower="-3" upper="3" velocity="0"',
            {},
            "max_velocity of 'a.position' is 0 by robot",
        ),
    ],
)
def test_limits_of_the_urdf_with_which_nothing_moves_are_said_to_be_its(
    tmp_path: Path, limit: str, action: dict[str, Any], reason: str
) -> None:
    one = joint('a', 'base', 'up', limit=f'<limit effort="1" {limit}/>')
    with pytest.raises(ConfigError, match=reason):
        made(tmp_path, urdf(link('base'), link('up'), one), ('a',), **action)


def test_a_gripper_that_gets_goals_moves_at_a_speed_of_its_own(tmp_path: Path) -> None:
    mapping = description(written(tmp_path, two_links()), ('a', 'b'))
    mapping['command'] = {
        'channels': ['arm', 'hand'],
        'arm': {'topic': 'commands', 'type': FLOAT_ARRAY, 'actions': ['a.position']},
        'hand': {'topic': 'gripper_cmd', 'type': GRIPPER, 'actions': ['b.position']},
    }
    # The range of a goal, 6 rad, within one control step of 0.05 s.
    assert RobotConfig.from_mapping(mapping).action.max_step[1] == pytest.approx(6.0)
    mapping['action']['max_velocity'] = [1.0, 100.0]
    assert RobotConfig.from_mapping(mapping).action.max_step[1] == pytest.approx(5.0)
    mapping['action']['max_velocity'] = [100.0, 100.0]
    with pytest.raises(ConfigError, match=r"max_velocity of 'a.position' is 100, beyond 2") as told:
        RobotConfig.from_mapping(mapping)
    assert 'b.position' not in str(told.value)


def test_units_that_there_are_not_are_refused_before_their_limits(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"robot.action.units is \['deg', 'deg'\], expected"
    ) as told:
        made(tmp_path, two_links(), units=['deg', 'deg'])
    assert 'missing' not in str(told.value)


def test_what_is_told_of_a_urdf_that_is_read_is_passed_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with urdf_errors('arm.urdf'):
        os.write(2, b'a hint\n')
    assert capfd.readouterr().err == 'a hint\n'


def test_a_joint_without_end_needs_limits_of_its_own(tmp_path: Path) -> None:
    turns = joint('a', 'base', 'up', kind='continuous', limit='<limit effort="1" velocity="2"/>')
    text = urdf(link('base'), link('up'), turns)
    with pytest.raises(ConfigError, match=r'lower is missing, .* has none for a.position'):
        made(tmp_path, text, ('a',))
    action = made(tmp_path, text, ('a',), lower=[-9.0], upper=[9.0]).action
    np.testing.assert_allclose(action.max_step, 0.05)


def fingers(mimic: str = '<mimic joint="left" multiplier="-1"/>') -> str:
    """Return a gripper of which one finger follows the other."""
    return urdf(
        *(link(name) for name in ('base', 'one', 'other')),
        joint('left', 'base', 'one'),
        joint('right', 'base', 'other', more=mimic),
    )


@pytest.mark.parametrize(
    ('text', 'joints', 'reason'),
    [
        (
            two_links(),
            ('a', 'c'),
            r"description.joints: .*arm.urdf has no joint 'c'; it has a, b",
        ),
        (fingers(), ('left', 'right'), r"joint 'right' of .* follows another one \(mimic\)"),
        (
            urdf(link('base'), link('up'), joint('a', 'base', 'up', kind='floating', limit='')),
            ('a',),
            r"joint 'a' of .* has several positions",
        ),
        (urdf(link('base'), link('up'), joint('a', 'base', 'up', limit='')), ('a',), 'REVOLUTE'),
        (urdf(link('base'), link('up')), ('a',), 'no joint has the child link base, up, expected'),
        *(
            (
                urdf(link('base'), link('up'), joint('a', 'base', 'up', axis=axis)),
                ('a',),
                f"joint 'a' has the axis '{axis}', expected three numbers",
            )
            for axis in ('0 0 0', '0 1e-9 0', '0 nan 1', '0 1', 'up')
        ),
        (
            urdf(
                *(link(name) for name in ('base', 'one', 'other')),
                joint('a', 'one', 'other'),
                joint('b', 'other', 'one'),
            ),
            ('a',),
            'links form a loop, one - other: remove a joint',
        ),
        (
            urdf(
                *(link(name) for name in ('base', 'one', 'other')),
                joint('a', 'base', 'one'),
                joint('b', 'base', 'other'),
                joint('c', 'one', 'other'),
            ),
            ('a',),
            "several joints have the child link 'other'",
        ),
        (fingers('<mimic joint="none"/>'), ('left',), 'not in the kinematic tree'),
        (
            '<robot name="x" xmlns:xacro="x"><xacro:arm/></robot>',
            ('a',),
            r'holds xacro \(<xacro:arm',
        ),
        (urdf(link('${name}')), ('a',), r'holds xacro \(<link>\), expected the URDF'),
        ('<sdf/>', ('a',), r'has the root <sdf>, 0 links'),
        ('a: b', ('a',), 'is not XML'),
    ],
)
def test_a_urdf_that_does_not_fit_is_refused_in_one_line(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    text: str,
    joints: tuple[str, ...],
    reason: str,
) -> None:
    with pytest.raises(ConfigError, match=reason):
        made(tmp_path, text, joints)
    assert capfd.readouterr().err == ''


@pytest.mark.parametrize('name', ['none.urdf', 'package://none/arm.urdf'])
def test_a_urdf_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"urdf is '{name}'"):
        RobotConfig.from_mapping(description(name, ('a', 'b')))


def test_a_package_is_found_where_ros_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / 'share' / 'arm_description'
    folder.mkdir(parents=True)
    written(folder, two_links())
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'/none:{tmp_path}')
    mapping = description('package://arm_description/arm.urdf', ('a', 'b'))
    assert RobotConfig.from_mapping(mapping).action.upper.tolist() == [3.0, 3.0]


def test_without_pinocchio_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'pinocchio', None)
    with pytest.raises(ConfigError, match=r"pip install 'residual_rl_ros\[urdf\]'"):
        made(tmp_path, two_links())


def test_limits_of_a_topic_are_written_and_checked_when_it_is_heard(tmp_path: Path) -> None:
    mapping = description(TOPIC, ('a', 'b'))
    with pytest.raises(ConfigError, match=r'lower is missing, .* gives from a file alone'):
        RobotConfig.from_mapping(mapping)
    limits = {'lower': [-1, -1], 'upper': [1, 3.5], 'max_velocity': [1, 1]}
    mapping = description(TOPIC, ('a', 'b'), **limits, self_collision={'distance': 0.02})
    report = check_robot(RobotConfig.from_mapping(mapping), 'bench')
    assert report.problems == []
    assert 'heard by policy_node alone' in report.remarks[0]
    with pytest.raises(ConfigError, match=r"upper of 'b.position' is 3.5, beyond 3"):
        RobotConfig.from_mapping(mapping, heard=two_links())
    mapping['action']['upper'] = [1, 3]
    assert RobotConfig.from_mapping(mapping, heard=two_links()).urdf is not None


def test_a_recorded_description_has_the_limits_without_the_urdf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping = description(written(tmp_path, two_links()), ('a', 'b'), workspace=TIP, upper=[1, 1])
    recorded = with_own_limits(mapping)
    robot = RobotConfig.from_mapping(mapping)
    (tmp_path / 'arm.urdf').unlink()
    monkeypatch.setitem(sys.modules, 'pinocchio', None)
    read = RobotConfig.from_mapping(recorded).action
    for key in ('lower', 'upper', 'max_step'):
        np.testing.assert_allclose(getattr(read, key), getattr(robot.action, key))


def test_check_robot_shows_what_comes_from_the_urdf(tmp_path: Path) -> None:
    robot = made(
        tmp_path,
        two_links(),
        workspace={'boxes': {'tool': TIP, 'elbow': {'point': 'lower', **BOX}}},
        self_collision={'distance': 0.02},
    )
    report = check_robot(robot, 'bench')
    assert report.problems == []
    said = report.facts['robot_description']
    assert said.endswith('arm.urdf; a, b; it gives lower, upper, max_velocity')
    assert report.facts['workspace'].startswith('tip of robot_description [m]: x in [-2.5, 2.5]')
    assert '\nlower of' in report.facts['workspace']
    assert report.facts['self-collision'] == '0.02 m between 1 pairs of links'


def test_a_home_at_which_links_are_too_near_is_a_problem(tmp_path: Path) -> None:
    mapping = description(
        written(tmp_path, two_links()), ('a', 'b'), self_collision={'distance': 0.02}
    )
    mapping['home'] = {'positions': {'a.position': 2.0, 'b.position': 2.1}}
    report = check_robot(RobotConfig.from_mapping(mapping), 'bench')
    assert report.problems[0].startswith('robot.home.positions bring base and lower within -')
    assert ' m apart at home, ' in report.remarks[0]
    assert "add 'base lower' to robot.action.self_collision.ignore" in report.remarks[0]
    mapping['home']['positions']['b.position'] = 0.0
    assert check_robot(RobotConfig.from_mapping(mapping), 'bench').problems == []


@pytest.mark.parametrize(
    ('key', 'value', 'reason'),
    [
        (
            'workspace',
            BOX | {'point': 'hand'},
            "action.workspace: point: .* no link 'hand'",
        ),
        (
            'workspace',
            TIP | {'frame': 'foot'},
            "action.workspace.frame: .* no link 'foot'",
        ),
        (
            'self_collision',
            {'distance': 0.02, 'ignore': ['base hand']},
            "self_collision.ignore: .*no link 'hand'",
        ),
        ('self_collision', {'distance': 0.02, 'ignore': ['base lower']}, 'nothing to watch'),
    ],
)
def test_a_link_that_the_urdf_lacks_is_a_problem(
    tmp_path: Path, key: str, value: object, reason: str
) -> None:
    (problem,) = check_robot(made(tmp_path, two_links(), **{key: value}), 'bench').problems
    assert re.search(reason, problem)


@pytest.mark.parametrize(
    ('key', 'value', 'reason'),
    [
        ('self_collision', {'distance': 0.02, 'ignore': ['base']}, "ignore holds 'base'"),
        ('self_collision', {}, 'self_collision.distance is missing'),
        ('workspace', {'boxes': {}}, 'boxes is {}'),
        ('workspace', {'boxes': {'tool': {'point': 'tip'}}}, 'boxes.tool.lower is missing'),
        (
            'workspace',
            {'boxes': {'tool': TIP, 'elbow': TIP | {'point': 'lower', 'upper': [-9.0, 2.5, 0.1]}}},
            r"workspace of 'lower': lower \[-2.5, -2.5, -0.1\] is not below upper \[-9.0,",
        ),
        ('workspace', TIP | {'upper': [1]}, r"workspace of 'tip' is .* to \[1.0\]"),
        ('workspace', TIP | {'joints': ['a', 'b']}, r"model is '' with joints \['a', 'b'\]"),
        (
            'workspace',
            TIP | {'model': 'x.xml', 'joints': ['a', 'b'], 'frame': 'base'},
            r"frame is 'base', but",
        ),
    ],
)
def test_a_mistake_in_the_limits_of_the_body_is_refused_by_its_key(
    tmp_path: Path, key: str, value: object, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        made(tmp_path, two_links(), **{key: value})


def test_limits_of_the_body_need_a_urdf_or_a_model() -> None:
    body = {'self_collision': {'distance': 0.02}, 'workspace': TIP}
    limits = {'lower': [-1, -1], 'upper': [1, 1], 'max_velocity': [1, 1]}
    mapping = description('none', ('a', 'b'), **limits, **body)
    del mapping['robot_description']
    with pytest.raises(ConfigError, match=r'workspace.model is missing.*; .*self_collision needs'):
        RobotConfig.from_mapping(mapping)
