# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is on the wire is compared with what the robot YAML says."""

from __future__ import annotations

import array
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState, Joy
from std_msgs.msg import Float64MultiArray, String
from urdf_builders import two_links

from residual_rl_ros.control.takeover_controls import AxisKeys, TakeoverConfig, TakeoverKeys
from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.command import Command
from residual_rl_ros.robot.decoders import message_decoder
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.stop_inputs import StopInput
from residual_rl_ros.robot.topics import FLOAT_ARRAY, IMAGE, JOINT_STATE, NO_ENCODER, TF, Channel
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import to_time
from residual_rl_ros.ros.tools.live_check import (
    _Heard,
    _judge_channel,
    _judge_operator,
    _judge_pad,
    _judge_urdf,
    _Received,
    check_live,
)

pytestmark = pytest.mark.ros

ACTION = ActionSpec(
    names=('a', 'b'),
    lower=np.array([-1.0, -1.0]),
    upper=np.array([1.0, 1.0]),
    max_step=np.array([0.1, 0.1]),
)
POSE = 'geometry_msgs/msg/PoseStamped'
URDF = two_links()
GOAL = {'latched': True, 'stamped_by': 'receipt', 'max_age_s': math.inf}


def robot(*channels: Channel) -> RobotConfig:
    return RobotConfig('bench', 20.0, (Command('commands', FLOAT_ARRAY),), ACTION, channels)


def channel(name: str, topic: str, kind: str = JOINT_STATE, **changes: Any) -> Channel:
    values: dict[str, Any] = {
        'fields': ('position',) if kind == JOINT_STATE else ('position.x',),
        'joints': ('a', 'b') if kind == JOINT_STATE else (),
        'max_age_s': 0.3,
        **changes,
    }
    return Channel(name, topic, kind, **values)


@contextmanager
def publishing(
    domain_id: int, commands: QoSProfile | int = 10, others: dict[str, float] | None = None
) -> Iterator[None]:
    """Publish joint states at 20 Hz, poses stamped a minute ago, and listen for commands.

    Args:
        domain_id: ROS domain.
        commands: QoS of the subscription.
        others: joints that a second node publishes on the same topic.
    """
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node('robot', context=context)
    joints = node.create_publisher(JointState, 'joint_states', 10)
    poses = node.create_publisher(PoseStamped, 'object_pose', 10)
    node.create_publisher(PoseStamped, 'silent_pose', 10)
    node.create_publisher(PoseStamped, 'goal', qos.LATCHED).publish(PoseStamped())
    node.create_publisher(Image, 'image', 10)
    node.create_publisher(String, 'robot_description', qos.LATCHED).publish(String(data=URDF))
    pads = node.create_publisher(Joy, 'joy', 10)
    node.create_publisher(TwistStamped, 'odom_twist', 10)
    node.create_subscription(Float64MultiArray, 'commands', lambda message: None, commands)

    def publish() -> None:
        now = node.get_clock().now().nanoseconds * 1e-9
        state = JointState(name=['b', 'a', 'c'], position=array.array('d', [1.0, 2.0, 3.0]))
        state.header.stamp = to_time(now)
        joints.publish(state)
        if others:
            state = JointState(name=list(others), position=array.array('d', others.values()))
            state.header.stamp = to_time(now)
            other_joints.publish(state)
        pose = PoseStamped()
        pose.header.stamp = to_time(now - 60.0)
        poses.publish(pose)
        pads.publish(Joy(axes=[0.0, 0.0], buttons=[0]))

    second = rclpy.create_node('second', context=context)
    other_joints = second.create_publisher(JointState, 'joint_states', 10)
    node.create_timer(0.05, publish)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown(timeout_sec=1.0)
        thread.join(timeout=2.0)
        node.destroy_node()
        second.destroy_node()
        context.try_shutdown()


