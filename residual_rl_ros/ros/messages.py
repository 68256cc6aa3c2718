# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Convert between ROS messages and arrays.

Float sequences are assigned as `array.array`, which costs a twentieth of assigning an ndarray.
"""

from __future__ import annotations

import array
import io
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import PoseStamped, TwistStamped, WrenchStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CompressedImage, Image, Imu, JointState
from std_msgs.msg import Float64MultiArray, MultiArrayDimension, MultiArrayLayout, UInt8MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from residual_rl_ros.encoder import Picture, channel_encoder
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.observation import ObservationError
from residual_rl_ros.robot import (
    COMPRESSED_IMAGE,
    FLOAT_ARRAY,
    IMAGE,
    JOINT_STATE,
    TRAJECTORY,
    TWIST,
    Channel,
    Command,
)

Array = npt.NDArray[np.float64]

MESSAGE_TYPES: dict[str, tuple[Any, str]] = {
    JOINT_STATE: (JointState, ''),
    FLOAT_ARRAY: (Float64MultiArray, ''),
    IMAGE: (Image, ''),
    COMPRESSED_IMAGE: (CompressedImage, ''),
    'geometry_msgs/msg/PoseStamped': (PoseStamped, 'pose.'),
    'geometry_msgs/msg/TwistStamped': (TwistStamped, 'twist.'),
    'geometry_msgs/msg/WrenchStamped': (WrenchStamped, 'wrench.'),
    'nav_msgs/msg/Odometry': (Odometry, ''),
    'sensor_msgs/msg/Imu': (Imu, ''),
}
"""Message class and the attribute path that every field of the type starts with."""

STAMP_LABEL = 'stamp_ns:'


class CommandError(ResidualRLError):
    """A command message cannot be used; the robot keeps the one before."""


MAX_PIXELS = 4096 * 4096
"""A larger compressed picture is refused before it is decoded."""


def to_time(stamp: float) -> Time:
    """Return a time message of seconds."""
    nanoseconds = round(stamp * 1e9)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def from_seconds(seconds: float) -> Duration:
    """Return a duration message of seconds."""
    nanoseconds = round(seconds * 1e9)
    return Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def from_time(time: Time) -> float:
    """Return seconds, rounded to the nanosecond as `to_time` does."""
    return float(time.sec) + float(time.nanosec) * 1e-9


def float_array(values: npt.ArrayLike, label: str = '') -> Float64MultiArray:
    """Return a flat array message with one labelled dimension."""
    data = np.ascontiguousarray(values, dtype=np.float64)
    dimension = MultiArrayDimension(label=label, size=data.size, stride=data.size)
    return Float64MultiArray(
        layout=MultiArrayLayout(dim=[dimension], data_offset=0),
        data=array.array('d', data.tobytes()),
    )


def label_of(message: Float64MultiArray) -> str:
    """Return the label of the first dimension, empty if there is none."""
    return str(message.layout.dim[0].label) if message.layout.dim else ''


def byte_array(data: bytes) -> UInt8MultiArray:
    """Return a byte array message."""
    return UInt8MultiArray(data=array.array('B', data))


def stamped_label(stamp: float) -> str:
    """Return the label that ties a header-less command to the observation it answers."""
    return f'{STAMP_LABEL}{round(stamp * 1e9)}'


COLOURS: dict[str, tuple[int, list[int]]] = {
    'rgb8': (3, [0, 1, 2]),
    'bgr8': (3, [2, 1, 0]),
    'rgba8': (4, [0, 1, 2]),
    'bgra8': (4, [2, 1, 0]),
    'mono8': (1, [0, 0, 0]),
}
"""Image encodings: bytes of a pixel, and which of them are red, green and blue."""


def to_rgb(message: Image) -> Picture:
    """Return an image message as RGB, shape (height, width, 3).

    Raises:
        ValueError: an encoding that is not 8-bit colour or grey, or sizes that contradict.
    """
    if message.encoding not in COLOURS:
        raise ValueError(
            f'image encoding is {message.encoding!r}, expected one of {", ".join(COLOURS)}'
        )
    channels, order = COLOURS[message.encoding]
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(message.data, dtype=np.uint8)
    if step < width * channels or data.size != step * height:
        raise ValueError(
            f'image has {data.size} bytes for {height} rows of {step} bytes, {width} pixels of '
            f'{channels}'
        )
    rows = data.reshape(height, step)[:, : width * channels]
    return rows.reshape(height, width, channels)[..., order]


def decompress(message: CompressedImage) -> Picture:
    """Return a compressed image message (JPEG or PNG) as RGB, shape (height, width, 3).

    Raises:
        ValueError: not a picture, or larger than `MAX_PIXELS`.
    """
    try:
        with PIL.Image.open(io.BytesIO(message.data), formats=('JPEG', 'PNG')) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f'picture has {picture.size} pixels, expected <= {MAX_PIXELS}')
            return np.asarray(picture.convert('RGB'))
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{len(message.data)} bytes are no JPEG or PNG: {error}') from error


def fill_image(message: Any, picture: Picture) -> Any:
    """Fill an image message, raw (`rgb8`) or compressed without loss (PNG)."""
    if isinstance(message, CompressedImage):
        buffer = io.BytesIO()
        PIL.Image.fromarray(picture).save(buffer, 'PNG')
        message.format, message.data = 'png', array.array('B', buffer.getvalue())
        return message
    message.height, message.width, _ = picture.shape
    message.step, message.encoding = 3 * message.width, 'rgb8'
    message.data = array.array('B', picture.tobytes())
    return message


class ChannelReader:
    """Turns a channel's messages into values in the order of its observation names.

    Args:
        channel: the channel.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.message_type, root = MESSAGE_TYPES[channel.type]
        self._joint_names: list[str] = []
        self._joint_index: list[int] = []
        self._getters: list[Callable[[Any], float]] = []
        if channel.type == JOINT_STATE:
            self.values: Callable[[Any], Array] = self._joint_values
        elif channel.type == FLOAT_ARRAY:
            self.values = self._array_values
        elif channel.is_image:
            self._encoder = channel_encoder(channel)
            self.values = self._picture_values
        else:
            self._getters = [attrgetter(root + field) for field in channel.fields]
            example = self.message_type()
            for field, getter in zip(channel.fields, self._getters, strict=True):
                try:
                    float(getter(example))
                except (AttributeError, TypeError) as error:
                    raise ObservationError(
                        f'channel {channel.name!r}: {channel.type} has no number {field!r}'
                    ) from error
            self.values = self._field_values

    def stamp(self, message: Any) -> float | None:
        """Return the stamp [s]; None if the time of receipt counts, chosen or for want of one."""
        if self._channel.stamped_by == 'receipt':
            return None
        header = getattr(message, 'header', None)
        if header is None:
            label = label_of(message)
            digits = label.removeprefix(STAMP_LABEL)
            if digits == label or not (digits.isascii() and digits.isdigit()):
                return None
            return from_time(to_time(int(digits) * 1e-9))
        return from_time(header.stamp) if header.stamp.sec or header.stamp.nanosec else None

    def _joint_values(self, message: JointState) -> Array:
        if message.name != self._joint_names:
            found = list(message.name)
            missing = [joint for joint in self._channel.joints if joint not in found]
            if missing:
                raise ObservationError(
                    f'channel {self._channel.name!r}: joints {missing} are not in '
                    f'{self._channel.topic}, which has {found}; correct joints in the robot YAML'
                )
            self._joint_names = found
            self._joint_index = [found.index(joint) for joint in self._channel.joints]
        blocks = []
        for field in self._channel.fields:
            data = np.asarray(getattr(message, field))
            if data.size != len(self._joint_names):
                raise ObservationError(
                    f'channel {self._channel.name!r}: {field} has {data.size} values for '
                    f'{len(self._joint_names)} joints on {self._channel.topic}'
                )
            blocks.append(data[self._joint_index])
        return np.concatenate(blocks)

    def _array_values(self, message: Float64MultiArray) -> Array:
        return np.array(message.data, dtype=np.float64)

    def _picture_values(self, message: Any) -> Array:
        compressed = self._channel.type == COMPRESSED_IMAGE
        try:
            picture = decompress(message) if compressed else to_rgb(message)
            return self._encoder.encode(picture)
        except (ValueError, ResidualRLError) as error:
            raise ObservationError(
                f'channel {self._channel.name!r} ({self._channel.topic}): {error}'
            ) from error

    def _field_values(self, message: Any) -> Array:
        return np.array([getter(message) for getter in self._getters], dtype=np.float64)


