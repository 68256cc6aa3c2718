# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A stop is heard however it is published, reliably where its publisher is reliable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool

from residual_rl_ros.robot.stop_inputs import StopInput
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.nodes.services import listen_to_stop

pytestmark = pytest.mark.ros

STOP = StopInput('cell', 'cell/stop', 'std_msgs/msg/Bool', 'data', bad=('true',))
Spin = Callable[[Callable[[], bool]], None]


@pytest.fixture
def nodes(domain_id: int) -> Iterator[tuple[Node, Node, Spin]]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    robot, cell = (rclpy.create_node(name, context=context) for name in ('robot', 'cell'))
    executor = SingleThreadedExecutor(context=context)
    for node in (robot, cell):
        executor.add_node(node)

    def spin_until(reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30.0
        while not reached():
            assert time.monotonic() < deadline
            executor.spin_once(timeout_sec=0.05)

    yield robot, cell, spin_until
    executor.shutdown()
    for node in (robot, cell):
        node.destroy_node()
    context.try_shutdown()


@pytest.mark.parametrize(
    ('profile', 'subscriptions'),
    [(QoSProfile(depth=10), 2), (qos.LATCHED, 3), (qos.SENSOR, 1)],
    ids=['default', 'latched', 'stream'],
)
def test_a_stop_is_heard_however_it_is_published(
    profile: QoSProfile, subscriptions: int, nodes: tuple[Node, Node, Spin]
) -> None:
    robot, cell, spin_until = nodes
    said: list[str] = []
    listen_to_stop(robot, STOP, said.append)
    publisher = cell.create_publisher(Bool, STOP.topic, profile)
    spin_until(lambda: publisher.get_subscription_count() == subscriptions)
    for k in range(4):
        publisher.publish(Bool(data=k % 2 == 0))
    spin_until(lambda: len(said) >= 4 and not said[-1])
    publisher.publish(Bool(data=True))
    spin_until(lambda: bool(said[-1]))
    assert said[-1] == "stop input 'cell': cell/stop data is True"


def test_the_default_publisher_of_ros_is_heard_reliably(nodes: tuple[Node, Node, Spin]) -> None:
    robot, _, spin_until = nodes
    listen_to_stop(robot, STOP, lambda reason: None)
    topic = robot.resolve_topic_name(STOP.topic)
    spin_until(lambda: len(robot.get_subscriptions_info_by_topic(topic)) == 3)
    offers = {
        (info.qos_profile.reliability, info.qos_profile.durability)
        for info in robot.get_subscriptions_info_by_topic(topic)
    }
    assert (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE) in offers


def test_a_latched_stop_that_was_published_before_is_heard(nodes: tuple[Node, Node, Spin]) -> None:
    robot, cell, spin_until = nodes
    publisher = cell.create_publisher(Bool, STOP.topic, qos.LATCHED)
    for data in (False, True):
        publisher.publish(Bool(data=data))
    said: list[str] = []
    listen_to_stop(robot, STOP, said.append)
    spin_until(lambda: bool(said))
    assert said[-1]
