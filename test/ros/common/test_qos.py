# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Of two publishers one goes on, whoever looks first; images are heard as they are offered."""

from __future__ import annotations

import time
from typing import Any

import pytest
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from residual_rl_ros.robot.topics import IMAGE, ChannelTopic
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.ros.common.qos import (
    PATIENCE_S,
    SETTLE_S,
    YOUNG_S,
    SolePublisher,
    subscribe_to_images,
)

OLD, SMALL, LARGE = (5,), (1,), (9,)


class Graph:
    """Publishers of a topic and the time; who has given way is gone."""

    def __init__(self) -> None:
        self.now = 0.0
        self.nodes: dict[tuple[int, ...], str] = {}

    def join(self, gid: tuple[int, ...]) -> SolePublisher:
        self.nodes[gid] = f'/node_{gid[0]}'
        return SolePublisher(gid, lambda: self.nodes, lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_publisher_that_is_alone_goes_on_soon() -> None:
    graph = Graph()
    assert graph.join(SMALL).wait() == ''
    assert graph.now == pytest.approx(SETTLE_S, abs=0.06)


@pytest.mark.parametrize('gid', [SMALL, LARGE])
def test_the_one_that_was_there_stays_and_the_second_gives_way(gid: tuple[int, ...]) -> None:
    graph = Graph()
    first = graph.join(OLD)
    graph.now += YOUNG_S + 1.0
    assert first.rival() == ''
    second = graph.join(gid)
    assert second.wait() == '/node_5'
    assert graph.now < YOUNG_S + 1.0 + PATIENCE_S + 0.2
    assert first.rival() == ''
    assert first.others == {gid: f'/node_{gid[0]}'}


def test_of_two_that_start_at_once_exactly_one_goes_on() -> None:
    graph = Graph()
    small, large = graph.join(SMALL), graph.join(LARGE)
    assert small.rival() == ''
    assert large.wait() == '/node_1'
    del graph.nodes[LARGE]
    assert small.wait() == ''


def test_a_publisher_that_is_seen_late_counts_all_the_same() -> None:
    graph = Graph()
    second = graph.join(LARGE)
    assert second.wait() == ''
    graph.now = YOUNG_S - 1.0
    graph.join(OLD)  # It has been there for long; discovery was slow.
    assert second.rival() == '/node_5'


def test_an_established_publisher_waits_for_nobody() -> None:
    graph = Graph()
    first = graph.join(LARGE)
    graph.now = YOUNG_S + 1.0
    assert first.rival() == ''
    graph.join(SMALL)
    assert first.wait() == ''


def test_time_without_a_look_establishes_nobody() -> None:
    graph = Graph()
    graph.join(OLD)
    late = graph.join(LARGE)
    graph.now = YOUNG_S + 1.0
    assert late.rival() == '/node_5'


@pytest.mark.ros
@pytest.mark.parametrize('offered', [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
def test_images_are_listened_to_as_reliably_as_their_publisher_offers(
    domain_id: int, offered: ReliabilityPolicy
) -> None:
    heard: list[Any] = []
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    camera = rclpy.create_node('camera', context=context)
    try:
        with NodeHost('policy_node', domain_id) as host:
            source = ChannelTopic('image', IMAGE)
            subscribe_to_images(host.node, Image, source, lambda *each: heard.append(each))
            publisher = camera.create_publisher(
                Image, 'image', QoSProfile(depth=1, reliability=offered)
            )
            deadline = time.monotonic() + 10.0
            while len(heard) < 3 and time.monotonic() < deadline:
                publisher.publish(Image())
                host.executor.spin_once(timeout_sec=0.02)
            (subscription,) = host.node.get_subscriptions_info_by_topic('/image')
            assert subscription.qos_profile.reliability is offered
            assert len(heard) == 3
    finally:
        camera.destroy_node()
        context.try_shutdown()
