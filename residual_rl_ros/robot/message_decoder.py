# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the decoders of all kinds of messages share: stamps, frames and transforms.

A message is any object with the attributes of its ROS type: one of rclpy, or one that a bag reader
made. Live and recorded messages are thus decoded by the same code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from residual_rl_ros.errors import ObservationError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.image_preprocessing import RgbImage
from residual_rl_ros.robot.stamps import STAMP_DIGITS, STAMP_LABEL, label_of, stamp_of
from residual_rl_ros.robot.topics import FLOAT_ARRAY, Channel
from residual_rl_ros.robot.transforms import NO_TRANSFORM, ValueTransform

Taken = tuple[float, Array, RgbImage | None]
"""Stamp [s], values and image."""


class Reading(NamedTuple):
    """What a message says of a channel."""

    stamp: float
    """Time of the values [s]: the message's own or, if it has none that counts, of receipt."""
    values: Array
    """In the order of the channel's observation names."""
    stamped: bool
    """Whether the time is the message's own."""
    image: RgbImage | None = None
    """Of a camera whose images the base policy wants, shape (height, width, 3)."""


class MessageDecoder(ABC):
    """Turns a channel's messages into values in the order of its observation names.

    `message_decoder` makes the one for a channel.

    Args:
        channel: the channel.

    Raises:
        ConfigError: what the channel says of its values does not fit their number.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._where = f'channel {channel.name!r} ({channel.topic})'
        self._transform: ValueTransform | None = None
        if channel.transform != NO_TRANSFORM:
            self._transform = ValueTransform(
                channel.transform, channel.fields, channel.joints, self._where, channel.topic
            )

    @property
    def hint(self) -> str:
        """What it waits for beside its messages, or why they are old; empty if nobody knows."""
        return ''

    def check(self, example: Any) -> None:  # noqa: B027 (most types have all their fields)
        """Refuse fields that a message of the channel's type does not have.

        Raises:
            ObservationError: one is missing or no number.
        """

    @abstractmethod
    def read(
        self,
        message: Any,
        now: Callable[[], float],
        count: int | None = None,
        second: bool = False,
    ) -> Reading | None:
        """Return what a message says, None if that is nothing yet; `hint` may know why.

        Args:
            message: of one of the channel's topics; of `SERIALIZED_TYPES` its bytes.
            now: tells when it was received [s], which is asked only if that counts.
            count: number that its publisher gave it, where the middleware tells.
            second: the message is of the second of the channel's `sources`.

        Raises:
            ObservationError: it cannot be used, or the channel has two publishers.
        """

    def stamp(self, message: Any) -> float | None:
        """Return the stamp [s]; None if the time of receipt counts.

        That is chosen in the robot YAML, or an array has no label.

        Raises:
            ObservationError: a header has no stamp, or another frame than the channel's, or what
                looks like a stamp is none.
        """
        self._check_frame(message)
        if self.channel.stamped_by == 'receipt':
            return None
        stamp = stamp_of(message)
        if stamp is None:
            self._check_unstamped(message)
        return stamp

    def _check_frame(self, message: Any) -> None:
        """Refuse values in another frame than the robot YAML says."""
        expected = self.channel.frame_id
        if not expected:
            return
        header = getattr(message, 'header', None)
        if header is None or header.frame_id != expected:
            said = 'missing, without a header' if header is None else repr(header.frame_id)
            raise ObservationError(
                f'{self._where}: frame_id is {said}, expected {expected!r}; '
                'correct its publisher or frame_id in the robot YAML',
                self.channel.topic,
                'frame',
            )

    def _check_unstamped(self, message: Any) -> None:
        """Refuse a message that should have a stamp; an array need not have a label."""
        if self.channel.type != FLOAT_ARRAY:
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


class StampedDecoder(MessageDecoder):
    """Messages that have a stamp of their own, or the time at which they were received."""

    @abstractmethod
    def _take(self, message: Any, stamp: float, count: int | None) -> Taken | None:
        """Return what a message of the channel's own topic says, before transforms.

        Args:
            message: the message.
            stamp: its time [s].
            count: number that its publisher gave it; None if nobody tells.

        Raises:
            ObservationError: it cannot be used, or the channel has two publishers.
            ValueError: it cannot be used.
        """

    def _take_second(self, message: Any) -> None:
        """Take in a message of the second of the channel's `sources`."""
        raise AssertionError(f'{self._where} has one source')

    def read(
        self,
        message: Any,
        now: Callable[[], float],
        count: int | None = None,
        second: bool = False,
    ) -> Reading | None:
        """Return what a message says; see `MessageDecoder.read`."""
        if second:
            self._take_second(message)
            return None
        if self.channel.latched:  # It is heard twice, and who gives it may change.
            count = None
        own = self.stamp(message)
        try:
            read = self._take(message, now() if own is None else own, count)
        except ValueError as error:
            raise ObservationError(f'{self._where}: {error}', self.channel.topic) from error
        if read is None:
            return None
        stamp, values, image = read
        return Reading(stamp, self._transformed(values), own is not None, image)
