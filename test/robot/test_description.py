# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A robot description with a mistake in it must be refused by key before the robot moves."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from residual_rl_ros.errors import ConfigError, ResourceError
from residual_rl_ros.resources import resource_path
from residual_rl_ros.robot.command import INT32, TRAJECTORY, TWIST_STAMPED
from residual_rl_ros.robot.description import RobotConfig, load_robot
from residual_rl_ros.robot.image_preprocessing import Calibration, ImagePreprocessing
from residual_rl_ros.robot.topics import FLOAT_ARRAY, JOINT_STATE

DESCRIPTION: dict[str, Any] = {
    'name': 'bench',
    'control_rate_hz': 20,
    'command': {'topic': 'commands', 'type': FLOAT_ARRAY},
    'action': {
        'names': ['a.position', 'b.position'],
        'lower': [-1, -2.0],
        'upper': [1, 2.0],
        'max_velocity': [2.0, 4.0],
        'measured_by': ['arm.position.a', 'arm.position.b'],
    },
    'observation': {
        'channels': ['tool', 'arm'],
        'arm': {
            'topic': 'joint_states',
            'type': JOINT_STATE,
            'fields': ['position', 'velocity'],
            'joints': ['a', 'b'],
            'max_age_s': 0.2,
        },
        'tool': {
            'topic': 'tool_pose',
            'type': 'geometry_msgs/msg/PoseStamped',
            'fields': ['position.x', 'orientation.w'],
            'max_age_s': 0.1,
        },
    },
}
CAMERA = {
    'topic': 'image_raw',
    'type': 'sensor_msgs/msg/Image',
    'encoder': 'none',
    'crop': [40, 40],
    'resize': [20, 20],
    'camera_matrix': [50, 0, 20, 0, 50, 20, 0, 0, 1],
    'distortion_coefficients': [-0.1, 0, 0, 0],
    'max_age_s': 0.1,
}
MISSING = object()
TRAJECTORY_COMMAND = {'topic': 'jtc', 'type': TRAJECTORY, 'joints': ['a', 'b']}
TWIST_COMMAND = {
    'topic': 'cmd_vel',
    'type': TWIST_STAMPED,
    'fields': ['linear.x', 'angular.z'],
    'frame_id': 'base_link',
}


def edited(key: str, value: object) -> dict[str, Any]:
    """Return the description with one value replaced, by dotted key."""
    description = copy.deepcopy(DESCRIPTION)
    *parents, last = key.split('.')
    place = description
    for parent in parents:
        place = place[parent]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return description


def test_observation_names_follow_the_channel_list_then_fields_then_joints() -> None:
    robot = RobotConfig.from_mapping(DESCRIPTION)
    assert robot.observation_names == (
        'tool.position.x',
        'tool.orientation.w',
        'arm.position.a',
        'arm.position.b',
        'arm.velocity.a',
        'arm.velocity.b',
    )


