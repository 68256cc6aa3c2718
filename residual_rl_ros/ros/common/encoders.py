# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Convert between ROS messages and arrays.

Float sequences are assigned as `array.array`, which costs a twentieth of assigning an ndarray.
"""

from __future__ import annotations

import array
import io
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from builtin_interfaces.msg import Time
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import (
    Float64MultiArray,
    MultiArrayDimension,
    MultiArrayLayout,
    UInt8MultiArray,
)

from residual_rl_ros.errors import ConfigError, ObservationError
from residual_rl_ros.robot.decoders import FIELD_ROOTS, message_decoder
from residual_rl_ros.robot.image_preprocessing import RgbImage
from residual_rl_ros.robot.message_order import MessageOrder
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.robot.stamps import stamped_label, to_nanoseconds
from residual_rl_ros.robot.topics import (
    CHANNEL_TYPES,
    COMPRESSED_IMAGE,
    FLOAT_ARRAY,
    IMAGE,
    JOINT_STATE,
    JOY,
    LASER_SCAN,
    SCALAR_TYPES,
    SERIALIZED_TYPES,
    TF,
    Channel,
)
from residual_rl_ros.robot.transforms import NO_TRANSFORM
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.transitions.cdr import labelled_array


def to_time(stamp: float) -> Time:
    """Return a time message of seconds."""
    nanoseconds = to_nanoseconds(stamp)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def float_array(values: npt.ArrayLike, label: str = '') -> Float64MultiArray:
    """Return a flat array message with one labelled dimension."""
    data = np.ascontiguousarray(values, dtype=np.float64)
    dimension = MultiArrayDimension(label=label, size=data.size, stride=data.size)
    return Float64MultiArray(
        layout=MultiArrayLayout(dim=[dimension], data_offset=0),
        data=array.array('d', data.tobytes()),
    )


def byte_array(data: bytes) -> UInt8MultiArray:
    """Return a byte array message."""
    return UInt8MultiArray(data=array.array('B', data))


def fill_image(message: Any, image: RgbImage) -> Any:
    """Fill an image message, raw (`rgb8`) or compressed without loss (PNG)."""
    if isinstance(message, CompressedImage):
        buffer = io.BytesIO()
        PIL.Image.fromarray(image).save(buffer, 'PNG')
        message.format, message.data = 'png', array.array('B', buffer.getvalue())
        return message
    message.height, message.width, _ = image.shape
    message.step, message.encoding = 3 * message.width, 'rgb8'
    message.data = array.array('B', image.tobytes())
    return message


NOT_SIMULATED = (LASER_SCAN, JOY, TF, *SCALAR_TYPES)
"""Channel types that are read and never sent."""
UNNUMBERED = 2**64 - 1
"""What a middleware says that does not count the messages of a publisher."""


def message_count(information: Mapping[str, Any]) -> int | None:
    """Return the number that its publisher gave a message, None if the middleware does not tell."""
    count = information.get('publication_sequence_number')
    return None if count is None or count >= UNNUMBERED else int(count)


def channel_classes(channel: Channel) -> list[Any]:
    """Return the message class of each source of a channel.

    Raises:
        ConfigError: the package of one is not installed.
    """
    try:
        return [message_class(source.type) for source in channel.sources]
    except ConfigError as error:
        raise ConfigError(f'robot.observation.{channel.name}.type: {error}') from error


class ChannelReader:
    """Listens to the topics of a channel.

    Args:
        channel: the channel.
        lockstep: see `message_decoder`.
        image_size: likewise.

    Raises:
        ConfigError: the package of a message type, or of its codec, is not installed.
        ObservationError: the message type has no such field.
    """

    def __init__(
        self,
        channel: Channel,
        lockstep: bool = False,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        self.channel = channel
        self.decoder = message_decoder(channel, lockstep, image_size=image_size)
        """Reads the messages."""
        self._types = channel_classes(channel)
        self.decoder.check(self._types[0]())

    def subscribe(
        self, node: Node, callback: Callable[[Any, Mapping[str, Any], bool], None]
    ) -> None:
        """Listen to the topics of the channel.

        Args:
            node: gets the subscriptions.
            callback: called with a message, what the middleware says of it, and whether it is from
                the second topic; the first and the third are for the decoder.
        """
        sources = zip(self.channel.sources, self._types, strict=True)
        order = MessageOrder(time.monotonic)
        # Transforms come from many publishers, and none replaces that of another.
        ordered = self.channel.latched and self.channel.type != TF
        for index, (source, kind) in enumerate(sources):

            def hear(
                message: Any, information: Mapping[str, Any], second: bool = index > 0
            ) -> None:
                if not ordered or order.is_newest(information.get('source_timestamp', 0)):
                    callback(message, information, second)

            if source.type in (IMAGE, COMPRESSED_IMAGE) and not source.latched:
                qos.subscribe_to_images(node, kind, source, hear)
                continue
            # Of several subscriptions to what is latched, one may not fit: that is no news.
            quiet = SubscriptionEventCallbacks(use_default_callbacks=not source.latched)
            raw = source.type in SERIALIZED_TYPES
            for profile in qos.of_topic(source):
                node.create_subscription(
                    kind, source.topic, hear, profile, event_callbacks=quiet, raw=raw
                )

    def feed(
        self,
        node: Node,
        assembler: ObservationAssembler,
        now: Callable[[], float],
        refuse: Callable[[ObservationError], object],
    ) -> None:
        """Listen to the topics of the channel, and hand what they say to an assembler.

        Args:
            node: gets the subscriptions.
            assembler: of channels of which this is one.
            now: returns the ROS time [s].
            refuse: is told why a message was refused.
        """
        name, decoder = self.channel.name, self.decoder
        assembler.hints[name] = decoder.hint

        def hear(message: Any, information: Mapping[str, Any], second: bool) -> None:
            try:
                reading = decoder.read(message, now, message_count(information), second)
                if reading is not None:
                    assembler.update(name, reading.stamp, reading.values)
            except ObservationError as error:
                assembler.refuse(error)
                refuse(error)
            assembler.hints[name] = decoder.hint

        self.subscribe(node, hear)


class ChannelEncoder:
    """Fills a channel's message from values in the order of its observation names.

    Args:
        channel: the channel.

    Raises:
        ConfigError: the simulator cannot send this type, or values that are transformed when they
            are read.
    """

    def __init__(self, channel: Channel) -> None:
        where = f'robot.observation.{channel.name}'
        if channel.type in NOT_SIMULATED or channel.type not in CHANNEL_TYPES:
            raise ConfigError(f'{where}.type is {channel.type}, which no simulated robot sends')
        if channel.latched or channel.camera_info_topic or channel.preprocessing.depth:
            raise ConfigError(
                f'{where} has latched, camera_info_topic or depth_range, which no simulated robot '
                'sends; remove it'
            )
        if channel.transform != NO_TRANSFORM:
            raise ConfigError(
                f'{where} has transforms, which a simulated robot does not undo; remove degrees, '
                'scale, offset, wrap and rotation'
            )
        self._channel = channel
        self.message_type = message_class(channel.type)
        root = FIELD_ROOTS.get(channel.type, '')
        self._message = self.message_type()
        if channel.frame_id:
            self._message.header.frame_id = channel.frame_id
        if channel.type == JOINT_STATE:
            self._message.name = list(channel.joints)
        self._targets: list[tuple[Any, str]] = []
        if channel.type not in (JOINT_STATE, FLOAT_ARRAY) and not channel.is_image:
            for field in channel.fields:
                *parents, attribute = (root + field).split('.')
                target = self._message
                for parent in parents:
                    target = getattr(target, parent)
                self._targets.append((target, attribute))

    def message(self, values: npt.NDArray[Any], stamp: float) -> Any:
        """Return the message, which the next call reuses, or its bytes: a publisher takes either.

        Args:
            values: shape (number of observation names of the channel,); for an image channel an
                RGB image, shape (height, width, 3).
            stamp: time of the values [s].
        """
        if self._channel.type == FLOAT_ARRAY:
            return labelled_array(values, stamped_label(stamp))
        self._message.header.stamp = to_time(stamp)
        if self._channel.is_image:
            return fill_image(self._message, values)
        if self._channel.type == JOINT_STATE:
            blocks = np.split(values, len(self._channel.fields))
            for field, block in zip(self._channel.fields, blocks, strict=True):
                setattr(self._message, field, array.array('d', block.tobytes()))
        for (target, attribute), value in zip(self._targets, values.tolist(), strict=False):
            setattr(target, attribute, value)
        return self._message
