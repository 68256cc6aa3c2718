# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Assemble the flat observation from the newest value of every channel."""

from __future__ import annotations

import numpy as np

from residual_rl_ros.errors import ObservationError
from residual_rl_ros.numerics import FLOAT32_MAX, Array, within
from residual_rl_ros.robot.image_preprocessing import RgbImage
from residual_rl_ros.robot.topics import AT_ONCE, Channel

MAX_STAMP_S = float(2**31)
"""Later stamps do not fit into a time message [s]."""


class ObservationAssembler:
    """Keeps the newest values of each channel.

    Args:
        channels: in observation order.
    """

    def __init__(self, channels: tuple[Channel, ...]) -> None:
        self._channels = channels
        self._names = [channel.observation_names for channel in channels]
        self._index = {channel.name: i for i, channel in enumerate(channels)}
        self._values: list[Array | None] = [None] * len(channels)
        self._stamps: list[float] = [-np.inf] * len(channels)
        self.images: dict[str, RgbImage] = {}
        """Newest image of each camera of which there are any, shape (height, width, 3), RGB."""
        self.latched = frozenset(channel.name for channel in channels if channel.latched)
        """Channels that are given once; what they said is kept, whatever the time."""
        self._given: dict[int, Array] = {}
        """What was last given of latched channels, until it is observed."""
        self.hints: dict[str, str] = {}
        """What a channel waits for beside its messages, by its name; empty: nothing."""
        self._refused: dict[str, str] = {}
        """Why the latest message of a topic was refused, of topics on which none was used since."""
        # Networks take float32, in which a large float64 is infinite.
        self._lower = [channel.bounds(channel.lower, -FLOAT32_MAX) for channel in channels]
        self._upper = [channel.bounds(channel.upper, FLOAT32_MAX) for channel in channels]
        self._surely = [
            max(min(-low.max(initial=-FLOAT32_MAX), high.min(initial=FLOAT32_MAX)), 0.0)
            for low, high in zip(self._lower, self._upper, strict=True)
        ]
        """Absolute values up to here are in the range of a channel."""

    def update(
        self, channel: str, stamp: float, values: Array, image: RgbImage | None = None
    ) -> None:
        """Take in a message.

        Args:
            channel: channel name.
            stamp: its time [s]; a message older than the one held is dropped.
            values: shape (number of observation names of the channel,).
            image: what they were read from, of a camera.

        Raises:
            ObservationError: wrong size, a value that is not finite or outside of the channel's
                range; the channel keeps what it had.
        """
        index = self._index[channel]
        names = self._names[index]
        if values.shape != (len(names),):
            raise ObservationError(
                f'channel {channel!r} ({self._channels[index].topic}) has {values.size} values, '
                f'expected {len(names)}'
            )
        if not within(values, self._surely[index]):
            self._check_range(index, values)
        if self._channels[index].latched:
            self._given[index], self._stamps[index] = values, np.inf
            self._refused.pop(self._channels[index].topic, None)
        elif stamp >= self._stamps[index]:
            self._values[index], self._stamps[index] = values, stamp
            if image is not None:
                self.images[channel] = image
            if self._refused:
                self._refused.pop(self._channels[index].topic, None)

    def refuse(self, error: ObservationError) -> None:
        """Remember why a message was refused, for what is said when its channel is stale."""
        if error.topic:
            self._refused[error.topic] = str(error)

    def _check_range(self, index: int, values: Array) -> None:
        """Refuse values outside of a channel's range, and NaN."""
        lower, upper = self._lower[index], self._upper[index]
        believable = (values >= lower) & (values <= upper)
        if not believable.all():
            bad = int(np.argmin(believable))
            raise ObservationError(
                f'{self._names[index][bad]} is {values[bad]} on {self._channels[index].topic}, '
                f'expected {lower[bad]:.4g} to {upper[bad]:.4g}'
            )

    def complete_at(self, stamp: float) -> bool:
        """Return whether every channel holds a value of exactly this stamp (lockstep)."""
        return all(held == stamp for held in self._stamps)

    def _adopt(self, in_episode: bool) -> None:
        """Let what was given of latched channels be observed, where its time has come."""
        for index, values in list(self._given.items()):
            waits = in_episode and self._channels[index].takes_effect != AT_ONCE
            if not waits or self._values[index] is None:
                self._values[index] = values
                del self._given[index]

    @property
    def oldest_stamp(self) -> float:
        """Stamp of the channel that is furthest behind; -inf before every channel was seen."""
        return min(self._stamps)

    def assemble(self, now: float | None = None, in_episode: bool = False) -> Array:
        """Return the observation, shape (n,).

        Args:
            now: current time [s] against which age is judged; None skips the check (lockstep). A
                value that is stamped later, by less than its `max_age_s`, is taken to be of now.
            in_episode: latched channels keep their values, but for those that change at once.

        Raises:
            ObservationError: a channel was never received, is older than its `max_age_s`, or is
                stamped as far in the future; that one is forgotten, or it would never age.
        """
        if self._given:
            self._adopt(in_episode)
        values: list[Array] = []
        for index, channel in enumerate(self._channels):
            value, stamp = self._values[index], self._stamps[index]
            if value is None:
                raise ObservationError(
                    f'channel {channel.name!r}: nothing received on {channel.topic}'
                    f'{self._because(channel)}',
                    channel.topic,
                    'missing',
                )
            if now is not None and now - stamp > channel.max_age_s:
                raise ObservationError(
                    f'channel {channel.name!r} is {now - stamp:.3f} s old, max_age_s is '
                    f'{channel.max_age_s} s{self._because(channel)}',
                    channel.topic,
                    'stale',
                )
            if now is not None and stamp - now > channel.max_age_s:
                self._values[index], self._stamps[index] = None, -np.inf
                raise ObservationError(
                    f'channel {channel.name!r} is stamped {stamp - now:.3f} s in the future; '
                    'synchronise the clocks or set stamped_by: receipt',
                    channel.topic,
                    'future',
                )
            if now is not None and now < stamp < np.inf:
                self._stamps[index] = now  # It ages, and what comes after it is newer.
            values.append(value)
        return np.concatenate(values)

    def _because(self, channel: Channel) -> str:
        reason, hint = self._refused.get(channel.topic), self.hints.get(channel.name)
        return f'; refused: {reason}' if reason else f'; {hint}' if hint else ''

    def clear(self) -> None:
        """Forget all but what is latched: after a jump of the clock, old values would be new."""
        for index, channel in enumerate(self._channels):
            if not channel.latched:
                self._values[index], self._stamps[index] = None, -np.inf
        self.images = {}
