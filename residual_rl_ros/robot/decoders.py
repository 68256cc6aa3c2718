# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The numbers in ROS messages, live or from a bag.

A message is any object with the attributes of its ROS type: one of rclpy, or one that a bag reader
made. Live and recorded messages are thus decoded by the same code.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ConfigError, ObservationError, ResidualRLError
from residual_rl_ros.numerics import all_finite
from residual_rl_ros.robot.camera import Camera, Sight
from residual_rl_ros.robot.codecs import Codec, find_codec
from residual_rl_ros.robot.image_messages import calibration_of, picture_of
from residual_rl_ros.robot.image_preprocessing import RgbImage
from residual_rl_ros.robot.joint_states import JointReader, SourceWatch, two_publishers
from residual_rl_ros.robot.laser_scan import beams_of
from residual_rl_ros.robot.observation import MAX_STAMP_S
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
    StopInput,
)
from residual_rl_ros.robot.transform_tree import TransformReader
from residual_rl_ros.robot.transforms import NO_TRANSFORM, ValueTransform

Array = npt.NDArray[np.float64]

STAMP_LABEL = 'stamp_ns:'
"""Begins the label that ties a header-less message to a time [ns]."""
STAMP_DIGITS = 19
"""Longest time in a label: nanoseconds of an int64."""
FIELD_ROOTS = {
    POSE: 'pose.',
    POSE_WITH_COVARIANCE: 'pose.pose.',
    'geometry_msgs/msg/TwistStamped': 'twist.',
    'geometry_msgs/msg/WrenchStamped': 'wrench.',
}
"""Attribute path that every field of a type starts with; none for the others."""


def to_nanoseconds(stamp: float) -> int:
    """Return whole nanoseconds of seconds."""
    return round(stamp * 1e9)


def to_seconds(sec: int, nanosec: int) -> float:
    """Return the seconds of a time message."""
    return float(sec) + float(nanosec) * 1e-9


def rounded(stamp: float) -> float:
    """Return a stamp as it is after its way through a time message [s]; one beyond it as it is."""
    if not abs(stamp) <= MAX_STAMP_S:
        return stamp
    return to_seconds(*divmod(to_nanoseconds(stamp), 10**9))


def label_of(message: Any) -> str:
    """Return the label of the first dimension, empty if there is none."""
    layout = getattr(message, 'layout', None)
    return str(layout.dim[0].label) if layout and layout.dim else ''


def stamped_label(stamp: float) -> str:
    """Return the label that ties a header-less command to the observation it answers."""
    return f'{STAMP_LABEL}{to_nanoseconds(stamp)}'


def stamp_of(message: Any) -> float | None:
    """Return the time in a message's header or label [s]; None if it has none."""
    header = getattr(message, 'header', None)
    if header is None:
        label = label_of(message)
        digits = label.removeprefix(STAMP_LABEL)
        if digits == label or not (digits.isascii() and digits.isdigit()):
            return None
        return rounded(int(digits) * 1e-9) if len(digits) <= STAMP_DIGITS else None
    sec, nanosec = header.stamp.sec, header.stamp.nanosec
    return to_seconds(sec, nanosec) if sec or nanosec else None


class Reading(NamedTuple):
    """What a message says of a channel."""

    stamp: float
    """Time of the values [s]: the message's own or, if it has none that counts, of receipt."""
    values: Array
    """In the order of the channel's observation names."""
    stamped: bool
    """Whether the time is the message's own."""
    picture: RgbImage | None = None
    """Of a camera whose pictures the base policy wants, shape (height, width, 3)."""


