# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A node of zeros beside the driver does not move the robot: it holds, and says why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor

from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import ObservationError
from residual_rl_ros.robot.decoders import CameraDecoder, message_decoder
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.robot.topics import Channel
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology
from residual_rl_ros.ros.common.encoders import ChannelEncoder
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.nodes.policy_node import PolicyNode

pytestmark = pytest.mark.ros

RESOLVED = load_run('push_to_goal').resolve()
ROBOT = RESOLVED.robot


@pytest.fixture
def node(domain_id: int) -> Iterator[PolicyNode]:
    (spec,) = robot_topology(RobotRun(RESOLVED.robot_file, RESOLVED.policy.path, None))
    parameters = {'realtime_priority': 0, 'lock_memory': False, 'auto_start': True}
    parameters |= {'hold_limit_s': 0.5, 'decision_steps': 1, 'prefetch_steps': 2}
    spec = NodeSpec('policy_node', True, spec.parameter_files, {**spec.parameters, **parameters})
    rclpy.init(args=spec.ros_arguments(), domain_id=domain_id)
    made = PolicyNode()
    yield made
    made.destroy_node()
    rclpy.try_shutdown()


class Driver:
    """Publishes channels at 20 Hz."""

    def __init__(self, name: str, channels: Sequence[Channel], value: float) -> None:
        self.node = rclpy.create_node(name)
        self._value = value
        self._outputs = [
            (self.node.create_publisher(message_class(channel.type), channel.topic, 10), channel)
            for channel in channels
        ]
        self.node.create_timer(0.05, self._publish)

    def _publish(self) -> None:
        now = self.node.get_clock().now().nanoseconds * 1e-9
        for publisher, channel in self._outputs:
            values = np.full(len(channel.observation_names), self._value)
            publisher.publish(ChannelEncoder(channel).message(values, now))


def test_two_publishers_of_a_joint_are_a_hold_and_a_fault_that_names_both(
    node: PolicyNode,
) -> None:
    executor = SingleThreadedExecutor()
    driver = Driver('driver', ROBOT.channels, 0.3)
    commands: list[np.ndarray] = []
    kind = message_class(ROBOT.commands[0].type)
    driver.node.create_subscription(
        kind, ROBOT.commands[0].topic, lambda message: commands.append(np.array(message.data)), 100
    )
    executor.add_node(node)
    executor.add_node(driver.node)

    def spin_until(reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30.0
        while not reached():
            assert time.monotonic() < deadline
            executor.spin_once(timeout_sec=0.1)

    node.trigger_configure()
    node.trigger_activate()
    spin_until(lambda: len(commands) > 10)
    assert node.active
    zeros = Driver('joint_state_publisher', ROBOT.channels[:1], 0.0)
    executor.add_node(zeros.node)
    spin_until(lambda: not node.active)
    assert 'held for' in node._fault_reason
    for part in ('two publishers of ', ROBOT.channels[0].joints[0], ROBOT.channels[0].topic):
        assert part in node._fault_reason
    np.testing.assert_array_equal(commands[-1], commands[-2])
    node.trigger_cleanup()
    for each in (driver, zeros):
        each.node.destroy_node()


def test_two_publishers_of_a_camera_are_refused_before_their_images_are_read() -> None:
    robot, _ = load_robot('pick_place_camera')
    channel = next(channel for channel in robot.channels if channel.is_image)
    decoder = message_decoder(channel)
    assert isinstance(decoder, CameraDecoder)
    refused: list[ObservationError] = []
    node: Any = SimpleNamespace(
        _loop=SimpleNamespace(active=True, refuse_observation=refused.append),
        _image_workers=[],
        _channel_callback=lambda decoder: None,
        _now=lambda: 1.0,
        made=ExitStack(),
    )
    with node.made:
        callback = PolicyNode._image_callback(node, decoder)
        ((_, images),) = node._image_workers
        read: list[float] = []
        images.put = lambda stamp, message: read.append(stamp)
        message = message_class(channel.type)()
        message.header.frame_id = channel.frame_id
        for sec, count in enumerate((7, 8, 1, 9), 1):
            message.header.stamp.sec = sec
            callback(message, {'publication_sequence_number': count}, False)
    assert read == [1.0, 2.0]
    assert [str(error).count('two publishers') for error in refused] == [1, 1]