class CommandWriter:
    """Turns commands into messages.

    Args:
        command: topic description.
        period_s: control period, in which a trajectory point is to be reached [s].
        lockstep: stamp trajectories too, so that the simulator knows what they answer. On a robot
            they carry no stamp: its controller then starts them at once.
    """

    def __init__(self, command: Command, period_s: float, lockstep: bool) -> None:
        self.message_type, _ = COMMAND_MESSAGES[command.type]
        self._command = command
        self._stamped = lockstep or command.type != TRAJECTORY
        self._in = from_seconds(period_s)

    def message(self, values: Array, stamp: float) -> Any:
        """Return the message.

        Args:
            values: command, shape (m,).
            stamp: the observation that it answers in lockstep, otherwise now [s].
        """
        command = self._command
        if command.type == FLOAT_ARRAY:
            return float_array(values, stamped_label(stamp))
        message = self.message_type()
        if self._stamped:
            message.header.stamp = to_time(stamp)
        if command.type == TWIST:
            message.header.frame_id = command.frame_id
            for field, value in zip(command.fields, values.tolist(), strict=True):
                part, axis = field.split('.')
                setattr(getattr(message.twist, part), axis, value)
        elif command.type == JOINT_STATE:
            message.name = list(command.joints)
            message.position = array.array('d', values.tobytes())
        else:
            message.joint_names = list(command.joints)
            positions = array.array('d', values.tobytes())
            message.points = [JointTrajectoryPoint(positions=positions, time_from_start=self._in)]
        return message


