# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Publish transition bags to a running learner, as a robot would."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.duration import Duration
from std_msgs.msg import Float64MultiArray, String

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.reader import (
    LAYOUT,
    TRANSITIONS,
    TransitionBlock,
    TransitionReader,
)
from residual_rl_ros.errors import BagError
from residual_rl_ros.robot.names import full_name
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.transitions.cdr import labelled_array
from residual_rl_ros.transitions.layout import TransitionLayout

ACKNOWLEDGED_S = 5.0
"""How long to wait for the learner's acknowledgement of the last transitions [s]."""


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
        sleep: lets time pass [s].

    Raises:
        BagError: there is no subscriber.
    """
    sent = 0
    with NodeHost('bag_player', options.domain_id) as tool:
        robots: dict[str, _Robot] = {}
        for bag in bags:
            pace = _Pace(options.rate_hz, clock, sleep)
            for blocks in TransitionReader(bag).segments():
                receivers = []
                for block in blocks:
                    name = options.namespace
                    name = block.robot if name is None else name.strip('/')
                    if name not in robots:
                        robots[name] = _Robot(tool.node, name)
                        robots[name].wait_for_learner(options.wait_s, clock, sleep)
                    receivers.append(robots[name])
                for stamp_ns, number, row in _by_time(blocks):
                    pace.wait(stamp_ns)
                    table = blocks[number].table
                    receivers[number].send(table.layout, table.values[row])
                    sent += 1
                    on_sent()
            for robot in robots.values():
                if not robot.all_arrived():
                    bag.problems.add(
                        bag.path,
                        f'not every transition was acknowledged within {ACKNOWLEDGED_S:g} s: the '
                        'learner may lack the last ones',
                        topic=robot.topic,
                    )
    return sent


def _by_time(blocks: list[TransitionBlock]) -> Iterator[tuple[int, int, int]]:
    """Yield when each transition was recorded [ns], its block and its row; all robots mixed."""
    return heapq.merge(
        *(
            [(stamp_ns, number, row) for row, stamp_ns in enumerate(block.time_ns.tolist())]
            for number, block in enumerate(blocks)
        ),
        key=itemgetter(0),
    )


class _Robot:
    """The topics of one robot."""

    def __init__(self, node: Any, namespace: str) -> None:
        self.topic = full_name(TRANSITIONS, namespace)
        self._publisher = node.create_publisher(Float64MultiArray, self.topic, qos.TRANSITIONS)
        self._layout_publisher = node.create_publisher(
            String, full_name(LAYOUT, namespace), qos.LATCHED
        )
        self._label = ''

    def wait_for_learner(
        self, limit_s: float, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        deadline = clock() + limit_s
        while not self._publisher.get_subscription_count():
            if clock() > deadline:
                raise BagError(
                    f'nobody subscribes to {self.topic} after {limit_s:g} s; start learner_node, '
                    'or give its --namespace'
                )
            sleep(0.05)

    def send(self, layout: TransitionLayout, values: npt.NDArray[np.float64]) -> None:
        """Publish a transition, shape (layout.size,), after its layout if that is new."""
        if layout.label != self._label:
            self._label = layout.label
            self._layout_publisher.publish(String(data=layout.to_yaml()))
        self._publisher.publish(labelled_array(values, layout.label))

    def all_arrived(self) -> bool:
        """Wait until the learner has what was sent; return whether it has."""
        return bool(self._publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGED_S)))


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
