# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras as channels: what policy and learner see of an image, and a thread that looks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.image_encoder import ImageEncoder, channel_encoder
from residual_rl_ros.robot.image_preprocessing import Calibration, ImagePreprocessor, RgbImage
from residual_rl_ros.robot.onnx_session import InferenceWorker
from residual_rl_ros.robot.topics import Channel

Read = TypeVar('Read')


class Sight(NamedTuple):
    """What is seen of an image."""

    values: npt.NDArray[np.float64]
    """Features by the encoder, in the order of the channel's observation names; none without."""
    image: RgbImage | None
    """For a base policy that sees images, shape (height, width, 3); None for others."""


class Camera:
    """An image channel: undistorts, crops, resizes and encodes its images.

    Args:
        channel: the channel.
        image_size: height and width of the images that the base policy wants of it [px]; None
            if it wants none.

    Raises:
        ConfigError: the encoder is unusable, or the sizes differ.
        ResourceError: no shipped encoder has the name.
    """

    def __init__(self, channel: Channel, image_size: tuple[int, int] | None = None) -> None:
        self._channel, self._size = channel, image_size
        self._preprocess = ImagePreprocessor(channel.preprocessing)
        self._calibration: Calibration | None = None
        self.waits_for = ''
        """What it must be told before it can look; empty if it can."""
        if channel.camera_info_topic:
            self.waits_for = f'waits for sensor_msgs/msg/CameraInfo on {channel.camera_info_topic}'
        self._encoder: ImageEncoder | None = None
        if channel.has_encoder:
            self._encoder = channel_encoder(channel)
        check_size(channel, image_size)

    def warm_up(self) -> None:
        """Encode a black image, so that no real one pays for initialisation."""
        if self._encoder is not None:
            self._encoder.warm_up()

    def calibrate(self, calibration: Calibration) -> None:
        """Undistort by a calibration that the camera publishes; the first one counts.

        Raises:
            ConfigError: it is another one than the first.
        """
        if self._calibration is None:
            keys = replace(self._channel.preprocessing, calibration=calibration)
            self._preprocess = ImagePreprocessor(keys)
            self._calibration, self.waits_for = calibration, ''
        elif calibration != self._calibration:
            raise ConfigError(
                f'CameraInfo has changed from {self._calibration} to {calibration}; images are '
                'undistorted by the first one: configure the node again to take the new one'
            )

    def look(self, image: RgbImage) -> Sight:
        """Return what is seen of an image, shape (height, width, 3), RGB.

        Raises:
            ConfigError: the image has another size, the encoder failed, or it is not calibrated
                yet.
        """
        if self.waits_for:
            raise ConfigError(
                f'channel {self._channel.name!r} {self.waits_for}; where nobody publishes it, give '
                'the file camera_info in the robot YAML'
            )
        image = self._preprocess(image)
        if self._size is not None and image.shape[:2] != self._size:
            raise ConfigError(_wrong_size(image.shape[:2], self._size, 'the image'))
        values = np.zeros(0) if self._encoder is None else self._encoder.encode(image)
        return Sight(values, None if self._size is None else image)


def check_size(channel: Channel, wanted: tuple[int, int] | None) -> None:
    """Refuse a channel that makes images of another size than the base policy wants.

    Raises:
        ConfigError: it does; nobody knows before the first image where the camera decides.
    """
    made = channel.preprocessing.size
    if wanted is not None and made not in (None, wanted):
        assert made is not None
        raise ConfigError(_wrong_size(made, wanted, f'channel {channel.name!r}: an image'))


def _wrong_size(found: tuple[int, ...], wanted: tuple[int, int], what: str) -> str:
    return (
        f'{what} is {found[0]} x {found[1]} (height x width), the base policy wants {wanted[0]} x '
        f'{wanted[1]}; set resize: [{wanted[0]}, {wanted[1]}] in its channel of the robot YAML'
    )


class ImageWorker(Generic[Read]):
    """Reads the images of one channel in a thread of its own.

    An image that still waits when a newer one arrives is dropped.

    Args:
        read: returns what a message says, or raises.
        warm_up: what is done once in that thread, so that no image pays for initialisation.
    """

    def __init__(self, read: Callable[[Any], Read], warm_up: Callable[[], None]) -> None:
        self._read = read
        self._worker = InferenceWorker('images')
        self._orders: deque[tuple[float, Future[Read]]] = deque()
        self._worker.submit(warm_up).result()

    def put(self, stamp: float, message: Any) -> None:
        """Request that an image is read.

        Args:
            stamp: its time [s].
            message: its message.
        """
        if self._orders and self._orders[-1][1].cancel():
            self._orders.pop()
        self._orders.append((stamp, self._worker.submit(self._read, message)))

    def take(self) -> tuple[float, Callable[[], Read]] | None:
        """Return the next image that has been read: its stamp, and what returns or raises.

        None if there is none; this never waits.
        """
        if not self._orders or not self._orders[0][1].done():
            return None
        stamp, order = self._orders.popleft()
        return stamp, order.result

    def close(self) -> None:
        """End the thread."""
        self._worker.close()