class MessageDecoder:
    """Turns a channel's messages into values in the order of its observation names.

    Args:
        channel: the channel.
        lockstep: a stamp belongs to one observation, so that a message has all joints or none.
        clock: monotonic time, for the silence of publishers [s].
        picture_size: height and width of the pictures that the base policy wants of the channel
            [px]; None if it wants none.

    Raises:
        ConfigError: its messages have no stamp of one observation, which lockstep needs, or no
            installed package has a codec for the type.
    """

    def __init__(
        self,
        channel: Channel,
        lockstep: bool = False,
        clock: Callable[[], float] = time.monotonic,
        picture_size: tuple[int, int] | None = None,
    ) -> None:
        if lockstep and channel.lockstep_problem:
            raise ConfigError(f'robot.observation.{channel.name}.{channel.lockstep_problem}')
        self._channel = channel
        self._where = f'channel {channel.name!r} ({channel.topic})'
        self._getters: list[Callable[[Any], float]] = []
        self.joints: JointReader | None = None
        """Knows the joints of the latest messages; None for other types."""
        if channel.type == JOINT_STATE:
            self.joints = JointReader(channel, lockstep, clock)
        self._transforms = TransformReader(channel) if channel.type == TF else None
        self._source = SourceWatch(channel.max_age_s, clock)
        self._transform: ValueTransform | None = None
        if channel.transform != NO_TRANSFORM:
            self._transform = ValueTransform(
                channel.transform, channel.fields, channel.joints, self._where, channel.topic
            )
        self.values: Callable[[Any], Array] = self._field_values
        """Returns the values of a message as they are in it; `read` transforms them, and takes
        joints, which may be in several."""
        if channel.type == FLOAT_ARRAY:
            self.values = self._array_values
        elif channel.type == LASER_SCAN:
            self.values = self._beam_values
        elif channel.type == JOY:
            self._picks = [(part, int(at)) for part, at in (f.split('.') for f in channel.fields)]
            self.values = self._joy_values
        elif channel.is_image:
            self._camera = Camera(channel, picture_size)
            self.values = self._image_values
        elif channel.type not in CHANNEL_TYPES:
            self._codec: Codec = find_codec(channel.type)
            self.values = self._codec_values
        elif self.joints is None and self._transforms is None:
            root = FIELD_ROOTS.get(channel.type, '')
            self._getters = [attrgetter(root + field) for field in channel.fields]

    @property
    def hint(self) -> str:
        """What it waits for beside its messages, or why they are old; empty if nobody knows."""
        if self._transforms is not None:
            return self._transforms.hint
        return self._camera.waits_for if self._channel.is_image else ''

    def warm_up(self) -> None:
        """Encode a black image, so that no real one pays for initialisation."""
        if self._channel.is_image:
            self._camera.warm_up()

    def check(self, example: Any) -> None:
        """Refuse fields that a message of the channel's type does not have.

        Raises:
            ObservationError: one is missing or no number.
        """
        for field, getter in zip(self._channel.fields, self._getters, strict=False):
            try:
                float(getter(example))
            except (AttributeError, TypeError) as error:
                raise ObservationError(
                    f'channel {self._channel.name!r}: {self._channel.type} has no number {field!r}'
                ) from error

    def read(
        self,
        message: Any,
        now: Callable[[], float],
        count: int | None = None,
        aside: bool = False,
    ) -> Reading | None:
        """Return what a message says, None if that is nothing yet; `hint` may know why.

        Args:
            message: of the channel's topic; of `SERIALIZED_TYPES` its bytes.
            now: tells when it was received [s], which is asked only if that counts.
            count: number that its publisher gave it, where the middleware tells.
            aside: the message is of the second of the channel's `sources`.

        Raises:
            ObservationError: it cannot be used, or the channel has two publishers.
        """
        if self._transforms is not None:
            by_receipt = self._channel.stamped_by == 'receipt'
            found = self._transforms.read(message, now() if by_receipt else None, aside)
            if found is None:
                return None
            return Reading(found[0], self._transformed(found[1]), not by_receipt)
        if aside:
            self._calibrate(message)
            return None
        if self._channel.latched:  # It is heard twice, and who gives it may change.
            count = None
        own = self.stamp(message)
        stamp = now() if own is None else own
        if self.joints is not None:
            read = self.joints.read(message, stamp, count)
            if read is None:
                return None
            return Reading(read[0], self._transformed(read[1]), own is not None)
        picture = None
        if self._channel.is_image:
            if self._camera.waits_for:
                return None
            values, picture = self.look(message)
        else:
            values = self._transformed(self.values(message))
        if count is not None and all_finite(values) and self._source.disagrees(count):
            raise two_publishers(self._channel)
        return Reading(stamp, values, own is not None, picture)

    def stamp(self, message: Any) -> float | None:
        """Return the stamp [s]; None if the time of receipt counts.

        That is chosen in the robot YAML, or an array has no label.

        Raises:
            ObservationError: a header has no stamp, or another frame than the channel's, or what
                looks like a stamp is none.
        """
        self._check_frame(message)
        if self._channel.stamped_by == 'receipt':
            return None
        stamp = stamp_of(message)
        if stamp is None:
            self._check_unstamped(message)
        return stamp

    def _check_frame(self, message: Any) -> None:
        """Refuse values in another frame than the robot YAML says."""
        expected = self._channel.frame_id
        if not expected:
            return
        header = getattr(message, 'header', None)
        if header is None or header.frame_id != expected:
            said = 'missing, without a header' if header is None else repr(header.frame_id)
            raise ObservationError(
                f'{self._where}: frame_id is {said}, expected {expected!r}; '
                'correct its publisher or frame_id in the robot YAML',
                self._channel.topic,
                'frame',
            )

    def _check_unstamped(self, message: Any) -> None:
        """Refuse a message that should have a stamp; an array need not have a label."""
        if self._channel.type != FLOAT_ARRAY:
            problem = (
                'the header has no stamp; correct its publisher or set stamped_by: receipt in the '
                'robot YAML'
            )
        elif (label := label_of(message)).startswith(STAMP_LABEL):
            problem = f'label {label[:40]!r} is no stamp, expected up to {STAMP_DIGITS} digits'
        else:
            return
        raise ObservationError(f'{self._where}: {problem}')

    def _transformed(self, values: Array) -> Array:
        return values if self._transform is None else self._transform(values)

    def _beam_values(self, message: Any) -> Array:
        try:
            return beams_of(message, self._channel.beams)
        except ValueError as error:
            raise ObservationError(f'{self._where} {error}', self._channel.topic) from error

    def _codec_values(self, message: Any) -> Array:
        try:
            return self._codec.numbers(message, self._channel.fields)
        except ValueError as error:
            raise ObservationError(
                f'{self._where}: {self._channel.type}: {error}', self._channel.topic
            ) from error

    def _joy_values(self, message: Any) -> Array:
        values = []
        for part, index in self._picks:
            data = getattr(message, part)
            if index >= len(data):
                raise ObservationError(
                    f'{self._where} has {len(data)} {part}, the robot YAML names {part}.{index}',
                    self._channel.topic,
                )
            values.append(data[index])
        return np.array(values, dtype=np.float64)

    def _array_values(self, message: Any) -> Array:
        return np.array(message.data, dtype=np.float64)

    def look(self, message: Any) -> Sight:
        """Return what is seen of an image message.

        Raises:
            ObservationError: it holds no usable picture.
        """
        try:
            return self._camera.look(picture_of(message, self._channel))
        except (ValueError, ResidualRLError) as error:
            raise ObservationError(f'{self._where}: {error}') from error

    def _calibrate(self, message: Any) -> None:
        """Take in a CameraInfo."""
        try:
            self._camera.calibrate(calibration_of(message))
        except ResidualRLError as error:
            raise ObservationError(
                f'channel {self._channel.name!r} ({self._channel.camera_info_topic}): {error}',
                self._channel.topic,
                'calibration',
            ) from error

    def _image_values(self, message: Any) -> Array:
        return self.look(message).values

    def _field_values(self, message: Any) -> Array:
        return np.array([getter(message) for getter in self._getters], dtype=np.float64)