def test_the_slew_limit_is_the_velocity_limit_over_one_control_step() -> None:
    robot = RobotConfig.from_mapping(DESCRIPTION)
    np.testing.assert_array_equal(robot.action.max_step, [0.1, 0.2])
    np.testing.assert_array_equal(robot.action.lower, [-1.0, -2.0])


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('name', MISSING, r'robot.name is missing, expected a non-empty string'),
        ('name', '', r"robot.name is '', expected a non-empty string"),
        ('nmae', 'typo', r'robot.nmae is unknown; did you mean name\?'),
        ('control_rate_hz', 0.0, r'robot.control_rate_hz is 0.0, expected a number >= 0.01'),
        (
            'control_rate_hz',
            float('nan'),
            r'robot.control_rate_hz is nan, expected a number >= 0.01',
        ),
        ('control_rate_hz', '20', r"robot.control_rate_hz is '20', expected a number"),
        ('control_rate_hz', True, r'robot.control_rate_hz is True, expected a number'),
        ('command', 'topic', r"robot.command is 'topic', expected a map"),
        ('command.topic', MISSING, r'robot.command.topic is missing'),
        (
            'command.topic',
            'my command',
            r"robot.command.topic is 'my command', expected a ROS",
        ),
        (
            'observation.arm.topic',
            '/a//b',
            r"observation.arm.topic is '/a//b', expected a ROS",
        ),
        (
            'observation.tool',
            {**CAMERA, 'camera_info_topic': 'i!'},
            r"topic is 'i!', expected a ROS",
        ),
        ('reset', {'service': 'reset scene'}, r"reset.service is 'reset scene', expected a ROS"),
        (
            'stop_inputs',
            {'stop': {'topic': 's!', 'type': 'std_msgs/msg/Bool', 'bad': ['true']}},
            r"robot.stop_inputs.stop.topic is 's!', expected a ROS name",
        ),
        ('command.type', 'Twist', r"robot.command.type is 'Twist', expected one of"),
        ('command.type', JOINT_STATE, r'robot.command.joints is missing'),
        ('command', {**TRAJECTORY_COMMAND, 'joints': ['a']}, r"joints is \['a'\], expected 2 diff"),
        ('command', {**TRAJECTORY_COMMAND, 'joints': ['a', 'a']}, r'expected 2 different names'),
        (
            'command',
            {**TWIST_COMMAND, 'fields': ['linear.x', 'yaw']},
            r"fields is .*'yaw'\], expected a",
        ),
        ('command', {**TWIST_COMMAND, 'frame_id': ''}, r"robot.command.frame_id is ''"),
        ('observation.arm.stamped_by', 'gps', r"stamped_by is 'gps', expected one of header, r"),
        ('command.qos', 'best', r'robot.command.qos is unknown'),
        ('action.names', 'a.position', r"robot.action.names is 'a.position', expected a"),
        ('action.names', ['a', 'a'], r"action names are repeated: \['a'\]"),
        ('action.lower', [-1.0], r'action lower has 1 values, expected 2'),
        ('action.upper', [1.0, 'high'], r"robot.action.upper is \[1.0, 'high'\], expected a list"),
        ('action.upper', [-1.0, 2.0], r"'a.position': lower -1.0 is not below upper -1.0"),
        ('action.max_velocity', [1e308, 1.0], r'action max_step is .*, expected at most 1e\+06'),
        ('action.max_velocity', [0.0, 1.0], r"'a.position': slew limit 0.0 is not positive"),
        ('action.max_velocity', [True, 1.0], r'robot.action.max_velocity is \[True, 1.0\]'),
        ('action.measured_by', ['arm.position.a', 'x'], r"names 'x', which no channel provides"),
        (
            'observation.arm',
            {'topic': 'x', 'type': FLOAT_ARRAY, 'fields': ['position.a', 'position.b']}
            | {'latched': True},
            r"names 'arm.position.b', of the latched channel 'arm', whose .*with max_age_s",
        ),
        ('observation.channels', [], r'robot.observation.channels is \[\], expected a list'),
        (
            'observation.channels',
            ['arm', 'wrist'],
            r"channels names 'wrist', expected each name once",
        ),
        ('observation.channels', ['arm', 'arm'], r"channels names 'arm', expected each name once"),
        ('observation.channels', ['arm'], r'robot.observation.tool is not in robot'),
        ('observation.arm.type', 'String', r"robot.observation.arm.type is 'String', expected"),
        ('observation.arm.joints', [], r'robot.observation.arm.joints is \[\], expected a'),
        ('observation.arm.fields', [], r'robot.observation.arm.fields is \[\], expected a'),
        ('observation.arm.max_age_s', 1e9, r'arm.max_age_s is 1000000000.0, expected .* <= 3600'),
        ('observation.arm.max_age_s', 0.0, r'robot.observation.arm.max_age_s is 0.0, expected'),
        ('observation.tool.joints', ['a'], r'robot.observation.tool.joints is unknown'),
        ('observation.tool.topic', MISSING, r'robot.observation.tool.topic is missing'),
    ],
)
def test_a_mistake_is_refused_by_its_full_key(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RobotConfig.from_mapping(edited(key, value))


def test_something_that_is_no_map_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'robot is missing, expected a map'):
        RobotConfig.from_mapping(None)


@pytest.mark.parametrize('name', ['peg_insert', 'push_to_goal'])
def test_a_shipped_robot_is_found_by_name(name: str) -> None:
    robot, path = load_robot(name)
    assert robot.name == name
    assert path.name == f'{name}.yaml'


