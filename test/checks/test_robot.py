# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The owner of a robot learns what its description says before anything moves."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from residual_rl_ros.checks.robot import check_robot
from residual_rl_ros.control.takeover_controls import ButtonKeys, load_takeover
from residual_rl_ros.resources import resource_path
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.robot.image_preprocessing import DepthScale, ImagePreprocessing
from residual_rl_ros.robot.preparation_spec import HomeKeys, ResetSpec, home_of
from residual_rl_ros.robot.stop_inputs import StopInput
from residual_rl_ros.robot.topics import IMAGE, JOY, LASER_SCAN, NO_ENCODER, POSE, TF, Channel

ROBOTS = sorted(path.stem for path in resource_path('config', 'robots').glob('*.yaml'))


@pytest.mark.parametrize('name', ROBOTS)
def test_a_shipped_robot_is_usable(name: str) -> None:
    robot, path = load_robot(name)
    report = check_robot(robot, str(path))
    assert report.problems == []
    assert report.facts['robot'].startswith(name)
    assert len([fact for fact in report.facts if fact.startswith('channel ')]) == len(
        robot.channels
    )


def test_facts_say_topics_limits_and_ages() -> None:
    robot, _ = load_robot('ur_forward_position')
    facts = check_robot(robot, 'ur').facts
    assert facts['command'] == (
        'forward_position_controller/commands (std_msgs/msg/Float64MultiArray)'
    )
    assert 'elbow_joint.position in [0, 3.142], at most 1 per second' in facts['6 actions']
    assert facts['channel wrench'].endswith('6 values, at most 0.04 s old by its header')


def test_home_and_reset_are_said_and_a_home_outside_of_the_workspace_is_a_problem() -> None:
    robot, _ = load_robot('ur_forward_position')
    reset = ResetSpec(command=('sh', 'reset.sh'), settle_s=2.0)
    above = dict(zip(robot.action.names, [0.0, -1.2, 1.6, -2.0, -1.57, 0.0], strict=True))
    home = home_of(HomeKeys(positions=above), robot.action, 0.02)
    report = check_robot(replace(robot, home=home, reset=reset), 'ur')
    assert report.problems == []
    assert 'between_episodes: shoulder_pan_joint.position 0, ' in report.facts['home']
    assert report.facts['reset'] == 'sh reset.sh, then 2 s to settle'
    outside = replace(home, goal=np.zeros(6))
    (problem,) = check_robot(replace(robot, home=outside), 'ur').problems
    assert problem.startswith('robot.home.positions bring tool0 to ')
    far = replace(home, tolerance=np.array([1000.0, *home.tolerance[1:]]))
    missing = replace(reset, command=('./no_such.sh',))
    report = check_robot(replace(robot, home=far, reset=missing), 'ur')
    assert report.problems[0].startswith("robot.reset.command './no_such.sh' is no program")
    assert 'tolerance of shoulder_pan_joint.position is larger than its range' in report.remarks[0]


def test_a_base_policy_is_compared_by_name() -> None:
    robot, _ = load_robot('peg_insert')
    report = check_robot(robot, 'peg', 'peg_insert')
    assert report.facts['base policy'] == 'peg_insert fits'
    assert 'more than 20 times what the base policy was trained on' in report.remarks[-1]
    (problem,) = check_robot(robot, 'peg', 'push_to_goal').problems
    assert 'names differ' in problem
    (problem,) = check_robot(robot, 'peg', 'gpt').problems
    assert "unknown base policy 'gpt'" in problem


@pytest.mark.parametrize(
    ('channel', 'fact'),
    [
        (
            Channel('c', 'scan', LASER_SCAN, (), (), 0.2, beams=12, frame_id='laser'),
            'scan (sensor_msgs/msg/LaserScan), 12 values, at most 0.2 s old by its header, '
            'in laser',
        ),
        (
            Channel('c', 'joy', JOY, ('axes.0', 'buttons.9'), (), 0.2),
            'joy (sensor_msgs/msg/Joy), 2 values, at most 0.2 s old by its header',
        ),
    ],
)
def test_fields_that_only_a_message_can_show_are_no_problem(channel: Channel, fact: str) -> None:
    robot, _ = load_robot('peg_insert')
    report = check_robot(replace(robot, channels=(robot.channels[0], channel)), 'peg')
    assert report.problems == []
    assert report.facts['channel c'] == fact