def listen(
    domain_id: int, config: RobotConfig, seconds: float = 1.5, **more: Any
) -> InspectionReport:
    report = InspectionReport('bench')
    check_live(config, report, seconds, domain_id=domain_id, **more)
    return report


def node_of(**published: list[str]) -> Any:
    """Return a node that sees who publishes which type on which topic."""
    found = {f'/{topic}': types for topic, types in published.items()}
    return SimpleNamespace(
        resolve_topic_name=lambda name: f'/{name.lstrip("/")}',
        count_publishers=lambda name: len(found.get(name, [])),
        get_publishers_info_by_topic=lambda name: [
            SimpleNamespace(topic_type=kind, node_name='driver', node_namespace='/')
            for kind in found.get(name, [])
        ],
        get_topic_names_and_types=lambda: list(found.items()),
    )


def test_a_robot_that_is_as_described_has_no_problem(domain_id: int) -> None:
    with publishing(domain_id):
        report = listen(
            domain_id,
            robot(
                channel('arm', 'joint_states'),
                channel('object', 'object_pose', POSE, stamped_by='receipt'),
            ),
        )
    assert report.problems == []
    assert ' Hz, age on arrival ' in report.facts['live arm']


def test_every_mistake_has_a_line_that_names_it(domain_id: int) -> None:
    with publishing(domain_id):
        report = listen(
            domain_id,
            replace(
                robot(
                    channel('arm', 'joint_state'),
                    channel('left', 'joint_states', joints=('a', 'elbow')),
                    channel('late', 'object_pose', POSE),
                    channel('silent', 'silent_pose', POSE),
                    channel('twist', 'odom_twist', POSE),
                ),
                stop_inputs=(
                    StopInput('unheard', 'estop', 'std_msgs/msg/Bool', 'data', ('true',)),
                    StopInput('mistaken', 'odom_twist', POSE, 'pose.position', (), 1.0),
                ),
            ),
        )
    arm, left, late, silent, twist, unheard, mistaken = report.problems
    assert "stop input 'unheard' (/estop): nobody publishes it" in unheard
    assert "stop input 'mistaken' (/odom_twist): published as geometry_msgs/msg/Twist" in mistaken
    assert "'arm' (/joint_state): nobody publishes it; similar: /joint_states" in arm
    assert "joints ['elbow'] are not in joint_states" in left
    assert "'late' (/object_pose): a message was 60.0" in late
    assert 'set stamped_by: receipt' in late
    assert "'silent' (/silent_pose): has a publisher, and no message in 1.5 s" in silent
    assert 'published as geometry_msgs/msg/TwistStamped, the robot YAML says' in twist


def test_a_goal_that_was_given_is_heard_and_one_that_was_not_is_remarked(domain_id: int) -> None:
    with publishing(domain_id):
        report = listen(
            domain_id,
            robot(
                channel('goal', 'goal', POSE, **GOAL),
                channel('next', 'next_goal', POSE, **GOAL),
                channel('front', 'image', IMAGE, encoder=NO_ENCODER, camera_info_topic='info'),
            ),
        )
    (problem,) = report.problems
    assert "'front' (/info): nobody publishes it" in problem
    assert 'live goal' in report.facts
    (remark,) = (each for each in report.remarks if 'goal' in each)
    assert "'next' (/next_goal): nobody has given it, and the robot waits for it; sim" in remark


def test_the_frames_between_which_a_transform_is_missing_are_named() -> None:
    hand = Channel(
        *('hand', '/tf', TF, ('position.x',), (), 0.3),
        **{'source_frame': 'hand', 'target_frame': 'camera'},
    )
    for heard, problem in (
        ([TF], "'hand' (/tf): in 1 s no transform between 'hand' and 'camera' has come"),
        ([], "'hand' (/tf): nobody publishes it"),
        ([POSE], f"'hand' (/tf): published as {POSE}, the robot YAML says {TF}"),
    ):
        report, received = InspectionReport('bench'), _Received(decoder=message_decoder(hand))
        _judge_channel(node_of(tf=heard), hand, received, 1.0, robot(hand), report)
        (said,) = report.problems
        assert problem in said


