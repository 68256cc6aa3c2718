# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hears the transitions and cameras of robots, in a thread of its own."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import PIL.Image
from rclpy.serialization import deserialize_message
from std_msgs.msg import Float64MultiArray, String

from residual_rl_ros.robot.image_messages import image_of
from residual_rl_ros.robot.names import full_name
from residual_rl_ros.robot.stamps import label_of
from residual_rl_ros.robot.topics import Channel
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.common.node_host import Listener
from residual_rl_ros.ros.dashboard.view import RobotView

WIDTH, HEIGHT = 320, 240
"""An image is no larger [pixels]."""
QUALITY = 70
"""Of its JPEG."""


class Camera:
    """Keeps the newest message of an image channel and makes a small JPEG of it.

    Messages come serialised and stay so until somebody looks: a camera costs nothing else.

    Args:
        channel: of the robot.
        deserialise: turns the bytes of a message into the message.
        clock: monotonic time [s].
    """

    def __init__(
        self,
        channel: Channel,
        deserialise: Callable[[bytes], Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = channel.name
        self.topic = channel.topic
        self.problem = ''
        """Why the newest message is no image; empty if it is one."""
        self._channel = channel
        self._deserialise = deserialise
        self._clock = clock
        self._newest: tuple[bytes, float] | None = None
        self._made: tuple[float, bytes] = (-math.inf, b'')
        self._lock = threading.Lock()

    def hear(self, message: bytes) -> None:
        """Take in a message."""
        self._newest = message, self._clock()

    def age(self) -> float:
        """Return how old the newest message is [s], infinite before the first."""
        newest = self._newest
        return math.inf if newest is None else self._clock() - newest[1]

    def jpeg(self) -> bytes:
        """Return the newest image, empty if there is none; `problem` says why."""
        with self._lock:
            newest = self._newest
            if newest is not None and newest[1] > self._made[0]:
                self._made = newest[1], self._encode(newest[0])
            return self._made[1]

    def _encode(self, message: bytes) -> bytes:
        try:
            image = PIL.Image.fromarray(image_of(self._deserialise(message), self._channel))
        except ValueError as error:
            self.problem = str(error)
            return b''
        self.problem = ''
        image.thumbnail((WIDTH, HEIGHT))
        written = io.BytesIO()
        image.save(written, 'JPEG', quality=QUALITY)
        return written.getvalue()


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
        self._cameras.append((kind, full_name(channel.topic, namespace), camera))
        return camera


def _hear_layout(view: RobotView, message: String) -> None:
    view.hear_layout(message.data)


def _hear_transition(view: RobotView, message: Float64MultiArray) -> None:
    view.hear_transition(message.data, label_of(message))