@pytest.mark.parametrize(
    ('channel', 'end'),
    [
        (
            Channel(
                *('c', '/tf', TF, ('position.x',), (), 0.2),
                **{'source_frame': 'tool0', 'target_frame': 'base_link'},
            ),
            '1 values, at most 0.2 s old by its header, tool0 in base_link',
        ),
        (
            Channel('c', 'goal', POSE, ('position.x',), (), math.inf, latched=True),
            '1 values, given once, changes count from the next episode on',
        ),
        (
            Channel(
                *('c', 'depth', IMAGE, (), (), 0.2, NO_ENCODER),
                preprocessing=ImagePreprocessing(depth=DepthScale(0.5, 2.0)),
                camera_info_topic='info',
            ),
            'distances from 0.5 to 2 m as grey levels, undistorted by info',
        ),
    ],
)
def test_facts_say_frames_goals_and_distances(channel: Channel, end: str) -> None:
    robot, _ = load_robot('peg_insert')
    report = check_robot(replace(robot, channels=(robot.channels[0], channel)), 'peg')
    assert report.problems == []
    assert report.facts['channel c'].endswith(end)


def test_what_limits_nothing_is_remarked() -> None:
    robot, _ = load_robot('peg_insert')
    action = robot.action
    loose = replace(
        robot,
        action=replace(action, max_step=np.full(action.size, 10.0), measured_by=()),
        channels=(replace(robot.channels[0], max_age_s=0.01),),
    )
    stale, first, slew = check_robot(loose, 'peg').remarks
    assert "'arm': max_age_s 0.01 is less than a control period (0.05 s)" in stale
    assert 'action.measured_by is missing' in first
    assert 'allows the whole range within one control step' in slew


def test_degrees_and_old_measurements_are_remarked() -> None:
    robot, _ = load_robot('ur_forward_position')
    assert not any('two turns' in said for said in check_robot(robot, 'ur').remarks)
    turns = np.where(np.arange(6) == 1, 180.0, robot.action.upper)
    old = tuple(replace(each, max_age_s=200.0) for each in robot.channels)
    wrong = replace(robot, action=replace(robot.action, upper=turns), channels=old)
    remarks = check_robot(wrong, 'ur').remarks
    assert any('of shoulder_lift_joint.position allow more than two turns' in r for r in remarks)
    (age,) = (said for said in remarks if 'max_age_s' in said)
    assert age.startswith('observation.arm.max_age_s is 200: the robot moves on measurements')


def test_a_workspace_in_millimetres_is_remarked() -> None:
    robot, _ = load_robot('ur_forward_position')
    box = robot.action.workspace
    assert box is not None
    assert not any('workspace' in said for said in check_robot(robot, 'ur').remarks)
    large = replace(box, lower=np.full(3, -np.inf), upper=1000.0 * np.ones(3))
    wrong = replace(robot, action=replace(robot.action, workspace=large))
    (remark,) = (said for said in check_robot(wrong, 'ur').remarks if 'workspace' in said)
    assert remark.startswith('workspace reaches to 1000 m')


def test_it_is_said_when_a_stop_input_holds() -> None:
    robot, _ = load_robot('ur_forward_position')
    stop = StopInput('force', 'wrench', 'geometry_msgs/msg/WrenchStamped', 'wrench.force')
    stops = (replace(stop, limit=50.0, max_age_s=0.1), replace(stop, name='mode', bad=('3', '5')))
    facts = check_robot(replace(robot, stop_inputs=stops), 'ur').facts
    held = 'geometry_msgs/msg/WrenchStamped; holds while wrench wrench.force is '
    assert facts['stop input force'] == f'{held}beyond 50 or is older than 0.1 s'
    assert facts['stop input mode'] == f'{held}3 or is 5'


