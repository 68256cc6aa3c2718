# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What moves a robot must get its part of each command, at its rate; a gripper few goals."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_grippers import REAL, SERVERS, Finger, connect, serve
from geometry_msgs.msg import PoseStamped, Twist, WrenchStamped

from residual_rl_ros.control.real_time_loop import STOP_LIMIT_S
from residual_rl_ros.control.trajectory import Trajectory
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.command import (
    FLOAT,
    GRIPPER,
    POSE,
    TRAJECTORY,
    TWIST,
    WRENCH,
    Command,
    CommandDecoder,
)
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.ros.common.command_outputs import CommandOutputs
from residual_rl_ros.ros.common.command_writers import CommandWriter
from residual_rl_ros.ros.common.gripper_goals import GripperGoals
from residual_rl_ros.ros.common.message_types import message_class


class Node:
    """Keeps what its publishers are given."""

    def __init__(self) -> None:
        self.sent: dict[str, list[Any]] = {}

    def create_lifecycle_publisher(self, kind: Any, topic: str, profile: Any) -> Any:
        del kind, profile
        messages = self.sent.setdefault(topic, [])

        class Publisher:
            publish = staticmethod(messages.append)

        return Publisher()


def outputs_of(node: Node, commands: tuple[Command, ...]) -> CommandOutputs:
    """Return the outputs of a robot with so many actions, at 50 Hz."""
    size = sum(len(command.indices) for command in commands)
    action = ActionSpec.recorded([f'a{index}' for index in range(size)])
    return CommandOutputs(node, commands, action, 0.02, lockstep=False)  # type: ignore[arg-type]


def test_a_slower_command_is_sent_less_often_and_at_once_when_the_robot_holds() -> None:
    node = Node()
    commands = (
        Command('base', TWIST, fields=('linear.x',), indices=(0,), name='base'),
        Command('lamp', FLOAT, indices=(1,), every=3, name='lamp'),
    )
    outputs = outputs_of(node, commands)
    for step in range(5):
        outputs.send(np.array([step, 10.0 * step]), 0.02 * step)
    assert [message.linear.x for message in node.sent['base']] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [message.data for message in node.sent['lamp']] == [0.0, 30.0]
    outputs.send(np.array([0.0, 50.0]), 0.1, holding=True)
    outputs.send(np.array([0.0, 60.0]), 0.12)
    outputs.send(np.array([0.0, 70.0]), 0.14, waiting=True)
    assert [message.data for message in node.sent['lamp'][2:]] == [50.0, 60.0, 70.0]


@pytest.mark.parametrize(
    ('command', 'values'),
    [
        (Command('c', TWIST, fields=('linear.x', 'angular.z')), [0.5, -1.0]),
        (Command('c', WRENCH, fields=('force.z', 'torque.x'), frame_id='tool'), [3.0, 0.25]),
        (Command('c', FLOAT), [0.75]),
        (
            Command('c', POSE, fields=('position.x', 'rotation_vector.z'), frame_id='base'),
            [0.3, 0.5],
        ),
        (
            Command('c', POSE, fields=tuple(f'orientation.{axis}' for axis in 'xyzw')),
            [0.0, 0.6, 0.0, 0.8],
        ),
    ],
)
def test_a_reader_gets_the_values_that_a_writer_was_given(
    command: Command, values: list[float]
) -> None:
    message = CommandWriter(command, 0.05, lockstep=False).message(np.array(values), 2.0)
    read = CommandDecoder(command, len(values)).values(message)
    np.testing.assert_allclose(read, values, atol=1e-12)
    if isinstance(message, (PoseStamped, WrenchStamped)):
        assert (message.header.frame_id, message.header.stamp.sec) == (command.frame_id, 2)


def test_a_pose_has_a_quaternion_of_length_one_or_the_one_before() -> None:
    fields = tuple(f'orientation.{axis}' for axis in 'xyzw')
    down = (1.0, 0.0, 0.0, 0.0)
    command = Command('c', POSE, fields=fields, orientation=down)
    writer = CommandWriter(command, 0.05, lockstep=False)
    long = writer.message(np.array([0.0, 3.0, 0.0, 4.0]), 0.0).pose.orientation
    assert (long.y, long.w) == (0.6, 0.8)
    none = writer.message(np.zeros(4), 0.0).pose.orientation
    assert (none.y, none.w) == (0.6, 0.8)
    still = CommandWriter(
        Command('c', POSE, fields=('position.x',), orientation=down), 0.05, lockstep=False
    )
    assert still.message(np.array([0.1]), 0.0).pose.orientation.x == 1.0


