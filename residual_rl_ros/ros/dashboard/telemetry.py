# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hears the transitions and cameras of robots, in a thread of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from rclpy.serialization import deserialize_message
from std_msgs.msg import Float64MultiArray, String

from residual_rl_ros.robot.decoders import label_of
from residual_rl_ros.robot.topics import Channel
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.common.node_host import Listener
from residual_rl_ros.ros.dashboard.cameras import Camera
from residual_rl_ros.ros.dashboard.view import RobotView


class Telemetry(Listener):
    """Tells views what their policy nodes publish.

    Args:
        views: of the robots.
        domain_id: ROS domain; None takes `ROS_DOMAIN_ID`.
    """

    def __init__(self, views: Sequence[RobotView], domain_id: int | None = None) -> None:
        super().__init__('telemetry', domain_id)
        self._views = views
        self._cameras: list[tuple[Any, str, Camera]] = []

    def listen(self) -> None:
        """Subscribe to what the robots publish."""
        create = self.node.create_subscription
        for view in self._views:
            root, hear = f'/{view.policy}', partial(_hear_transition, view)
            create(String, f'{root}/transition_layout', partial(_hear_layout, view), qos.LATCHED)
            create(Float64MultiArray, f'{root}/transitions', hear, qos.TRANSITIONS)
        for kind, topic, camera in self._cameras:
            create(kind, topic, camera.hear, qos.SENSOR, raw=True)

    def camera(self, channel: Channel, namespace: str) -> Camera:
        """Listen to an image channel of a robot; before the telemetry is entered.

        Raises:
            ConfigError: the message type is not installed.
        """
        kind = message_class(channel.type)
        camera = Camera(channel, lambda message: deserialize_message(message, kind))
        self._cameras.append((kind, resolved(channel.topic, namespace), camera))
        return camera


def resolved(topic: str, namespace: str) -> str:
    """Return the full name of a topic of a robot."""
    if topic.startswith('/'):
        return topic
    return '/'.join(['', *filter(None, [namespace.strip('/')]), topic])


def _hear_layout(view: RobotView, message: String) -> None:
    view.hear_layout(message.data)


def _hear_transition(view: RobotView, message: Float64MultiArray) -> None:
    view.hear_transition(message.data, label_of(message))
