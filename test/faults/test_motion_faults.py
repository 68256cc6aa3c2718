# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A policy node before a robot that falls silent, is stuck, is moved, lies or must stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from base_policy_builders import write_onnx_policy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from processes import wait_for
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from robot_builders import make_metadata
from ros_fixtures import Caller
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import SetBool

from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import to_time

pytestmark = pytest.mark.ros

JOINTS = ('a', 'b')
LIMIT_S = 60.0
RATE_HZ = 20.0
SPEED = 0.4
"""Largest velocity [rad/s], or acceleration [rad/s^2] of a robot commanded in velocities."""


def robot_file(folder: Path, units: list[str], upper: float) -> Path:
    """Write the description of a robot with two joints and a stop input."""
    field = 'position' if units[0] == 'rad' else 'velocity'
    robot = {
        'name': 'two_joints',
        'control_rate_hz': RATE_HZ,
        'command': {'topic': 'commands', 'type': 'std_msgs/msg/Float64MultiArray'},
        'action': {
            'names': ['a.command', 'b.command'],
            'units': units,
            'lower': [-upper, -upper],
            'upper': [upper, upper],
            'max_velocity': [SPEED, SPEED],
            'measured_by': [f'arm.{field}.a', f'arm.{field}.b'],
            'start_limit': [1.0, 1.0],
        },
        'observation': {
            'channels': ['arm'],
            'arm': {
                'topic': 'joint_states',
                'type': 'sensor_msgs/msg/JointState',
                'fields': [field],
                'joints': list(JOINTS),
                'max_age_s': 0.2,
            },
        },
        'stop_inputs': {
            'safety': {'topic': 'safe', 'type': 'std_msgs/msg/Bool', 'bad': ['false']},
        },
    }
    path = folder / 'robot.yaml'
    path.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'robot': robot}}}))
    return path


class TwoJoints:
    """A robot that does at once what it is told, unless it is stuck, and keeps what it was told."""

    def __init__(self, domain_id: int, field: str) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node('two_joints', context=self._context)
        self._field = field
        self.values = np.zeros(2)
        self.commands: list[np.ndarray] = []
        self.stuck = self.silent = False
        self.safe = self._node.create_publisher(Bool, 'safe', qos.LATCHED)
        self._states = self._node.create_publisher(JointState, 'joint_states', 10)
        self._node.create_subscription(Float64MultiArray, 'commands', self._obey, 100)
        self._node.create_timer(0.01, self._publish)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def _obey(self, message: Float64MultiArray) -> None:
        self.commands.append(np.array(message.data))
        if not self.stuck:
            self.values = self.commands[-1]

    def _publish(self) -> None:
        if self.silent:
            return
        message = JointState(name=list(JOINTS), **{self._field: self.values.tolist()})
        message.header.stamp = to_time(self._node.get_clock().now().nanoseconds * 1e-9)
        self._states.publish(message)

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._thread.join(timeout=2.0)
        self._node.destroy_node()
        self._context.try_shutdown()


@contextmanager
def policy_node(
    domain_id: int, folder: Path, units: list[str], target: float, upper: float
) -> Iterator[tuple[TwoJoints, Monitor, Any]]:
    """Start a policy node that always wants the same, before a robot of two joints."""
    field = 'position' if units[0] == 'rad' else 'velocity'
    metadata = make_metadata(
        observation_names=(f'arm.{field}.a', f'arm.{field}.b'),
        action_names=('a.command', 'b.command'),
        action_min=(-upper, -upper),
        action_max=(upper, upper),
        rate_hz=RATE_HZ,
    )
    model = folder / 'base.onnx'
    bias = np.full((metadata.horizon, 2), target)
    write_onnx_policy(model, metadata, bias=bias, gain=0.0)
    node = NodeSpec(
        'policy_node',
        True,
        (robot_file(folder, units, upper),),
        {'base_policy': str(model), 'auto_start': True, 'hold_limit_s': 2.0},
    )
    robot = TwoJoints(domain_id, field)
    try:
        with (
            Monitor(domain_id) as monitor,
            Bringup([node], folder / 'logs', ros_environment(domain_id)) as bringup,
        ):
            wait_for(lambda: len(robot.commands) > 3, LIMIT_S, 'motion')
            yield robot, monitor, bringup.processes['policy_node']
    finally:
        robot.close()


