# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The numbers in ROS messages, live or from a bag: one decoder for each kind of message.

`message_decoder` returns the one of a channel.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np

from residual_rl_ros.errors import ConfigError, ObservationError, ResidualRLError
from residual_rl_ros.numerics import Array, all_finite
from residual_rl_ros.robot.camera import Camera, Sight
from residual_rl_ros.robot.codecs import find_codec
from residual_rl_ros.robot.image_messages import calibration_of, image_of
from residual_rl_ros.robot.joint_states import JointReader, SourceWatch, two_publishers
from residual_rl_ros.robot.laser_scan import beams_of
from residual_rl_ros.robot.message_decoder import MessageDecoder, Reading, StampedDecoder, Taken
from residual_rl_ros.robot.topics import (
    CHANNEL_TYPES,
    FLOAT_ARRAY,
    JOINT_STATE,
    JOY,
    LASER_SCAN,
    POSE,
    POSE_WITH_COVARIANCE,
    TF,
    Channel,
)
from residual_rl_ros.robot.transform_tree import TransformReader

FIELD_ROOTS = {
    POSE: 'pose.',
    POSE_WITH_COVARIANCE: 'pose.pose.',
    'geometry_msgs/msg/TwistStamped': 'twist.',
    'geometry_msgs/msg/WrenchStamped': 'wrench.',
}
"""Attribute path that every field of a type starts with; none for the others."""


class JointDecoder(StampedDecoder):
    """Joint states, of which a message may have some of the joints.

    Args:
        channel: the channel.
        lockstep: a stamp belongs to one observation, so that a message has all joints or none.
        clock: monotonic time, for the silence of publishers [s].
    """

    def __init__(self, channel: Channel, lockstep: bool, clock: Callable[[], float]) -> None:
        super().__init__(channel)
        self.joints = JointReader(channel, lockstep, clock)
        """Knows the joints of the latest messages."""

    def _take(self, message: Any, stamp: float, count: int | None) -> Taken | None:
        read = self.joints.read(message, stamp, count)
        return None if read is None else (*read, None)