def test_a_command_that_nobody_hears_is_a_problem(domain_id: int) -> None:
    report = listen(domain_id, robot())
    assert report.problems == ['command (/commands): nobody listens']


def test_an_operator_who_sends_messages_of_another_type_is_named() -> None:
    report = InspectionReport('bench')
    node = node_of(**{'takeover/command': ['geometry_msgs/msg/Twist']})
    _judge_operator(node, robot().takeover, report)
    _judge_operator(node_of(), robot().takeover, report)
    assert report.problems == [
        'operator (/takeover/command): published as geometry_msgs/msg/Twist, expected '
        'std_msgs/msg/Float64MultiArray'
    ]


def test_a_controller_that_asks_for_more_than_is_offered_is_not_connected(domain_id: int) -> None:
    with publishing(domain_id, qos.LATCHED):
        report = listen(domain_id, robot(channel('arm', 'joint_states')))
    (problem,) = report.problems
    assert 'robot subscribes with durability TRANSIENT_LOCAL, and is not connected' in problem


def test_drivers_that_share_a_topic_are_no_damage(domain_id: int) -> None:
    with publishing(domain_id, others={'finger': 0.5}):
        report = listen(
            domain_id,
            robot(
                channel('arm', 'joint_states'),
                channel('hand', 'joint_states', joints=('finger',)),
                channel('all', 'joint_states', joints=('finger', 'b', 'a')),
            ),
        )
    assert report.problems == []
    assert report.facts['publishers of /joint_states'] == '/robot, /second'


def test_two_nodes_that_publish_the_same_joint_are_named(domain_id: int) -> None:
    with publishing(domain_id, others={'a': 0.0}):
        (problem,) = listen(domain_id, robot(channel('arm', 'joint_states'))).problems
    assert 'two publishers of ' in problem
    assert problem.endswith('(published by /robot, /second)')


def test_a_joint_that_is_in_no_message_is_a_problem_however_old_it_may_be(domain_id: int) -> None:
    with publishing(domain_id):
        arm = channel('arm', 'joint_states', joints=('a', 'elbow'), max_age_s=60.0)
        other = channel('left', 'joint_states', joints=('left',))
        problems = listen(domain_id, robot(arm, other)).problems
    assert "joints ['elbow'] are in no message of 1.5 s, which had ['a', 'b', 'c']" in problems[0]
    assert "joints ['left'] are in no message" in problems[1]


# --- the URDF on the topic, and an operator's pad


def described(**changes: Any) -> dict[str, Any]:
    """Return what stands below `robot:`, with other keys of its actions."""
    limits = {'lower': [-1.0] * 2, 'upper': [1.0] * 2, 'max_velocity': [1.0] * 2}
    measured = {'names': ['a', 'b'], 'measured_by': ['arm.position.a', 'arm.position.b']}
    arm = {'topic': 'joint_states', 'type': JOINT_STATE, 'fields': ['position'], 'max_age_s': 2.0}
    return {
        'name': 'bench',
        'control_rate_hz': 20.0,
        'command': {'topic': 'commands', 'type': FLOAT_ARRAY},
        'action': {**measured, **limits, **changes.pop('action', {})},
        'observation': {'channels': ['arm'], 'arm': {**arm, 'joints': ['a', 'b']}},
        **changes,
    }


def pad(*controls: str) -> TakeoverConfig:
    axes = tuple(AxisKeys(action=name, control=name, scale=1.0) for name in controls)
    return TakeoverConfig(TakeoverKeys(input='joy', deadman='buttons.0', axes=axes), 'pad.yaml')