def test_a_robot_file_is_read_by_path(tmp_path: Path) -> None:
    file = tmp_path / 'bench.yaml'
    file.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'robot': DESCRIPTION}}}))
    robot, path = load_robot(str(file))
    assert path == file
    assert robot.observation_names == RobotConfig.from_mapping(DESCRIPTION).observation_names


def test_an_unknown_robot_lists_the_shipped_ones() -> None:
    with pytest.raises(
        ResourceError,
        match=r"unknown robot 'r2d2'; shipped: cart_pole, diff_drive, fetch_pick_and_place, ",
    ):
        load_robot('r2d2')


def test_a_robot_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"robot file '.*none.yaml' does not exist"):
        load_robot(str(tmp_path / 'none.yaml'))


@pytest.mark.parametrize('content', [b'{', b'', b'- 1', b'robot: {}', b'\xff\xfe\x00'])
def test_a_file_that_is_no_robot_description_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / 'bench.yaml'
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r'is no robot description|cannot read robot file'):
        load_robot(str(file))


@pytest.mark.parametrize(
    'path', resource_path('config', 'robots').glob('*.yaml'), ids=lambda path: path.stem
)
def test_a_shipped_robot_loads(path: Path) -> None:
    robot, _ = load_robot(path.stem)
    assert robot.name == path.stem
    unmeasured = {'cart_pole', 'fetch_pick_and_place', 'mountain_car'}
    assert bool(robot.action.measured_by) != (path.stem in unmeasured)


def test_a_ur5e_with_cameras_is_the_one_without_and_two_cameras() -> None:
    def described(name: str) -> dict[str, Any]:
        text = load_robot(name)[1].read_text(encoding='utf-8')
        return dict(yaml.safe_load(text)['/**']['ros__parameters']['robot'])

    blind, seeing = described('ur5e_robotiq'), described('ur5e_robotiq_cameras')
    for camera in ('front', 'wrist'):
        assert seeing['observation'].pop(camera)['type'] == 'sensor_msgs/msg/Image'
    blind['name'] += '_cameras'
    blind['observation']['channels'] += ['front', 'wrist']
    assert seeing == blind


def test_a_ur5e_on_mock_hardware_has_topics_and_limits_of_the_arm() -> None:
    source = resource_path('package.xml').parent
    mock, _ = load_robot(str(source / 'docker' / 'ur5e_mock.yaml'))
    robot, _ = load_robot('ur5e_robotiq')
    assert mock.control_rate_hz == robot.control_rate_hz
    assert mock.channels == robot.channels[:1]
    assert mock.commands[0].topic == robot.commands[0].topic
    joints = mock.action.size
    assert mock.action.names == robot.action.names[:joints]
    for limit in ('lower', 'upper', 'max_step'):
        expected = getattr(robot.action, limit)[:joints]
        np.testing.assert_array_equal(getattr(mock.action, limit), expected)


def test_a_command_is_described_by_its_type() -> None:
    command = RobotConfig.from_mapping(edited('command', TRAJECTORY_COMMAND)).commands[0]
    assert (command.type, command.joints) == (TRAJECTORY, ('a', 'b'))
    command = RobotConfig.from_mapping(with_hold(MISSING, {}, TWIST_COMMAND)).commands[0]
    assert (command.fields, command.frame_id) == (('linear.x', 'angular.z'), 'base_link')


def test_a_robot_says_how_its_computer_runs_the_base_policy() -> None:
    section = {'threads': 2, 'optimisation': 'basic', 'constants': {'goal': [1, 2.5]}}
    robot = RobotConfig.from_mapping({**DESCRIPTION, 'base_policy': section})
    assert (robot.base_policy.threads, robot.base_policy.optimisation) == (2, 'basic')
    assert robot.base_policy.numbers == {'goal': (1.0, 2.5)}
    with pytest.raises(ConfigError, match=r'robot.base_policy.threads is 0'):
        RobotConfig.from_mapping({**DESCRIPTION, 'base_policy': {'threads': 0}})


def test_a_channel_is_stamped_by_its_header_unless_it_says_otherwise() -> None:
    robot = RobotConfig.from_mapping(edited('observation.arm.stamped_by', 'receipt'))
    assert [channel.stamped_by for channel in robot.channels] == ['header', 'receipt']