def test_a_gripper_that_moves_at_its_own_speed_is_not_remarked() -> None:
    robot, _ = load_robot('ur5e_robotiq')
    assert check_robot(robot, 'ur5e').remarks == []
    plain = replace(robot, commands=(robot.commands[0],))
    (remark,) = check_robot(plain, 'ur5e').remarks
    assert 'max_velocity of gripper.position allows' in remark


def test_discrete_actions_are_named_and_a_missing_hold_action_is_remarked() -> None:
    robot, _ = load_robot('push_to_goal')
    chosen = replace(robot, action=ActionSpec.discrete(('left', 'stay'), 'stay'))
    report = check_robot(chosen, 'chosen')
    assert report.facts['2 discrete actions'] == 'left, stay'
    assert report.facts['hold'] == 'by stay command'
    assert not report.remarks
    (remark,) = check_robot(replace(robot, action=ActionSpec.discrete(('a', 'b'))), 'any').remarks
    assert 'action.hold_action is missing' in remark


def test_an_encoder_that_cannot_be_loaded_is_a_problem() -> None:
    robot, _ = load_robot('push_to_goal_camera')
    camera = replace(robot.channels[-1], encoder='nowhere.onnx')
    report = check_robot(replace(robot, channels=(*robot.channels[:-1], camera)), 'camera')
    assert report.problems == [
        "image encoder 'nowhere.onnx' does not exist; give the path of an .onnx file"
    ]


@pytest.mark.parametrize(
    ('kind', 'good', 'bad'),
    [
        (
            'geometry_msgs/msg/PoseStamped',
            ['position.x', 'orientation.w'],
            ['position.w', 'pose.position.x', 'position', 'x', ''],
        ),
        (
            'geometry_msgs/msg/PoseWithCovarianceStamped',
            ['position.x', 'orientation.w'],
            ['pose.position.x', 'covariance'],
        ),
        ('std_msgs/msg/Float64', ['data'], ['value']),
        ('std_msgs/msg/Bool', ['data'], ['value']),
        ('geometry_msgs/msg/TwistStamped', ['linear.x', 'angular.z'], ['twist.linear.x', 'linear']),
        ('geometry_msgs/msg/WrenchStamped', ['force.z', 'torque.x'], ['force.w', 'force.x.y']),
        (
            'nav_msgs/msg/Odometry',
            ['pose.pose.position.x', 'twist.twist.angular.z'],
            ['pose.position.x', 'pose.covariance', 'child_frame_id', 'header.frame_id'],
        ),
        (
            'sensor_msgs/msg/Imu',
            ['orientation.x', 'angular_velocity.z', 'linear_acceleration.y'],
            ['orientation', 'acceleration.x', 'orientation_covariance'],
        ),
    ],
)
def test_fields_that_a_message_type_does_not_have_are_problems(
    kind: str, good: list[str], bad: list[str]
) -> None:
    robot, _ = load_robot('peg_insert')
    channel = Channel('tool', 'tool_pose', kind, (*good, *bad), (), 0.2)
    report = check_robot(replace(robot, channels=(robot.channels[0], channel)), 'peg')
    assert report.problems == [f"channel 'tool': {kind} has no number {field!r}" for field in bad]


def test_what_an_operator_can_do_with_his_pad_is_said_and_what_he_cannot_is_remarked() -> None:
    robot, _ = load_robot('ur_forward_position')
    takeover, _ = load_takeover('gamepad')
    report = check_robot(robot, 'ur', takeover=takeover)
    assert 'joy joy, deadman buttons.9' in report.facts['takeover']
    assert 'wrist_1_joint.position by buttons.12 and buttons.11' in report.facts['takeover']
    (remark,) = report.remarks
    assert remark.endswith('buttons.go_home is refused: the robot has no robot.home')
    keys = replace(takeover.keys, axes=takeover.keys.axes[1:], buttons=ButtonKeys())
    still, hold = check_robot(robot, 'ur', takeover=replace(takeover, keys=keys)).remarks
    assert 'nothing moves shoulder_pan_joint.position' in still
    assert 'buttons.hold is missing' in hold
