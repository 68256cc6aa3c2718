# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The QoS profiles of docs/reference/topics.md, and topics that have one publisher."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from rclpy.topic_endpoint_info import TopicEndpointInfo

from residual_rl_ros.robot.topics import ChannelTopic

SENSOR = qos_profile_sensor_data
"""Observation channels: best effort connects to every publisher."""

IMAGES = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
"""Images, where both sides can: they are larger than the shared memory of Fast DDS, and at best
effort many are lost."""

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Commands: only the newest counts."""

FEEDBACK = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
"""Step feedback: a lost termination would glue two episodes together."""

TRANSITIONS = QoSProfile(
    depth=1000, reliability=ReliabilityPolicy.RELIABLE, history=HistoryPolicy.KEEP_LAST
)
"""Transitions: deep enough for a learner that is busy for some seconds."""

LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""Weights and layout: late joiners get the newest. Both ends must ask for it."""

ON_CHANGE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Stop inputs that are published on change and not latched, as is the default of ROS: a message
that is lost does not come again. Beside it `LATCHED` hears what was said before, and `SENSOR` those
who stream."""


def of_topic(source: ChannelTopic) -> tuple[QoSProfile, ...]:
    """Return the profiles with which a channel's topic is listened to.

    What is given once may come from a publisher that keeps it, from one that is reliable, and from
    one that is not: a subscription that asks for more than a publisher offers does not connect, and
    one that asks for less can lose the only message.
    """
    stream = QoSProfile(depth=source.depth, reliability=ReliabilityPolicy.BEST_EFFORT)
    if not source.latched:
        return (stream,)
    reliable = QoSProfile(depth=source.depth, reliability=ReliabilityPolicy.RELIABLE)
    kept = QoSProfile(
        depth=source.depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    return kept, reliable, stream


def subscribe_to_images(
    node: Node, kind: Any, source: ChannelTopic, hear: Callable[[Any, Mapping[str, Any]], None]
) -> None:
    """Listen reliably; once a publisher does not offer that, listen to all at best effort.

    Args:
        node: gets the subscription.
        kind: class of the messages.
        source: a topic of images.
        hear: called with a message, and with what the middleware says of it.
    """

    def give_way(event: Any) -> None:
        del event
        if node.destroy_subscription(reliable):
            (profile,) = of_topic(source)
            node.create_subscription(kind, source.topic, hear, profile)

    events = SubscriptionEventCallbacks(incompatible_qos=give_way)
    reliable = node.create_subscription(kind, source.topic, hear, IMAGES, event_callbacks=events)


SETTLE_S = 0.5
"""What publishes already is seen within this time, as a rule [s]."""
YOUNG_S = 5.0
"""After this time without another a publisher is the one, and a later one gives way [s]."""
WATCH_S = 0.05
"""Time between two looks while waiting [s]."""
PATIENCE_S = 3.0
"""Of two that start together one gives way at once; if not, the other was there before [s]."""


def _name(info: TopicEndpointInfo) -> str:
    """Return the full name of an endpoint's node, which may become known after the endpoint."""
    if 'UNKNOWN' in info.node_name:
        return 'another node'
    return f'{info.node_namespace.rstrip("/")}/{info.node_name}'


class SolePublisher:
    """Says when a publisher must give way to another one of its topic.

    The one that was there first stays. Of two that start at once the one with the smaller GID
    stays: each knows both.

    Args:
        own: GID of the publisher.
        look: returns the nodes that publish the topic now, by GID.
        clock: monotonic time [s].
        sleep: lets time pass [s].
    """

    def __init__(
        self,
        own: tuple[int, ...],
        look: Callable[[], Mapping[tuple[int, ...], str]],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._own = own
        self._look = look
        self._clock = clock
        self._sleep = sleep
        self._began = clock()
        self._met: float | None = None
        self._established = False

    @classmethod
    def of(cls, node: Node, topic: str, create: Callable[[], object]) -> SolePublisher:
        """Return it for the publisher that a function creates.

        Args:
            node: its node.
            topic: full name of the topic.
            create: creates the publisher.
        """

        def look() -> dict[tuple[int, ...], str]:
            return {
                tuple(info.endpoint_gid): _name(info)
                for info in node.get_publishers_info_by_topic(topic)
            }

        before = look().keys()
        create()
        own = min(look().keys() - before, default=())
        return cls(own, look)

    @property
    def others(self) -> dict[tuple[int, ...], str]:
        """Nodes of the other publishers, by GID."""
        return {gid: node for gid, node in self._look().items() if gid != self._own}

    def wait(self) -> str:
        """Return, as soon as it is clear, the node to which this must give way; empty for none."""
        while True:
            rival = self.rival()
            alone = self._met is None and self._clock() - self._began >= SETTLE_S
            if rival or alone or self._established:
                return rival
            self._sleep(WATCH_S)

    def rival(self) -> str:
        """Return the node to which this must give way now; empty if there is none."""
        if self._established:
            return ''
        others, now = self.others, self._clock()
        if not others:
            self._met = None
            # Only who has looked knows: on a busy machine time passes without a look.
            self._established = now - self._began > YOUNG_S
            return ''
        if self._met is None:
            self._met = now
        must = min(others) < self._own or now - self._met > PATIENCE_S
        return others[min(others)] if must else ''