def test_the_negative_of_a_quaternion_and_one_of_no_length_turn_nothing() -> None:
    fields = tuple(f'orientation.{axis}' for axis in 'xyzw')
    writer = CommandWriter(Command('c', POSE, fields=fields), 0.05, lockstep=False)
    sent = [
        writer.message(np.array([x, 0.0, 0.0, 0.0]), 0.0).pose.orientation.x
        for x in (0.5, 0.2, 0.0, -0.3, -0.5)
    ]
    assert sent == [1.0] * 5


class Timers(Node):
    """Has timers that a test fires itself."""

    def __init__(self) -> None:
        super().__init__()
        self.fire: Any = None

    def create_timer(self, period_s: float, callback: Any, clock: Any) -> Any:
        del period_s, clock
        self.fire = callback
        return self

    def destroy_timer(self, timer: Any) -> None:
        del timer
        self.fire = None


def streaming(interpolation: str) -> tuple[CommandOutputs, Timers, list[float], list[str]]:
    """Return outputs that send 10 samples a step, their node, its time and its faults."""
    node, time, faults = Timers(), [100.0], []
    command = Command('c', FLOAT, indices=(0,), samples=10, interpolation=interpolation)
    action = ActionSpec(('a',), np.array([-1.0]), np.array([1.0]), np.array([0.1]))
    outputs = CommandOutputs(node, (command,), action, 0.02, False)  # type: ignore[arg-type]
    outputs.start(None, lambda: time[0], faults.append)  # type: ignore[arg-type]
    return outputs, node, time, faults


@pytest.mark.parametrize('interpolation', ['linear', 'cubic'])
def test_a_stream_arrives_after_the_last_command_and_then_is_silent(interpolation: str) -> None:
    outputs, node, time, _ = streaming(interpolation)
    for value in (0.3, 0.2, 0.1, 0.0):
        outputs.send(np.array([value]), time[0])
        for _ in range(10):
            time[0] += 0.002
            node.fire()
    for _ in range(20):
        time[0] += 0.002
        node.fire()
    sent = [message.data for message in node.sent['c']]
    assert sent[-1] == 0.0
    assert len(sent) < 50
    assert np.abs(np.diff(sent)).max() <= 0.02


def test_a_node_that_stops_lets_a_motion_arrive_without_a_jump() -> None:
    outputs, node, time, _ = streaming('linear')
    outputs.send(np.array([0.0]), time[0])
    outputs.send(np.array([0.1]), time[0])
    for _ in range(3):
        time[0] += 0.002
        node.fire()
    outputs.stop(time[0], sleep=lambda seconds: None)
    outputs.send(np.array([0.1]), time[0], holding=True)
    outputs.finish(STOP_LIMIT_S)
    sent = [message.data for message in node.sent['c']]
    assert sent[-1] == pytest.approx(0.1)
    assert np.abs(np.diff(sent)).max() <= 0.01


def test_a_late_step_goes_on_and_a_robot_that_was_moved_begins_anew() -> None:
    outputs, node, time, _ = streaming('linear')
    outputs.send(np.array([0.0]), time[0])
    outputs.send(np.array([0.1]), time[0])
    time[0] += 0.01
    node.fire()
    time[0] += 0.1  # Five control periods.
    outputs.send(np.array([0.2]), time[0])
    node.fire()
    assert node.sent['c'][-1].data == pytest.approx(0.1)
    outputs.send(np.array([-0.9]), time[0])
    node.fire()
    assert node.sent['c'][-1].data == -0.9


def test_a_stream_turns_on_past_half_a_turn() -> None:
    node, fields = Timers(), ('rotation_vector.x', 'rotation_vector.y', 'rotation_vector.z')
    command = Command('c', POSE, fields=fields, frame_id='base', samples=10, interpolation='linear')
    most = np.full(3, 4.0)
    action = ActionSpec(('x', 'y', 'z'), -most, most, np.full(3, 0.1), orientations=((0, 1, 2),))
    outputs = CommandOutputs(node, (command,), action, 0.02, False)  # type: ignore[arg-type]
    now = 100.0
    outputs.start(None, lambda: now, lambda reason: None)  # type: ignore[arg-type]
    for x in (3.0, 3.1, 3.2 - 2.0 * np.pi, 3.3 - 2.0 * np.pi):
        outputs.send(np.array([x, 0.0, 0.0]), now)
        for _ in range(10):
            now += 0.002
            node.fire()
    turned = [2.0 * np.arctan2(m.pose.orientation.x, m.pose.orientation.w) for m in node.sent['c']]
    steps = np.diff(np.unwrap(turned, period=4.0 * np.pi))
    assert steps.max() <= 0.0101
    assert steps.min() >= 0.0
    assert turned[-1] > 3.2


