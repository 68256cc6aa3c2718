# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hears the transitions and cameras of robots, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from types import TracebackType

from rclpy.executors import ExternalShutdownException
from rclpy.serialization import deserialize_message
from std_msgs.msg import Float64MultiArray, String

from residual_rl_ros.robot.decoders import label_of
from residual_rl_ros.robot.topics import Channel
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.managed_node import NodeHost
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.dashboard.cameras import Camera
from residual_rl_ros.ros.dashboard.view import RobotView


class Telemetry(NodeHost):
    """Tells views what their policy nodes publish.

    Args:
        views: of the robots.
        domain_id: ROS domain; None takes `ROS_DOMAIN_ID`.
    """

    def __init__(self, views: Sequence[RobotView], domain_id: int | None = None) -> None:
        super().__init__('telemetry', domain_id)
        for view in views:
            root = f'/{view.policy}'
            self.node.create_subscription(
                String, f'{root}/transition_layout', partial(_hear_layout, view), qos.LATCHED
            )
            self.node.create_subscription(
                Float64MultiArray,
                f'{root}/transitions',
                partial(_hear_transition, view),
                qos.TRANSITIONS,
            )
        self._spinner = threading.Thread(target=self._spin, name='telemetry', daemon=True)

    def __enter__(self) -> Telemetry:
        """Begin to listen."""
        self._spinner.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the domain."""
        self.executor.shutdown(timeout_sec=1.0)
        self._spinner.join(timeout=1.0)
        super().__exit__(kind, error, trace)

    def camera(self, channel: Channel, namespace: str) -> Camera:
        """Listen to an image channel of a robot; before the telemetry is entered.

        Raises:
            ConfigError: the message type is not installed.
        """
        kind = message_class(channel.type)
        camera = Camera(channel, lambda message: deserialize_message(message, kind))
        topic = resolved(channel.topic, namespace)
        self.node.create_subscription(kind, topic, camera.hear, qos.SENSOR, raw=True)
        return camera

    def _spin(self) -> None:
        try:
            self.executor.spin()
        except ExternalShutdownException:
            return


def resolved(topic: str, namespace: str) -> str:
    """Return the full name of a topic of a robot."""
    if topic.startswith('/'):
        return topic
    return '/'.join(['', *filter(None, [namespace.strip('/')]), topic])


def _hear_layout(view: RobotView, message: String) -> None:
    view.hear_layout(message.data)


def _hear_transition(view: RobotView, message: Float64MultiArray) -> None:
    view.hear_transition(message.data, label_of(message))