VELOCITIES: dict[str, Any] = {'units': ['rad/s', 'rad/s']}


def with_hold(hold: object, action: dict[str, Any], command: dict[str, Any]) -> dict[str, Any]:
    """Return the description with another action, of which nothing is measured, and command."""
    description = copy.deepcopy(DESCRIPTION)
    del description['action']['measured_by']
    description['action'] |= action
    description['command'] = {**command, **({} if hold is MISSING else {'hold': hold})}
    return description


@pytest.mark.parametrize(
    ('hold', 'action', 'command', 'expected'),
    [
        (MISSING, {}, DESCRIPTION['command'], 'last'),
        (MISSING, {}, TWIST_COMMAND, 'zero'),
        (MISSING, VELOCITIES, DESCRIPTION['command'], 'zero'),
        (MISSING, {'units': ['N', 'N m']}, DESCRIPTION['command'], 'zero'),
        (MISSING, {'units': ['rad', 'rad/s']}, DESCRIPTION['command'], ('last', 'zero')),
        ('last', {'units': ['1', 'rad']}, DESCRIPTION['command'], 'last'),
        ('zero', {'units': ['1', '1']}, DESCRIPTION['command'], 'zero'),
        ('zero', VELOCITIES, DESCRIPTION['command'], 'zero'),
        ('zero', {'units': ['rad/step', 'm/step']}, DESCRIPTION['command'], 'zero'),
    ],
)
def test_a_hold_follows_from_the_units(
    hold: object, action: dict, command: dict, expected: str
) -> None:
    assert RobotConfig.from_mapping(with_hold(hold, action, command)).action.hold == expected