def faulted(monitor: Monitor, reason: str) -> None:
    wait_for(lambda: reason in monitor.errors().get('policy_node', ''), LIMIT_S, reason)


@pytest.fixture
def activate(call: Caller) -> Callable[[], None]:
    """Return what activates the policy node again after a fault."""

    def again() -> None:
        transition = Transition(id=Transition.TRANSITION_ACTIVATE)
        assert call(ChangeState, '/policy_node/change_state', transition=transition).success

    return again


def test_an_arm_moves_only_when_it_should(
    domain_id: int, tmp_path: Path, call: Caller, activate: Callable[[], None]
) -> None:
    step = SPEED / RATE_HZ
    with policy_node(domain_id, tmp_path, ['rad', 'rad'], 0.35, 1.0) as (robot, monitor, _):
        # Moved by hand during a hold.
        assert call(SetBool, '/policy_node/hold', data=True).success
        time.sleep(0.2)
        robot.stuck, robot.values = True, robot.values - 0.3
        time.sleep(0.2)
        there, sent = robot.values, len(robot.commands)
        held = robot.commands[-1]
        assert call(SetBool, '/policy_node/hold', data=False).success
        wait_for(lambda: not np.array_equal(robot.commands[-1], held), LIMIT_S, 'motion')
        first = next(c for c in robot.commands[sent:] if not np.array_equal(c, held))
        assert np.abs(first - there).max() <= step + 1e-9
        # Stuck from here on: 0.25 s of motion away, then held, then a fault.
        faulted(monitor, 'the robot does not follow')
        assert np.abs(robot.commands[-1] - there).max() <= 0.25 * SPEED + step + 1e-9
        # A protective stop, before an episode and in one.
        robot.stuck = False
        robot.safe.publish(Bool(data=False))
        time.sleep(0.2)
        sent = len(robot.commands)
        activate()
        wait_for(lambda: "'safety'" in monitor.values('policy_node')['stops'], LIMIT_S, 'the stop')
        assert len(robot.commands) == sent
        robot.safe.publish(Bool(data=True))
        wait_for(lambda: len(robot.commands) > sent + 3, LIMIT_S, 'motion')
        robot.safe.publish(Bool(data=False))
        faulted(monitor, "stop input 'safety'")
        robot.safe.publish(Bool(data=True))
        # A spike at the start of an episode.
        robot.stuck, robot.values = True, np.array([50.0, 0.0])
        time.sleep(0.3)
        sent = len(robot.commands)
        activate()
        time.sleep(0.5)
        assert len(robot.commands) == sent
        assert np.abs(np.array(robot.commands)).max() <= 1.0


def test_a_joint_in_velocities_is_at_rest_whatever_ends_it(
    domain_id: int, tmp_path: Path, activate: Callable[[], None]
) -> None:
    with policy_node(domain_id, tmp_path, ['rad/s', 'rad/s'], 0.35, 0.5) as (robot, monitor, node):
        wait_for(lambda: robot.commands[-1][0] > 0.3, LIMIT_S, 'speed')
        robot.silent = True
        faulted(monitor, 'arm')
        wait_for(lambda: not robot.commands[-1].any(), LIMIT_S, 'rest')
        robot.silent = False
        activate()
        wait_for(lambda: robot.commands[-1][0] > 0.1, LIMIT_S, 'speed')
        robot.stuck, robot.values = True, np.array([1e6, 0.0])
        sent = len(robot.commands)
        node.send_signal(signal.SIGTERM)
        assert node.wait(timeout=LIMIT_S) == 0
        wait_for(lambda: not robot.commands[-1].any(), LIMIT_S, 'rest')
        # Within 3 s; time itself would say how busy this machine is.
        assert len(robot.commands) - sent < 3.0 * RATE_HZ
        assert np.abs(np.array(robot.commands)).max() <= 0.5