class TransformDecoder(MessageDecoder):
    """The pose of a frame in another one, by the transforms between them."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self._transforms = TransformReader(channel)

    @property
    def hint(self) -> str:
        """Why there is no pose, or an old one."""
        return self._transforms.hint

    def read(
        self,
        message: Any,
        now: Callable[[], float],
        count: int | None = None,
        second: bool = False,
    ) -> Reading | None:
        """Return what a message says; see `MessageDecoder.read`."""
        by_receipt = self.channel.stamped_by == 'receipt'
        found = self._transforms.read(message, now() if by_receipt else None, second)
        if found is None:
            return None
        return Reading(found[0], self._transformed(found[1]), not by_receipt)


class WholeDecoder(StampedDecoder):
    """Messages that have all values of the channel.

    Args:
        channel: the channel.
        clock: monotonic time, for the silence of publishers [s].
    """

    def __init__(self, channel: Channel, clock: Callable[[], float]) -> None:
        super().__init__(channel)
        self._source = SourceWatch(channel.max_age_s, clock)

    @abstractmethod
    def _values(self, message: Any) -> Array:
        """Return the values of a message as they are in it.

        Raises:
            ValueError: it has none.
        """

    def _take(self, message: Any, stamp: float, count: int | None) -> Taken | None:
        values = self._values(message)
        self._check_source(values, count)
        return stamp, values, None

    def _check_source(self, values: Array, count: int | None) -> None:
        """Refuse a second publisher; what is no number is refused by name, and is no source."""
        if all_finite(values):
            self.check_source(count)

    def check_source(self, count: int | None) -> None:
        """Refuse a second publisher, once for a message; `read` does.

        Args:
            count: number that the publisher gave the message; None if nobody tells.

        Raises:
            ObservationError: the channel has two publishers.
        """
        if self.channel.latched:  # It is heard twice, and who gives it may change.
            return
        if count is not None and self._source.disagrees(count):
            raise two_publishers(self.channel)


class FieldDecoder(WholeDecoder):
    """Fields of a message, each by its path."""

    def __init__(self, channel: Channel, clock: Callable[[], float]) -> None:
        super().__init__(channel, clock)
        root = FIELD_ROOTS.get(channel.type, '')
        self._getters = [attrgetter(root + field) for field in channel.fields]

    def check(self, example: Any) -> None:
        """Refuse fields that an empty message has not, or that are no numbers."""
        for field, getter in zip(self.channel.fields, self._getters, strict=True):
            try:
                float(getter(example))
            except (AttributeError, TypeError) as error:
                raise ObservationError(
                    f'channel {self.channel.name!r}: {self.channel.type} has no number {field!r}'
                ) from error

    def _values(self, message: Any) -> Array:
        return np.array([getter(message) for getter in self._getters], dtype=np.float64)


class ArrayDecoder(WholeDecoder):
    """Elements of an array."""

    def _values(self, message: Any) -> Array:
        return np.array(message.data, dtype=np.float64)


class LaserDecoder(WholeDecoder):
    """The smallest range of each sector of a laser scan."""

    def _values(self, message: Any) -> Array:
        return beams_of(message, self.channel.beams)


class JoyDecoder(WholeDecoder):
    """Axes and buttons of a gamepad."""

    def __init__(self, channel: Channel, clock: Callable[[], float]) -> None:
        super().__init__(channel, clock)
        self._picks = [(part, int(at)) for part, at in (f.split('.') for f in channel.fields)]

    def _values(self, message: Any) -> Array:
        values = []
        for part, index in self._picks:
            data = getattr(message, part)
            if index >= len(data):
                raise ValueError(f'{len(data)} {part}, the robot YAML names {part}.{index}')
            values.append(data[index])
        return np.array(values, dtype=np.float64)


class CodecDecoder(WholeDecoder):
    """Messages of another package, by its codec.

    Raises:
        ConfigError: no installed package has a codec for the type.
    """

    def __init__(self, channel: Channel, clock: Callable[[], float]) -> None:
        super().__init__(channel, clock)
        self._codec = find_codec(channel.type)

    def _values(self, message: Any) -> Array:
        try:
            return self._codec.numbers(message, self.channel.fields)
        except ValueError as error:
            raise ValueError(f'{self.channel.type}: {error}') from error


class CameraDecoder(WholeDecoder):
    """Images, and what an encoder sees in them.

    Args:
        channel: the channel.
        clock: monotonic time, for the silence of publishers [s].
        image_size: height and width of the images that the base policy wants of the channel
            [px]; None if it wants none.
    """

    def __init__(
        self,
        channel: Channel,
        clock: Callable[[], float],
        image_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(channel, clock)
        self._camera = Camera(channel, image_size)

    @property
    def hint(self) -> str:
        """The calibration that it waits for."""
        return self._camera.waits_for

    def warm_up(self) -> None:
        """Encode a black image, so that no real one pays for initialisation."""
        self._camera.warm_up()

    def look(self, message: Any) -> Sight:
        """Return what is seen of an image message.

        Raises:
            ObservationError: it holds no usable image.
        """
        try:
            return self._camera.look(image_of(message, self.channel))
        except (ValueError, ResidualRLError) as error:
            raise ObservationError(f'{self._where}: {error}') from error

    def _values(self, message: Any) -> Array:
        return self.look(message).values

    def _take(self, message: Any, stamp: float, count: int | None) -> Taken | None:
        if self._camera.waits_for:
            return None
        values, image = self.look(message)
        self._check_source(values, count)
        return stamp, values, image

    def _take_second(self, message: Any) -> None:
        """Take in a CameraInfo."""
        try:
            self._camera.calibrate(calibration_of(message))
        except ResidualRLError as error:
            raise ObservationError(
                f'channel {self.channel.name!r} ({self.channel.camera_info_topic}): {error}',
                self.channel.topic,
                'calibration',
            ) from error


DECODERS: dict[str, type[WholeDecoder]] = {
    FLOAT_ARRAY: ArrayDecoder,
    LASER_SCAN: LaserDecoder,
    JOY: JoyDecoder,
}
"""By type; other types of `CHANNEL_TYPES` are read field by field."""


def message_decoder(
    channel: Channel,
    lockstep: bool = False,
    clock: Callable[[], float] = time.monotonic,
    image_size: tuple[int, int] | None = None,
) -> MessageDecoder:
    """Return the decoder of a channel.

    Args:
        channel: the channel.
        lockstep: a stamp belongs to one observation, so that a message has all joints or none.
        clock: monotonic time, for the silence of publishers [s].
        image_size: height and width of the images that the base policy wants of the channel
            [px]; None if it wants none.

    Raises:
        ConfigError: its messages have no stamp of one observation, which lockstep needs, no
            installed package has a codec for the type, or an encoder is unusable.
    """
    if lockstep and channel.lockstep_problem:
        raise ConfigError(f'robot.observation.{channel.name}.{channel.lockstep_problem}')
    if channel.type == JOINT_STATE:
        return JointDecoder(channel, lockstep, clock)
    if channel.type == TF:
        return TransformDecoder(channel)
    if channel.is_image:
        return CameraDecoder(channel, clock, image_size)
    if channel.type not in CHANNEL_TYPES:
        return CodecDecoder(channel, clock)
    return DECODERS.get(channel.type, FieldDecoder)(channel, clock)