def test_a_urdf_and_a_pad_that_fit_are_heard(domain_id: int) -> None:
    pytest.importorskip('pinocchio', reason='needs pinocchio: residual_rl_ros[urdf]')
    mapping = described(robot_description={'urdf': 'topic'})
    config = RobotConfig.from_mapping(mapping)
    with publishing(domain_id):
        report = listen(domain_id, config, described=mapping, takeover=pad('axes.1'))
    assert report.problems == []
    assert report.facts['live robot_description'].startswith('/robot_description has the joints')
    assert report.facts['live takeover'].endswith('has every control')


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        ({'upper': [1.0, 4.0]}, "robot.action.upper of 'b' is 4, beyond 3 of robot_description"),
        ({'max_velocity': [3.0, 1.0]}, "robot.action.max_velocity of 'a' is 3, beyond 2"),
        ({'workspace': {'point': 'hand', 'lower': [-9.0] * 3, 'upper': [9.0] * 3}}, "link 'hand'"),
    ],
)
def test_what_the_urdf_on_the_topic_does_not_allow_is_named(
    changes: dict[str, Any], problem: str
) -> None:
    pytest.importorskip('pinocchio', reason='needs pinocchio: residual_rl_ros[urdf]')
    mapping = described(action=changes, robot_description={'urdf': 'topic'})
    report, config = InspectionReport('bench'), RobotConfig.from_mapping(mapping)
    _judge_urdf(node_of(), [URDF], config, mapping, report)
    (said,) = report.problems
    assert said.startswith('robot_description (/robot_description): ')
    assert problem in said


def test_a_joint_that_the_urdf_on_the_topic_lacks_is_named_and_other_files_are_compared_too(
    tmp_path: Path,
) -> None:
    pytest.importorskip('pinocchio', reason='needs pinocchio: residual_rl_ros[urdf]')
    other, file = URDF.replace('name="b"', 'name="c"'), tmp_path / 'arm.urdf'
    file.write_text(URDF)
    without, of_file = described(), described(robot_description={'urdf': str(file)})
    del of_file['action']['upper']
    for mapping, heard in ((without, URDF), (of_file, URDF), (without, other), (of_file, other)):
        report, config = InspectionReport('bench'), RobotConfig.from_mapping(mapping)
        _judge_urdf(node_of(), [heard], config, mapping, report)
        # A description without a URDF need not agree with one.
        found, none = (report.remarks, report.problems)[:: 1 if mapping is without else -1]
        assert none == []
        assert ["has no joint 'b'; it has a, c" in each for each in found] == [True] * (
            heard is other
        )


def test_a_urdf_that_is_awaited_and_does_not_come_is_a_problem() -> None:
    mapping = described(robot_description={'urdf': 'topic'})
    for node, problem in (
        (node_of(robot_descriptions=['x']), 'nobody publishes it; similar: /robot_descriptions'),
        (node_of(robot_description=['x']), 'has a publisher, and no message: it must latch it'),
    ):
        report, config = InspectionReport('bench'), RobotConfig.from_mapping(mapping)
        _judge_urdf(node, [], config, mapping, report)
        assert problem in report.problems[0]


@pytest.mark.parametrize(
    ('types', 'heard', 'problem'),
    [
        ([], _Heard(), 'takeover (/joy): nobody publishes it: start the driver of the pad'),
        ([POSE], _Heard(), f'published as {POSE}, input joy is sensor_msgs/msg/Joy'),
        (['sensor_msgs/msg/Joy'], _Heard(9, 'has 1 axes'), 'takeover (/joy): has 1 axes'),
        (['sensor_msgs/msg/Joy'], _Heard(1), '1.0 Hz leaves gaps longer than max_age_s 0.25'),
    ],
)
def test_a_pad_with_which_nobody_can_take_over_is_named(
    types: list[str], heard: _Heard, problem: str
) -> None:
    report = InspectionReport('bench')
    _judge_pad(node_of(joy=types), pad('axes.1'), heard, 1.0, report)
    assert problem in report.problems[0]