def test_a_twist_is_all_zero_but_what_is_commanded() -> None:
    command = Command('c', TWIST, fields=('angular.z',))
    message = CommandWriter(command, 0.05, lockstep=False).message(np.array([2.0]), 0.0)
    assert message == Twist(angular=message.angular)
    assert message.angular.z == 2.0


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('JointState', r"'JointState' is no ROS type, expected such as"),
        ('no_such_pkg/msg/Thing', r'needs the package no_such_pkg.*install ros-.*-no-such-pkg'),
        ('std_msgs/msg/Nothing', r'the installed package std_msgs has no msg Nothing'),
        ('os/msg/path', r'is no ROS type'),
    ],
)
def test_a_type_that_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        message_class(name)


class Answer:
    """A future that is done at once, or when it is told to be."""

    def __init__(self, value: Any, late: bool = False) -> None:
        self.value = value
        self._late = late
        self._callback: Any = None

    def result(self) -> Any:
        return self.value

    def add_done_callback(self, callback: Any) -> None:
        self._callback = callback
        if not self._late:
            self.arrive()

    def arrive(self) -> None:
        self._callback(self)


def test_a_trajectory_has_the_way_on_if_it_is_known_and_else_one_point() -> None:
    node = Node()
    arm = Command('arm', TRAJECTORY, joints=('b', 'a'), indices=(2, 0), every=2, horizon_steps=3)
    outputs = outputs_of(node, (arm, Command('rest', FLOAT, indices=(1,), name='rest')))
    assert outputs.horizon_steps == 3
    points = np.arange(6.0).reshape(2, 3)
    outputs.send(points[0], 1.0, trajectory=Trajectory(points, 10.0 * points))
    outputs.send(points[0], 1.02, holding=True, trajectory=Trajectory(points[1:], np.zeros((1, 3))))
    outputs.send(points[0], 1.04, trajectory=Trajectory(points[:1], None))
    several, hold, one = node.sent['arm']
    assert several.joint_names == ['b', 'a']
    assert [list(each.positions) for each in several.points] == [[2.0, 0.0], [5.0, 3.0]]
    assert [list(each.velocities) for each in several.points] == [[20.0, 0.0], [50.0, 30.0]]
    times = [each.time_from_start.nanosec for each in several.points]
    assert times == [20_000_000, 40_000_000]  # Each control step, however often it is sent.
    assert [list(hold.points[0].positions), list(hold.points[0].velocities)] == [[5.0, 3.0], [0, 0]]
    assert (len(one.points), list(one.points[0].velocities)) == (1, [])
    assert CommandDecoder(arm, 2).values(several).tolist() == [2.0, 0.0]
    assert [message.data for message in node.sent['rest']] == [1.0] * 3


class Handle:
    """A goal that a server has answered."""

    def __init__(self, accepted: bool, late: bool = False) -> None:
        self.accepted = accepted
        self.cancelled = 0
        self.answer = Answer(None, late)

    def cancel_goal_async(self) -> Answer:
        self.cancelled += 1
        return self.answer


class Server:
    """Answers goals at once, or when it is told to."""

    def __init__(self, late: bool = False) -> None:
        self.goals: list[float] = []
        self.accepts = self.ready = True
        self.there = frozenset({b'first'})
        self.late = late
        self.answers: list[Answer] = []

    @property
    def handle(self) -> Handle:
        """The latest goal's."""
        return self.answers[-1].value

    def send(self, values: np.ndarray, now: float) -> Answer:
        del now
        self.goals.append(float(values[0]))
        self.answers.append(Answer(Handle(self.accepts, self.late), self.late))
        return self.answers[-1]


HAND = Command('hand', GRIPPER, threshold=0.01, min_interval_s=0.2)


def driven(
    server: Server, positions: list[float], goals: GripperGoals | None = None, begin: float = 100.0
) -> GripperGoals:
    """Return the goals of a gripper that is told positions at 50 Hz."""
    goals = goals or GripperGoals(HAND, lambda: server.ready, lambda: server.there, server.send)
    for step, position in enumerate(positions):
        goals.take(np.array([position]), begin + 0.02 * step)
    return goals


def test_a_gripper_gets_a_goal_where_its_command_changes_and_not_too_often() -> None:
    server = Server()
    driven(server, [0.0] * 5 + [0.005] * 20 + [0.02, 0.03, 0.04] + [0.05] * 30)
    assert server.goals == [0.0, 0.02, 0.05]


def test_a_hold_cancels_the_goal_once_and_what_follows_is_a_goal_again() -> None:
    server = Server()
    goals = driven(server, [0.0])
    handle = server.handle
    goals.cancel()
    goals.cancel()
    assert handle.cancelled == 1
    goals.take(np.array([0.0]), 101.0)
    assert server.goals == [0.0, 0.0]


