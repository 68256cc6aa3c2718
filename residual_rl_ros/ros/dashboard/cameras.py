# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Small pictures of what a robot's cameras see, made when somebody looks."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import PIL.Image

from residual_rl_ros.robot.image_messages import picture_of
from residual_rl_ros.robot.topics import Channel

WIDTH, HEIGHT = 320, 240
"""A picture is no larger [pixels]."""
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
        """Why the newest message is no picture; empty if it is one."""
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
        """Return the newest picture, empty if there is none; `problem` says why."""
        with self._lock:
            newest = self._newest
            if newest is not None and newest[1] > self._made[0]:
                self._made = newest[1], self._encode(newest[0])
            return self._made[1]

    def _encode(self, message: bytes) -> bytes:
        try:
            picture = PIL.Image.fromarray(picture_of(self._deserialise(message), self._channel))
        except ValueError as error:
            self.problem = str(error)
            return b''
        self.problem = ''
        picture.thumbnail((WIDTH, HEIGHT))
        written = io.BytesIO()
        picture.save(written, 'JPEG', quality=QUALITY)
        return written.getvalue()
