# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Drivers of the robots that are ready, written from the public interfaces of the real ones.

They have the topics, parameters, names and rules of those, and no physics: what is commanded is
reached at a limited speed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from fake_grippers import Finger, connect, serve, stand_in
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import to_time
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.nodes.policy_node import PolicyNode

RATE_HZ = 100.0
"""How often a driver publishes, and moves."""
CAMERA_RATE_HZ = 15.0
UR_JOINTS = ('shoulder_pan_joint', 'shoulder_lift_joint', 'elbow_joint')
UR_JOINTS += ('wrist_1_joint', 'wrist_2_joint', 'wrist_3_joint')
FR3_JOINTS = tuple(f'fr3_joint{index}' for index in range(1, 8))
SO101_JOINTS = ('shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'wrist_roll')
ACTIVITY = 'controller_manager_msgs/msg/ControllerManagerActivity'
CONTROLLER_STATE = 'controller_manager_msgs/msg/ControllerState'
LIST_CONTROLLERS = 'controller_manager_msgs/srv/ListControllers'
SAFETY = 'ur_dashboard_msgs/msg/SafetyMode'
FRANKA = 'franka_msgs/msg/FrankaRobotState'
INSTALLED = {
    each for each in (ACTIVITY, SAFETY, FRANKA) if find_spec(each.partition('/')[0]) is not None
}
LOCAL: dict[str, list[Callable[[Any], None]]] = {}
"""Who listens to topics whose package is not installed."""


class ControllerManagerActivity:
    """What the message of this name has."""

    def __init__(self) -> None:
        self.controllers: list[Any] = []


class SafetyMode:
    """What the message of this name has."""

    def __init__(self) -> None:
        self.mode = 0


class FrankaRobotState:
    """What of the message of this name is used."""

    def __init__(self) -> None:
        self.robot_mode = 0


def stand_ins(patch: pytest.MonkeyPatch) -> None:
    """Have what is not installed within this process."""
    connect(patch)
    for kind in (ControllerManagerActivity, SafetyMode, FrankaRobotState):
        name = next(each for each in (ACTIVITY, SAFETY, FRANKA) if each.endswith(kind.__name__))
        if name not in INSTALLED:
            stand_in(patch, name.partition('/')[0] + '.msg', kind)
    create = PolicyNode.create_subscription

    def subscribe(
        node: Any, kind: Any, topic: str, callback: Any, *rest: Any, **options: Any
    ) -> Any:
        if kind in (ControllerManagerActivity, SafetyMode, FrankaRobotState):
            LOCAL.setdefault(node.resolve_topic_name(topic), []).append(callback)
            return None
        return create(node, kind, topic, callback, *rest, **options)

    patch.setattr(PolicyNode, 'create_subscription', subscribe)
    LOCAL.clear()


class Output:
    """A publisher, or its stand-in, which tells a new listener what was said last, as latched."""

    def __init__(self, node: Node, kind: str, topic: str) -> None:
        self._kind, self._topic = message_class(kind), node.resolve_topic_name(topic)
        self._latest: Any = None
        self._said = 0
        self._told: set[int] = set()
        is_local = self._kind.__module__ == __name__
        self._publisher = (
            None if is_local else node.create_publisher(self._kind, topic, qos.LATCHED)
        )

    def say(self, **fields: Any) -> None:
        self._latest = self._kind()
        for name, value in fields.items():
            setattr(self._latest, name, value)
        self._said = time.time_ns()
        self._told.clear()
        if self._publisher is not None:
            self._publisher.publish(self._latest)

    def step(self) -> None:
        if self._publisher is None and self._latest is not None:
            for callback in LOCAL.get(self._topic, ()):
                if id(callback) not in self._told:
                    self._told.add(id(callback))
                    callback(self._latest, {'source_timestamp': self._said})


def named_state(name: str, label: str) -> Any:
    """Return what the activity of a controller manager says of a controller."""
    if ACTIVITY not in INSTALLED:
        return SimpleNamespace(name=name, state=SimpleNamespace(label=label))
    state = message_class('controller_manager_msgs/msg/NamedLifecycleState')(name=name)
    state.state.label = label
    return state


def check_trajectory(message: JointTrajectory, joints: Sequence[str]) -> None:
    """Assert what joint_trajectory_controller asks of a trajectory, as its parameters come."""
    assert sorted(message.joint_names) == sorted(joints)
    assert message.header.stamp == Time()  # It begins at once; else its end is to be in the future.
    starts = [point.time_from_start for point in message.points]
    times = [0.0, *(each.sec + 1e-9 * each.nanosec for each in starts)]
    assert (np.diff(times) > 0.0).all()
    for point in message.points:
        assert len(point.positions) == len(joints)
        assert len(point.velocities) in (0, len(joints))
        assert not point.effort
    assert not any(message.points[-1].velocities)


class Driver:
    """Nodes in a thread of their own."""

    def __init__(self, domain_id: int, nodes: Sequence[str]) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._executor = SingleThreadedExecutor(context=self._context)
        self.nodes = [
            rclpy.create_node(
                name, context=self._context, allow_undeclared_parameters=True, enable_rosout=False
            )
            for name in nodes
        ]
        for node in self.nodes:
            self._executor.add_node(node)
        self._closing: list[Callable[[], Any]] = []
        self.commands: list[np.ndarray] = []
        """What the arm or the base was told."""
        self.messages: list[Any] = []
        """The messages of an arm that said so."""
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def start(self) -> None:
        self.nodes[0].create_timer(1.0 / RATE_HZ, self.step)
        self._thread.start()

    def step(self) -> None:
        """Move, and publish."""
        raise NotImplementedError

    def stamp(self) -> Any:
        return to_time(self.nodes[0].get_clock().now().nanoseconds * 1e-9)

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(timeout=3.0)
        for close in self._closing:
            close()
        for node in self.nodes:
            node.destroy_node()
        self._context.try_shutdown()


@dataclass(frozen=True)
class Arm:
    """The interface of an arm with a gripper."""

    joints: tuple[str, ...]
    start: tuple[float, ...]
    states: str
    controller: str
    topic: str
    kind: Any
    """Class of the commands."""
    gripper: str
    """Its action."""
    gripper_states: str
    gripper_joint: str
    gripper_start: float
    gripper_end: float
    gripper_speed: float
    shares_node: bool = False
    """The joint of the gripper is in the same messages as those of the arm."""
    parameters: dict[str, Any] = field(default_factory=dict)


ARMS = {
    'ur5e_robotiq': Arm(
        UR_JOINTS,
        (0.0, -1.2, 1.6, -2.0, -1.57, 0.0),
        'joint_states',
        'forward_position_controller',
        'forward_position_controller/commands',
        Float64MultiArray,
        'robotiq_gripper_controller/gripper_cmd',
        'joint_states',
        'robotiq_85_left_knuckle_joint',
        0.0,
        0.8,
        2.0,
        parameters={'interface_name': 'position'},
    ),
    'fr3': Arm(
        FR3_JOINTS,
        (0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785),
        'franka/joint_states',
        'joint_impedance_controller',
        'target_joint',
        JointState,
        'franka_gripper/gripper_action',
        'franka_gripper/joint_states',
        'fr3_finger_joint1',
        0.039,
        0.0,
        0.1,
    ),
    'so101': Arm(
        SO101_JOINTS,
        (0.0, -1.0, 1.0, 0.5, 0.0),
        'joint_states',
        'arm_controller',
        'arm_controller/joint_trajectory',
        JointTrajectory,
        'gripper_controller/gripper_cmd',
        'joint_states',
        'gripper',
        0.0,
        1.7,
        4.0,
        shares_node=True,
        parameters={'allow_partial_joints_goal': False},
    ),
}
ARMS['ur5e_robotiq_cameras'] = ARMS['ur5e_robotiq']
CAMERAS = {'ur5e_robotiq_cameras': ('front', 'wrist')}


class ArmDriver(Driver):
    """An arm behind a controller of ros2_control, and a gripper."""

    speed = 2.0
    """Of each joint [rad/s]."""

    def __init__(
        self, domain_id: int, name: str, gripper: bool = True, tells_status: bool = True
    ) -> None:
        self.arm = arm = ARMS[name]
        self._gripper = arm.gripper.partition('/')[0]
        names = ['joint_state_broadcaster', arm.controller, 'controller_manager', self._gripper]
        super().__init__(
            domain_id, [*names, 'io_and_status_controller'][: 5 if name.startswith('ur') else 4]
        )
        arm_states, controller, manager, hand = self.nodes[:4]
        self._states = arm_states.create_publisher(JointState, arm.states, 10)
        self._hand_states = hand.create_publisher(JointState, arm.gripper_states, 10)
        controller.declare_parameter('joints', list(arm.joints))
        for key, value in arm.parameters.items():
            controller.declare_parameter(key, value)
        controller.create_subscription(arm.kind, arm.topic, self._obey, 1)
        self._activity = Output(manager, ACTIVITY, 'controller_manager/activity')
        self._outputs = [self._activity]
        self.states = {arm.controller: 'active', self._gripper: 'active'}
        """Of the controllers, by name."""
        if ACTIVITY in INSTALLED:
            kind = message_class(LIST_CONTROLLERS)
            manager.create_service(kind, '~/list_controllers', self._list_controllers)
        self.finger = Finger(arm.gripper_start, arm.gripper_speed)
        if gripper:
            self._closing.append(serve(hand, arm.gripper, self.finger))
        if name.startswith('ur5e'):
            status = self.nodes[4]
            self._safety = Output(status, SAFETY, 'io_and_status_controller/safety_mode')
            self._outputs.append(self._safety)
            self._program = status.create_publisher(
                Bool, 'io_and_status_controller/robot_program_running', qos.LATCHED
            )
            if tells_status:
                self.safety_mode(1)
                self.program(True)
        if name == 'fr3':
            self._mode = Output(arm_states, FRANKA, 'franka_robot_state_broadcaster/robot_state')
            self._outputs.append(self._mode)
            self._mode.say(robot_mode=2)
        self._cameras = [
            arm_states.create_publisher(Image, f'camera/{camera}/color/image_raw', 10)
            for camera in CAMERAS.get(name, ())
        ]
        self._image = Image(height=480, width=640, step=1920, encoding='rgb8')
        self._image.data = np.full(480 * 1920, 100, np.uint8).tobytes()
        arm_states.create_timer(1.0 / CAMERA_RATE_HZ, self._look)
        self.switch('active')
        self.reset()
        self.start()

    def _look(self) -> None:
        """Publish what the cameras see: grey."""
        self._image.header.stamp = self.stamp()
        for camera in self._cameras:
            camera.publish(self._image)

    def switch(self, label: str) -> None:
        """Activate or deactivate the controller."""
        self.active = label == 'active'
        self.states[self.arm.controller] = label
        self._activity.say(controllers=[named_state(*each) for each in self.states.items()])

    def _list_controllers(self, request: Any, response: Any) -> Any:
        del request
        for name, state in self.states.items():
            response.controller.append(message_class(CONTROLLER_STATE)(name=name, state=state))
        return response

    def unload(self) -> None:
        """Have the controller listen no more."""
        (commands,) = self.nodes[1].subscriptions
        self._executor.create_task(self.nodes[1].destroy_subscription, commands)

    def safety_mode(self, mode: int) -> None:
        self._safety.say(mode=mode)

    def program(self, running: bool) -> None:
        self._program.publish(Bool(data=running))

    def reset(self) -> None:
        """Bring the arm to where it starts."""
        self.positions = self._target = np.array(self.arm.start)
        self.finger.position = self.finger._target = self.arm.gripper_start

    def _obey(self, message: Any) -> None:
        """Take a command, as the controller does."""
        joints = self.arm.joints
        if isinstance(message, Float64MultiArray):
            values = np.array(message.data)
        elif isinstance(message, JointTrajectory):
            check_trajectory(message, joints)
            values = np.array(message.points[0].positions)[
                [message.joint_names.index(joint) for joint in joints]
            ]
        else:  # By their order, whatever the names.
            values = np.array(message.position)
        assert values.shape == (len(joints),)
        self.commands.append(values)
        self.messages.append(message)
        if self.active:
            self._target = values

    def step(self) -> None:
        reach = self.speed / RATE_HZ
        before = self.positions
        self.positions = np.clip(self._target, before - reach, before + reach)
        self.finger.step(1.0 / RATE_HZ)
        state = dict(zip(self.arm.joints, self.positions.tolist(), strict=True))
        hand = {self.arm.gripper_joint: self.finger.position}
        self._publish(self._states, state | hand if self.arm.shares_node else state)
        if not self.arm.shares_node:
            self._publish(self._hand_states, hand)
        for output in self._outputs:
            output.step()
            if output is getattr(self, '_mode', None):
                output.say(robot_mode=2)

    def _publish(self, publisher: Any, state: dict[str, float]) -> None:
        names = sorted(state)
        message = JointState(
            name=names, position=[state[name] for name in names], velocity=[0.0] * len(names)
        )
        message.header.stamp = self.stamp()
        publisher.publish(message)


class BaseDriver(Driver):
    """A differential drive that stops when nobody has commanded it for half a second."""

    def __init__(self, domain_id: int, name: str) -> None:
        super().__init__(domain_id, ['diff_drive_controller'])
        kind = TwistStamped if name.endswith('stamped') else Twist
        self._odometry = self.nodes[0].create_publisher(Odometry, 'odom', 10)
        self.nodes[0].create_subscription(kind, 'cmd_vel', self._obey, 10)
        self.reset()
        self.start()

    def reset(self) -> None:
        """Put the robot where it starts."""
        self.x, self.speeds, self._told_at = 0.0, np.zeros(2), 0.0

    def _obey(self, message: Any) -> None:
        if isinstance(message, TwistStamped):
            age = self.nodes[0].get_clock().now() - rclpy.time.Time.from_msg(message.header.stamp)
            assert message.header.frame_id
            assert age.nanoseconds < 5e8
            message = message.twist
        self.speeds = np.array([message.linear.x, message.angular.z])
        self.commands.append(self.speeds)
        self._told_at = time.monotonic()

    def step(self) -> None:
        if time.monotonic() - self._told_at > 0.5:
            self.speeds = np.zeros(2)
        self.x += float(self.speeds[0]) / RATE_HZ
        message = Odometry(child_frame_id='base_link')
        message.header.frame_id, message.header.stamp = 'odom', self.stamp()
        message.pose.pose.position.x, message.pose.pose.orientation.w = self.x, 1.0
        message.twist.twist.linear.x, message.twist.twist.angular.z = self.speeds.tolist()
        self._odometry.publish(message)
