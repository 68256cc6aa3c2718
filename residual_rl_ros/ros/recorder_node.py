# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The recorder node: serialised messages from topics into a bag, never decoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from residual_rl_ros.bags.recorder import RecordedTopic, Recorder, RecordOptions
from residual_rl_ros.bags.topics import raw_topics, transition_topics
from residual_rl_ros.provenance import file_sha256, git_commit
from residual_rl_ros.resources import find_file
from residual_rl_ros.robot import RobotConfig
from residual_rl_ros.ros.managed_node import OK, Diagnostics, run
from residual_rl_ros.ros.node_parameters import RecorderParameters
from residual_rl_ros.ros.parameters import ParameterError, read_parameters, read_tree

FLUSH_PERIOD_S = 0.25
"""How often the recorder looks whether it must flush."""
DEPTH = 1000
"""Messages that may wait while the disk is busy."""


class RecorderNode(Node):
    """Subscribes to topics and hands what arrives to a recorder."""

    def __init__(self) -> None:
        super().__init__('recorder_node', automatically_declare_parameters_from_overrides=True)
        parameters = read_parameters(self, RecorderParameters, ('robot',))
        if not parameters.output_dir:
            raise ParameterError('parameter output_dir of recorder_node is empty; give a folder')
        if not (parameters.transitions or parameters.raw):
            raise ParameterError('recorder_node has nothing to record; set transitions or raw')
        topics = self._topics(parameters)
        self._recorder = Recorder(
            Path(parameters.output_dir),
            topics,
            RecordOptions(parameters.storage, parameters.max_bytes, parameters.max_seconds),
            self._describe(parameters),
            time.monotonic,
        )
        for topic in topics:
            kind, callback = _message_class(topic.type), self._callback(topic.name)
            self.create_subscription(kind, topic.name, callback, _qos(topic), raw=True)
        self.create_timer(
            FLUSH_PERIOD_S,
            self._recorder.flush_when_due,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        Diagnostics(self, self._report)
        names = ', '.join(topic.name for topic in topics)
        self.get_logger().info(f'recording {names} in {parameters.output_dir}')

    def _topics(self, parameters: RecorderParameters) -> list[RecordedTopic]:
        topics: list[RecordedTopic] = []
        if parameters.transitions:
            topics += transition_topics()
        if parameters.raw:
            topics += raw_topics(RobotConfig.from_mapping(read_tree(self, 'robot')))
        return [replace(topic, name=self.resolve_topic_name(topic.name)) for topic in topics]

    def _describe(self, parameters: RecorderParameters) -> dict[str, str]:
        """Return what the bag shall say of its origin."""
        described = {'namespace': self.get_namespace(), 'git_commit': git_commit() or 'unknown'}
        if self.get_parameters_by_prefix('robot'):
            robot = {'/**': {'ros__parameters': {'robot': read_tree(self, 'robot')}}}
            described['robot'] = yaml.safe_dump(robot, sort_keys=False)
        if parameters.base_policy:
            model = find_file('base policy', ('models',), parameters.base_policy, '.onnx')
            described['base_policy'] = model.name
            described['base_policy_sha256'] = file_sha256(model)
        return described

    def _callback(self, topic: str) -> Callable[[bytes], None]:
        recorder, clock = self._recorder, self.get_clock()

        def callback(data: bytes) -> None:
            recorder.write(topic, clock.now().nanoseconds, data)

        return callback

    def _report(self) -> tuple[bytes, str, Mapping[str, Any]]:
        return OK, 'recording', {'messages': self._recorder.messages}

    def destroy_node(self) -> None:
        """End the bag, then the node."""
        self._recorder.close()
        self.get_logger().info(f'recorded {self._recorder.messages} messages')
        super().destroy_node()


def _message_class(kind: str) -> Any:
    """Return the class of a ROS message type."""
    package, _, name = kind.partition('/msg/')
    return getattr(import_module(f'{package}.msg'), name)


def _qos(topic: RecordedTopic) -> QoSProfile:
    """Return a profile that connects to every publisher of the topic, and waits for a busy disk."""
    return QoSProfile(
        depth=1 if topic.latched else DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if topic.reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE,
    )


def main() -> int:
    """Run the recorder node."""
    return run(RecorderNode)


if __name__ == '__main__':
    raise SystemExit(main())