def test_a_refused_goal_is_counted_and_tried_again() -> None:
    server = Server()
    server.accepts = False
    goals = driven(server, [0.03] * 25)
    assert (goals.goals, goals.refused) == (3, 3)


def test_a_goal_that_is_accepted_after_a_hold_began_is_cancelled() -> None:
    server = Server(late=True)
    goals = driven(server, [0.0])
    goals.cancel()
    assert not goals.settled
    server.answers[0].arrive()
    assert server.handle.cancelled == 1
    assert not goals.settled
    server.handle.answer.arrive()
    assert goals.settled
    goals.take(np.array([0.0]), 101.0)
    goals.take(np.array([0.1]), 102.0)
    first, second = (answer.value for answer in server.answers[1:])
    for answer in server.answers[1:]:
        answer.arrive()
    assert (first.cancelled, second.cancelled) == (0, 0)
    goals.cancel()
    assert (first.cancelled, second.cancelled) == (0, 1)


def test_a_server_that_comes_back_gets_the_goal_of_now() -> None:
    server = Server()
    goals = driven(server, [0.03] * 100)
    assert server.goals == [0.03]
    server.there = frozenset()
    driven(server, [0.03] * 50, goals, begin=102.0)
    server.there, server.ready = frozenset({b'second'}), False  # Not all of it is found yet.
    driven(server, [0.03] * 50, goals, begin=103.0)
    assert server.goals == [0.03]
    server.ready = True
    driven(server, [0.03] * 50, goals, begin=104.0)
    assert server.goals == [0.03, 0.03]
    server.there |= {b'third'}  # The second has died, and nobody has noticed yet.
    driven(server, [0.03] * 50, goals, begin=105.0)
    server.there = frozenset({b'third'})
    driven(server, [0.03] * 50, goals, begin=106.0)
    assert server.goals == [0.03] * 3


def test_a_goal_that_nobody_answers_is_sent_again() -> None:
    server = Server(late=True)
    said: list[str] = []
    goals = GripperGoals(HAND, lambda: True, lambda: server.there, server.send, said.append)
    driven(server, [0.03] * 40, goals)
    assert server.goals == [0.03]
    driven(server, [0.03] * 40, goals, begin=100.8)
    assert server.goals == [0.03] * 2
    assert said == ['hand: the action server does not answer']
    server.answers[-1].arrive()
    driven(server, [0.03] * 100, goals, begin=101.6)
    assert server.goals == [0.03] * 2


class GripperNode(Node):
    """Sees the grippers of this process."""

    made = ExitStack()

    def resolve_topic_name(self, name: str) -> str:
        return f'/{name}'

    def get_publishers_info_by_topic(self, topic: str) -> list[Any]:
        finger = SERVERS.get(topic.removesuffix('/_action/status'))
        return [] if finger is None else [SimpleNamespace(endpoint_gid=id(finger).to_bytes(8))]


def test_a_driver_that_is_started_again_moves_its_gripper_and_one_that_stops_cancels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if REAL:
        pytest.skip('real action servers take its place: test_gripper_actions.py')
    connect(monkeypatch)
    node: Any = GripperNode()
    outputs = outputs_of(node, (Command('hand', GRIPPER, indices=(0,), name='hand'),))
    fingers = Finger(0.0, 1.0), Finger(0.0, 1.0)
    for turn, finger in enumerate(fingers):
        end = serve(node, 'hand', finger)
        for step in range(50):
            outputs.send(np.array([0.05]), turn + 0.02 * step)
        if turn == 0:
            end()
    assert [finger.goals for finger in fingers] == [[(0.05, 0.0)]] * 2
    outputs.stop(102.0)
    fingers[1].step(0.02)
    end()
    assert [finger.cancelled for finger in fingers] == [0, 1]
    assert outputs.unanswered() == []


def test_without_a_server_the_newest_command_waits() -> None:
    server = Server()
    server.ready = False
    goals = driven(server, [0.01, 0.02])
    assert (server.goals, goals.unsent) == ([], 2)
    server.ready = True
    driven(server, [0.04], goals)
    assert server.goals == [0.04]


def test_an_array_keeps_its_place_among_several_commands() -> None:
    node = Node()
    commands = (
        Command('rest', FLOAT, indices=(1,), name='rest'),
        Command('arm', FLOAT_ARRAY, indices=(2, 0), name='arm'),
    )
    outputs = outputs_of(node, commands)
    outputs.send(np.array([1.0, 2.0, 3.0]), 0.0)
    reader = CommandDecoder(commands[1], 2)
    from rclpy.serialization import deserialize_message

    sent = node.sent['arm'][0]
    message = deserialize_message(sent, message_class(FLOAT_ARRAY))
    assert reader.values(message).tolist() == [3.0, 1.0]