class CommandReader:
    """Turns command messages into values in the order of the actions.

    Args:
        command: topic description.
        size: number of actions (m).
    """

    def __init__(self, command: Command, size: int) -> None:
        self.message_type, get = COMMAND_MESSAGES[command.type]
        self._get: Callable[[Any, Command], Any] = get
        self._command = command
        self._size = size

    def values(self, message: Any) -> Array:
        """Return the command, shape (m,).

        Raises:
            CommandError: a wrong size, a missing joint or a value that is not finite.
        """
        try:
            values = np.array(self._get(message, self._command), dtype=np.float64)
        except (IndexError, ValueError) as error:
            raise CommandError(f'command on {self._command.topic}: {error}') from error
        if values.shape != (self._size,) or not np.isfinite(values).all():
            raise CommandError(
                f'command on {self._command.topic} is {values.tolist()}, expected {self._size} '
                'finite numbers'
            )
        return values

    def answers(self, message: Any, stamp: float) -> bool:
        """Return whether the command answers the observation of a stamp [s]."""
        if self._command.type == FLOAT_ARRAY:
            return label_of(message) == stamped_label(stamp)
        return bool(message.header.stamp == to_time(stamp))


def _trajectory_positions(message: JointTrajectory, command: Command) -> list[float]:
    names, positions = list(message.joint_names), message.points[0].positions
    return [positions[names.index(joint)] for joint in command.joints]


def _joint_positions(message: JointState, command: Command) -> list[float]:
    names = list(message.name)
    return [message.position[names.index(joint)] for joint in command.joints]


def _twist_fields(message: TwistStamped, command: Command) -> list[float]:
    return [attrgetter(field)(message.twist) for field in command.fields]


COMMAND_MESSAGES: dict[str, tuple[Any, Callable[[Any, Command], Any]]] = {
    FLOAT_ARRAY: (Float64MultiArray, lambda message, command: message.data),
    TRAJECTORY: (JointTrajectory, _trajectory_positions),
    JOINT_STATE: (JointState, _joint_positions),
    TWIST: (TwistStamped, _twist_fields),
}
"""Message class of every command type, and how to read its values."""


class ChannelWriter:
    """Fills a channel's message from values in the order of its observation names.

    Args:
        channel: the channel.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.message_type, root = MESSAGE_TYPES[channel.type]
        self._message = self.message_type()
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
        """Return the message; it is reused by the next call.

        Args:
            values: shape (number of observation names of the channel,); for an image channel an
                RGB picture, shape (height, width, 3).
            stamp: time of the values [s].
        """
        if self._channel.type == FLOAT_ARRAY:
            return float_array(values, stamped_label(stamp))
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
