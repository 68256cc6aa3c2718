# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Play transition bags into a running learner, which takes them for a robot's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.duration import Duration
from std_msgs.msg import Float64MultiArray, String

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.problems import BagError
from residual_rl_ros.bags.transitions import LAYOUT, TRANSITIONS, Block, TransitionReader
from residual_rl_ros.ros import qos
from residual_rl_ros.ros.messages import float_array
from residual_rl_ros.ros.private_node import PrivateNode


@dataclass(frozen=True)
class PlayOptions:
    """How a bag is played."""

    rate_hz: float = 0.0
    """Transitions per second; 0 keeps the recorded spacing."""
    namespace: str | None = None
    """Namespace to publish in; None takes the recorded one."""
    wait_s: float = 30.0
    """How long to wait for a learner [s]."""
    domain_id: int | None = None
    """ROS domain; None takes `ROS_DOMAIN_ID`."""


def play(
    bags: Iterable[Bag],
    options: PlayOptions,
    on_sent: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Publish layouts and transitions of bags; return the number of transitions sent.

    Args:
        bags: in this order.
        options: how.
        on_sent: called after every transition.
        clock: monotonic time [s].
        sleep: waits for as many seconds.

    Raises:
        BagError: nobody subscribes.
    """
    sent = 0
    with PrivateNode('bag_player', options.domain_id) as tool:
        robots: dict[str, _Robot] = {}
        for bag in bags:
            pace = _Pace(options.rate_hz, clock, sleep)
            for block in TransitionReader(bag).blocks():
                name = block.robot if options.namespace is None else options.namespace.strip('/')
                if name not in robots:
                    robots[name] = _Robot(tool.node, name)
                    robots[name].wait_for_learner(options.wait_s, clock, sleep)
                for stamp_ns, message in robots[name].messages(block):
                    pace.wait(stamp_ns)
                    robots[name].publisher.publish(message)
                    sent += 1
                    on_sent()
        for robot in robots.values():
            robot.publisher.wait_for_all_acked(Duration(seconds=5))
    return sent


class _Robot:
    """The topics of one robot."""

    def __init__(self, node: Any, namespace: str) -> None:
        prefix = f'/{namespace}'.rstrip('/')
        self._topic = f'{prefix}/{TRANSITIONS}'
        self.publisher = node.create_publisher(Float64MultiArray, self._topic, qos.TRANSITIONS)
        self._layout_publisher = node.create_publisher(String, f'{prefix}/{LAYOUT}', qos.LATCHED)
        self._label = ''

    def wait_for_learner(
        self, limit_s: float, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        deadline = clock() + limit_s
        while not self.publisher.get_subscription_count():
            if clock() > deadline:
                raise BagError(
                    f'nobody subscribes to {self._topic} after {limit_s:g} s; start learner_node, '
                    'or give its --namespace'
                )
            sleep(0.05)

    def messages(self, block: Block) -> Iterable[tuple[int, Float64MultiArray]]:
        """Yield the messages of a block with their recorded times, after its layout if new."""
        layout = block.table.layout
        if layout.label != self._label:
            self._label = layout.label
            self._layout_publisher.publish(String(data=layout.to_yaml()))
        for stamp_ns, row in zip(block.time_ns.tolist(), block.table.values, strict=True):
            yield stamp_ns, float_array(np.ascontiguousarray(row), layout.label)


class _Pace:
    """Spaces messages out as they were recorded, or evenly."""

    def __init__(
        self, rate_hz: float, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._rate_hz = rate_hz
        self._clock = clock
        self._sleep = sleep
        self._count = 0
        self._first_ns = 0
        self._started = 0.0

    def wait(self, stamp_ns: int) -> None:
        """Wait until the next message is due."""
        if not self._count:
            self._first_ns, self._started = stamp_ns, self._clock()
        recorded = (stamp_ns - self._first_ns) * 1e-9
        due = self._count / self._rate_hz if self._rate_hz else recorded
        self._count += 1
        ahead = self._started + due - self._clock()
        if ahead > 0.0:
            self._sleep(ahead)
