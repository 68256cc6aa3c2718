# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The recorder node: serialised messages from topics into a bag, never decoded.

Waking an executor for every message costs more than the message. The node therefore has none: it
empties the queues of its subscriptions some times a second; the middleware has noted when each
message arrived.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from residual_rl_ros.bags.recorder import (
    RecordedTopic,
    Recorder,
    RecordOptions,
    absolute,
    customisation_topic,
    raw_topics,
    transition_topics,
)
from residual_rl_ros.base_policy.onnx_policy import read_policy_model
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import find_base_policy
from residual_rl_ros.robot.description import RobotConfig, robot_yaml, with_own_limits
from residual_rl_ros.robot.topics import ChannelTopic
from residual_rl_ros.ros.common.managed_node import OK, Diagnostics, run
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.common.node_parameters import RecorderParameters
from residual_rl_ros.ros.common.parameters import (
    every_parameter_valued,
    read_parameters,
    read_tree,
)
from residual_rl_ros.ros.common.qos import of_topic
from residual_rl_ros.training.provenance import git_commit

POLL_S = 0.05
"""How often the queues are emptied."""
DEPTH = 1000
"""Messages of a topic that may wait while the disk is busy."""


class RecorderNode(Node):
    """Subscribes to topics and hands what arrives to a recorder."""

    def __init__(self) -> None:
        with every_parameter_valued('recorder_node'):
            super().__init__('recorder_node', automatically_declare_parameters_from_overrides=True)
        parameters = read_parameters(self, RecorderParameters, ('robot',))
        if not parameters.output_dir:
            raise ConfigError('parameter output_dir of recorder_node is empty; give a folder')
        if not (parameters.transitions or parameters.raw):
            raise ConfigError('recorder_node has nothing to record; set transitions or raw')
        topics = self._topics(parameters)
        self._recorder = Recorder(
            Path(parameters.output_dir),
            topics,
            RecordOptions(parameters.storage, parameters.max_bytes, parameters.max_seconds),
            self._describe(parameters),
            time.monotonic,
        )
        self._inputs = [
            (
                topic.name,
                self.create_subscription(
                    message_class(topic.type), topic.name, _unused, profile, raw=True
                ),
            )
            for topic in sorted(topics, key=_place)
            for profile in _profiles(topic)
        ]
        self._diagnostics_period_s = parameters.diagnostics_period_s
        self._diagnostics = Diagnostics(self, self._report, self._diagnostics_period_s)
        self._stop = threading.Event()
        names = ', '.join(topic.name for topic in topics)
        self.get_logger().info(f'recording {names} in {parameters.output_dir}')

    def _topics(self, parameters: RecorderParameters) -> list[RecordedTopic]:
        topics: list[RecordedTopic] = []
        if parameters.transitions:
            topics += [*transition_topics(), customisation_topic()]
        if parameters.raw:
            topics += raw_topics(RobotConfig.from_mapping(read_tree(self, 'robot')))
        return absolute(topics, self.resolve_topic_name)

    def _describe(self, parameters: RecorderParameters) -> dict[str, str]:
        """Return the origin of the bag, for its metadata."""
        described = {'namespace': self.get_namespace(), 'git_commit': git_commit() or 'unknown'}
        if self.get_parameters_by_prefix('robot'):
            described['robot'] = robot_yaml(with_own_limits(read_tree(self, 'robot')))
        if parameters.base_policy:
            model = find_base_policy(parameters.base_policy)
            described['base_policy'] = model.name
            described['base_policy_sha256'] = read_policy_model(model).sha256
        return described

    def request_stop(self) -> None:
        """End `record`."""
        self._stop.set()

    def record(self) -> None:
        """Write what arrives until told to stop, then end the bag."""
        reported = time.monotonic()
        try:
            while not self._stop.wait(POLL_S):
                self._empty_queues()
                self._recorder.flush_when_due()
                if time.monotonic() - reported > self._diagnostics_period_s:
                    reported = time.monotonic()
                    self._diagnostics.publish()
            self._empty_queues()
        finally:
            self._recorder.close()
        self.get_logger().info(f'recorded {self._recorder.messages} messages')

    def _empty_queues(self) -> None:
        """Write what has arrived since the last time, in the order of arrival."""
        arrived: list[tuple[int, str, bytes]] = []
        for topic, subscription in self._inputs:
            queue = subscription.handle
            with queue:
                while (taken := queue.take_message(subscription.msg_type, True)) is not None:
                    data, information = taken
                    arrived.append((information['received_timestamp'], topic, data))
        for received_ns, topic, data in sorted(arrived, key=itemgetter(0)):
            self._recorder.write(topic, received_ns, data)

    def _report(self) -> tuple[bytes, str, Mapping[str, Any]]:
        return OK, 'recording', {'messages': self._recorder.messages}


def _unused(data: bytes) -> None:
    """Do nothing: no executor calls it."""


def _place(topic: RecordedTopic) -> tuple[bool, bool]:
    """Return where a topic stands in the order of subscriptions, in which others learn of them.

    A node of which a latched message has arrived then sends here all that it publishes.
    """
    return topic.latched, not topic.reliable


def _profiles(topic: RecordedTopic) -> tuple[QoSProfile, ...]:
    """Return profiles that take what is sent; their depth bridges a busy disk."""
    if not topic.reliable:
        return of_topic(ChannelTopic(topic.name, topic.type, topic.latched, DEPTH))
    profile = QoSProfile(
        depth=1 if topic.latched else DEPTH,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE,
    )
    return (profile,)


def main() -> int:
    """Run the recorder node."""
    return run(RecorderNode, spin=RecorderNode.record)


if __name__ == '__main__':
    raise SystemExit(main())