@pytest.mark.parametrize(
    ('hold', 'action', 'command', 'message'),
    [
        ('zero', {}, DESCRIPTION['command'], 'would move a robot whose actions have no units'),
        ('zero', {'units': ['rad', 'rad/s']}, DESCRIPTION['command'], r"move 'a.position' \[rad\]"),
        ('last', VELOCITIES, DESCRIPTION['command'], r"would go on with 'a.position' \[rad/s\]"),
        ('last', {'units': ['N', 'N m']}, DESCRIPTION['command'], r"go on with 'a.position' \[N\]"),
        ('last', {}, TWIST_COMMAND, r'would go on with'),
        (MISSING, {'units': ['1', 'rad']}, DESCRIPTION['command'], "'1' of 'a.position' does not"),
        (MISSING, VELOCITIES, TRAJECTORY_COMMAND, 'commands positions: expected m or rad'),
        ('stop', {}, DESCRIPTION['command'], "hold is 'stop', expected one of last, zero"),
        ('zero', {'lower': [0.1, -1.0]}, TWIST_COMMAND, 'holds by zero, which is outside of lower'),
        (MISSING, {'units': ['rad']}, DESCRIPTION['command'], 'expected one for each'),
        (
            MISSING,
            {'units': ['rad', 'deg']},
            DESCRIPTION['command'],
            r"action.units is .*'deg'\], expected[^;]*$",
        ),
        (MISSING, {'units': ['m/s', 'm/s']}, TWIST_COMMAND, 'TwistStamped has'),
    ],
)
def test_a_hold_that_would_move_the_robot_is_refused(
    hold: object, action: dict, command: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        RobotConfig.from_mapping(with_hold(hold, action, command))


def test_every_mistake_of_a_file_is_said_at_once() -> None:
    description = edited('control_rate_hz', 0.0)
    description['command'] = {'topic': '', 'type': FLOAT_ARRAY}
    description['observation']['arm']['max_age_s'] = 'soon'
    with pytest.raises(ConfigError) as caught:
        RobotConfig.from_mapping(description, 'my_robot.yaml')
    assert caught.value.problems == (
        'robot.control_rate_hz is 0.0, expected a number >= 0.01 and <= 10000.0',
        "robot.command.topic is '', expected a ROS name: words of letters, digits and _, / "
        'between them, no digit first',
        "robot.observation.arm.max_age_s is 'soon', expected a number > 0.0 and <= 3600.0",
    )
    assert str(caught.value).startswith('my_robot.yaml: robot.control_rate_hz')


TWIST_3 = {**TWIST_COMMAND, 'fields': ['linear.x', 'linear.y', 'angular.z']}
DISCRETE = {'names': ['left', 'stay', 'right'], 'kind': 'discrete'}


def discrete(command: str = FLOAT_ARRAY, hold: str = '', **action: object) -> dict[str, Any]:
    """Return a robot with discrete actions."""
    described = edited('action', {**DISCRETE, **action})
    described['command'] = {'topic': 'choice', 'type': command}
    if hold:
        described['command']['hold'] = hold
    return described


@pytest.mark.parametrize('command', [FLOAT_ARRAY, INT32])
def test_discrete_actions_need_names_and_nothing_else(command: str) -> None:
    action = RobotConfig.from_mapping(discrete(command, hold_action='stay')).action
    assert action.is_discrete
    assert action.size == 3
    np.testing.assert_array_equal(action.hold_command, [0.0, 1.0, 0.0])
    assert RobotConfig.from_mapping(discrete(command)).action.hold_command is None


@pytest.mark.parametrize(
    ('mapping', 'message'),
    [
        (discrete(lower=[0.0, 0.0, 0.0]), r'robot.action.lower is unknown'),
        (discrete(hold_action='jump'), r"hold_action is 'jump', expected one of left, stay, right"),
        (
            {**discrete(), 'command': TWIST_3},
            r'command.type is .*Twist.*, expected one command of .*Int32',
        ),
        (discrete(hold='last'), r'discrete actions hold by robot.action.hold_action'),
        (discrete(kind='hybrid'), r"robot.action.kind is 'hybrid', expected one of continuous, di"),
        (edited('command.type', INT32), r'carries the index of a discrete action: set robot.actio'),
        (edited('action.hold_action', 'a.position'), r'robot.action.hold_action is unknown'),
    ],
    ids=[
        'limits',
        'no such action',
        'twist',
        'hold',
        'kind',
        'index of continuous actions',
        'hold action of continuous actions',
    ],
)
def test_a_mistake_about_discrete_actions_is_refused(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RobotConfig.from_mapping(mapping)


def test_keys_of_a_camera_say_what_is_done_to_its_images() -> None:
    robot = RobotConfig.from_mapping(edited('observation.tool', CAMERA))
    camera = robot.channels[0]
    calibration = Calibration((50, 0, 20, 0, 50, 20, 0, 0, 1), (-0.1, 0, 0, 0))
    assert camera.preprocessing == ImagePreprocessing(calibration, (40, 40), (20, 20))
    assert camera.observation_names == ()
    assert not camera.has_encoder


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        ({'fields': ['u']}, r"fields is \['u'\], with encoder 'none' expected none"),
        ({'encoder': 'mine.onnx'}, r"fields is \[\], with encoder 'mine.onnx' expected the feat"),
        ({'crop': [1]}, r'tool.crop is \[1\], expected \[height, width\] or'),
        ({'resize': [20.5, 20]}, r'tool.resize is \[20.5, 20\], expected a list of whole numbers'),
        ({'camera_info': 'a.yaml'}, r'tool.camera_info is given beside the calibration itself'),
        ({'distortion_coefficients': []}, r'tool.distortion_coefficients is \[\], expected the 4'),
        (
            {'camera_matrix': [], 'distortion_coefficients': [], 'camera_info': 'no.yaml'},
            r"tool.camera_info 'no.yaml': ",
        ),
    ],
)
def test_wrong_keys_of_a_camera_are_named(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RobotConfig.from_mapping(edited('observation.tool', CAMERA | keys))


def test_a_robot_without_encoders_keeps_its_cameras() -> None:
    robot, _ = load_robot('push_to_goal_camera')
    blind = robot.without_encoders()
    assert blind.observation_names == robot.observation_names[: len(blind.observation_names)]
    assert [c.name for c in blind.channels] == [c.name for c in robot.channels]


def test_a_folder_or_a_dangling_link_is_no_robot_file(tmp_path: Path) -> None:
    folder, dangling = tmp_path / 'folder.yaml', tmp_path / 'dangling.yaml'
    folder.mkdir()
    dangling.symlink_to('/nowhere')
    for path in (folder, dangling):
        with pytest.raises(ConfigError, match='is no regular file'):
            load_robot(str(path))