def check_stop_input(stop: StopInput, example: Any) -> None:
    """Refuse a field that a stop input's messages do not have; in a list, only messages tell.

    Args:
        stop: the stop input.
        example: an empty message of its type.

    Raises:
        ConfigError: the message has no such field, or it is no number, text or vector.
    """
    _stop_reason(stop, example)


def stop_reason(stop: StopInput, message: Any) -> str:
    """Return why a message of a stop input forbids to move, empty if it does not.

    A message without the field does.

    Args:
        stop: the stop input.
        message: a message of its type.
    """
    try:
        return _stop_reason(stop, message)
    except ConfigError as error:
        return str(error)


def _stop_reason(stop: StopInput, message: Any) -> str:
    where = f'robot.stop_inputs.{stop.name}.field'
    try:
        value = _pick(message, stop.field)
    except LookupError as error:
        return f'stop input {stop.name!r}: {stop.topic} has no {error.args[0]}'
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f'{where} is {stop.field!r}: {stop.type}: {error}') from error
    if all(hasattr(value, axis) for axis in 'xyz'):
        value = float(np.linalg.norm([value.x, value.y, value.z]))
    if isinstance(value, bytes) and len(value) == 1:
        value = value[0]
    if not isinstance(value, (bool, int, float, str)):
        raise ConfigError(f'{where} is {stop.field!r}, expected a number, a text or x, y, z')
    if not stop.says_stop(value):
        return ''
    return f'stop input {stop.name!r}: {stop.topic} {stop.field} is {value}'


def _pick(message: Any, path: str) -> Any:
    """Return a field by its path, such as `wrench.force` or `controllers[name=arm].state.label`.

    Raises:
        LookupError: no element of a list is the one that is asked for.
        AttributeError, TypeError, ValueError: the type has no such field.
    """
    value = message
    for part in filter(None, re.split(r'\.|(\[[^\]]*\])', path)):
        if not part.startswith('['):
            value = getattr(value, part)
            continue
        key, is_key, wanted = part[1:-1].partition('=')
        if not is_key:
            raise ValueError(f'{part}, expected [key=value]')
        value = next((item for item in value if str(getattr(item, key)) == wanted), None)
        if value is None:
            raise LookupError(f'{key} {wanted!r}')
    return value
