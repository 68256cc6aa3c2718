# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A robot runs on the chunks of another node, and holds while none come."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy
import yaml
from rclpy.executors import SingleThreadedExecutor
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from residual_rl_ros.config.run import load_run
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import ChannelEncoder, to_time
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.nodes.chunk_input import CHUNKS
from residual_rl_ros.ros.nodes.policy_node import PolicyNode

pytestmark = pytest.mark.ros

RESOLVED = load_run('push_to_goal').resolve()
ROBOT = RESOLVED.robot
META = replace(RESOLVED.policy.metadata, exec_start=0)
SEEN = 0.3
TARGET = np.full(ROBOT.action.size, SEEN).clip(ROBOT.action.lower, ROBOT.action.upper)
"""Where the robot is, or as near as it may be."""


@pytest.fixture
def node(domain_id: int, tmp_path: Path) -> Iterator[PolicyNode]:
    path = tmp_path / 'served.yaml'
    path.write_text(yaml.safe_dump(json.loads(META.to_json())))
    (spec,) = robot_topology(RobotRun(RESOLVED.robot_file, RESOLVED.policy.path, None))
    parameters = {'realtime_priority': 0, 'lock_memory': False, 'auto_start': True}
    parameters |= {'base_policy': 'topic', 'base_policy_metadata': str(path)}
    parameters |= {'hold_limit_s': 30.0, 'decision_steps': 1}
    spec = NodeSpec('policy_node', True, spec.parameter_files, {**spec.parameters, **parameters})
    rclpy.init(args=spec.ros_arguments(), domain_id=domain_id)
    made = PolicyNode()
    yield made
    made.destroy_node()
    rclpy.try_shutdown()


class Server:
    """A robot at the control rate, and a policy that answers each third observation."""

    def __init__(self) -> None:
        self.node = rclpy.create_node('server')
        self.serves = True
        self.commands: list[np.ndarray] = []
        create = self.node.create_publisher
        self._outputs = [
            (create(message_class(channel.type), channel.topic, 10), channel)
            for channel in ROBOT.channels
        ]
        self.chunks = create(JointTrajectory, CHUNKS, qos.COMMAND)
        kind = message_class(ROBOT.commands[0].type)
        self.node.create_subscription(kind, ROBOT.commands[0].topic, self._hear, 100)
        self._step = 0
        self.node.create_timer(1.0 / ROBOT.control_rate_hz, self._tick)

    def _hear(self, message: object) -> None:
        self.commands.append(np.array(message.data))  # type: ignore[attr-defined]

    def _tick(self) -> None:
        now = self.node.get_clock().now().nanoseconds * 1e-9
        for publisher, channel in self._outputs:
            values = np.full(len(channel.observation_names), SEEN)
            publisher.publish(ChannelEncoder(channel).message(values, now))
        self._step += 1
        if self.serves and self._step % 3 == 0:
            self.chunks.publish(chunk(now))


def chunk(stamp: float) -> JointTrajectory:
    """Return a chunk of an observation with this stamp."""
    message = JointTrajectory(joint_names=META.action_names)
    message.header.stamp = to_time(stamp)
    for index in range(META.exec_steps):
        point = JointTrajectoryPoint(positions=TARGET.tolist())
        seconds, rest = divmod(round(1e9 * index / META.rate_hz), 10**9)
        point.time_from_start.sec, point.time_from_start.nanosec = seconds, rest
        message.points.append(point)
    return message


@pytest.fixture
def server(node: PolicyNode) -> Iterator[Server]:
    del node  # It has initialised ROS.
    made = Server()
    yield made
    made.node.destroy_node()


def test_a_robot_runs_on_chunks_holds_without_and_counts_what_is_none(
    node: PolicyNode, server: Server
) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(server.node)

    def spin_until(reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60.0
        while not reached():
            assert time.monotonic() < deadline
            executor.spin_once(timeout_sec=0.1)

    reasons: set[str] = set()

    def said(key: str) -> int:
        _, message, values = node._report()
        reasons.add(message)
        return int(values[key])

    node.trigger_configure()
    node.trigger_activate()
    spin_until(lambda: said('chunks_received') > 5 and len(server.commands) > 30)
    np.testing.assert_allclose(server.commands[-1], TARGET, atol=1e-6)
    server.serves = False
    late = said('late_chunks')
    spin_until(lambda: said('late_chunks') > late + 5)
    assert any('has arrived on base_policy/chunk' in reason for reason in reasons)
    stranger = chunk(time.time())
    stranger.joint_names = ['x']
    server.chunks.publish(stranger)
    spin_until(lambda: said('chunks_refused_malformed') == 1)
    server.serves, received = True, said('chunks_received')
    spin_until(lambda: said('chunks_received') > received + 3)
    late = said('late_chunks')
    commands = len(server.commands)
    spin_until(lambda: len(server.commands) > commands + 10)
    assert node.active
    assert said('late_chunks') <= late + 3
    # One that was forgotten takes turns with it: the robot holds until it is stopped.
    forgotten = server.node.create_publisher(JointTrajectory, CHUNKS, qos.COMMAND)
    timer = server.node.create_timer(0.1, lambda: forgotten.publish(chunk(time.time() - 0.2)))
    spin_until(lambda: said('chunks_refused_two_publishers') > 5)
    received, late = said('chunks_received'), said('late_chunks')
    spin_until(lambda: said('late_chunks') > late + 5)
    assert said('chunks_received') == received
    timer.cancel()
    spin_until(lambda: said('chunks_received') > received + 3)
    node.trigger_deactivate()
    node.trigger_cleanup()
