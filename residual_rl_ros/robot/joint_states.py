# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Joints and who publishes them: several drivers may share a topic, but not a joint.

An arm and its gripper often publish on one topic, each its own joints. A second publisher of the
same joint, such as one of zeros beside a driver, makes every other value wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ObservationError
from residual_rl_ros.numerics import Array, all_finite
from residual_rl_ros.robot.topics import Channel

Integers = npt.NDArray[np.int64]

SECOND_SOURCE_S = 2.0
"""So long after the latest message of a second publisher none is used [s]."""
LEAP = 0.05
"""A position that leaps by more, there and back, may be of two publishers [rad or m]."""
SAME_PLACE = 0.1
"""Share of a leap within which it ends where one has ended before."""
LEAPS = 4
"""So many leaps between the same two positions are of two publishers."""
MAX_LAYOUTS = 64
"""Lists of joint names that are remembered."""


class SourceWatch:
    """Notices that two publishers send the same values.

    The middleware counts the messages of each publisher: a count that does not grow is another's.

    Args:
        max_age_s: a publisher that is silent for longer may have been started anew [s].
        clock: monotonic time [s].
    """

    def __init__(self, max_age_s: float, clock: Callable[[], float]) -> None:
        self._max_age_s = max_age_s
        self._clock = clock
        self._count = -1
        self._heard = self._second_heard = -math.inf

    def disagrees(self, count: int) -> bool:
        """Return whether the values of a message that has just come have two publishers.

        Args:
            count: number that the publisher gave the message.
        """
        now = self._clock()
        if count <= self._count:
            if now - self._heard <= self._max_age_s:
                self._second_heard = now
                return True
            self._second_heard = -math.inf  # The other one is gone.
        self._count, self._heard = count, now
        return now - self._second_heard <= SECOND_SOURCE_S


class LeapWatch:
    """Notices that positions alternate between two places, where no publisher is told apart.

    Args:
        size: number of joints.
    """

    def __init__(self, size: int) -> None:
        self._last = np.full(size, np.nan)
        self._before = np.full(size, np.nan)
        self._places = np.full((size, 2), np.nan)
        self._leaps = np.zeros(size, dtype=np.int64)
        self._leapt = np.full(size, -np.inf)

    def disagrees(self, rows: Integers, positions: Array, stamp: float) -> bool:
        """Return whether the positions of a message have two publishers.

        Args:
            rows: which joints they are of.
            positions: their positions [rad or m].
            stamp: their time [s].
        """
        last, before = self._last[rows], self._before[rows]
        self._before[rows], self._last[rows] = last, positions
        leap = np.abs(positions - last)
        recent = np.abs(stamp - self._leapt[rows]) <= SECOND_SOURCE_S
        back = (leap > LEAP) & (np.abs(positions - before) <= SAME_PLACE * leap)
        if back.any():
            places = np.sort(np.stack([positions, last], axis=1), axis=1)
            same = np.abs(places - self._places[rows]).max(axis=1) <= SAME_PLACE * leap
            leaps = np.where(same & recent, self._leaps[rows] + 1, 1)
            touched = rows[back]
            self._places[touched], self._leaps[touched] = places[back], leaps[back]
            self._leapt[touched] = stamp
            recent |= back
        return bool(((self._leaps[rows] >= LEAPS) & recent).any())


class _Layout(NamedTuple):
    """Which joints of a channel a list of names has, and where."""

    rows: Integers
    columns: Integers
    whole: bool
    """Whether it has all of them."""


class JointReader:
    """Keeps the newest value of each joint of a channel, whichever message brought it.

    Args:
        channel: of joint states.
        lockstep: a stamp belongs to one observation, so that a message has all joints or none.
        clock: monotonic time, for the silence of publishers [s].
    """

    def __init__(self, channel: Channel, lockstep: bool, clock: Callable[[], float]) -> None:
        self._channel = channel
        self._lockstep = lockstep
        size = len(channel.joints)
        self._values: Array = np.full(len(channel.fields) * size, np.nan)
        self._stamps: Array = np.full(size, -np.inf)
        self._latest_whole = -math.inf
        """Stamp of the latest message with all joints, if no other came after it."""
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._names: list[str] = []
        self._layout = self._find([])
        self._incomplete_since: float | None = None
        self._source = SourceWatch(channel.max_age_s, clock)
        self._sources: list[SourceWatch] = []
        """Of each joint, once a message had only some of them."""
        self._leaps = LeapWatch(size) if 'position' in channel.fields else None
        # A leap is judged in radians or metres, whatever the driver counts in.
        factors = channel.transform.factors(channel.fields, size).reshape(-1, size)
        self._position_factors: Array = np.ones(size)
        if self._leaps is not None:
            self._position_factors = factors[channel.fields.index('position')]

    @property
    def absent(self) -> list[str]:
        """Joints that no message has had."""
        stamps = zip(self._channel.joints, self._stamps, strict=True)
        return [joint for joint, stamp in stamps if max(stamp, self._latest_whole) == -math.inf]

    @property
    def seen(self) -> list[str]:
        """Names in the messages so far."""
        return sorted({name for names in self._layouts for name in names})

    def read(self, message: Any, stamp: float, count: int | None) -> tuple[float, Array] | None:
        """Return the time and the values of all joints, None while some are not known.

        Args:
            message: joint state.
            stamp: its time [s].
            count: number that its publisher gave it, None if there is none.

        Returns:
            The oldest stamp of a joint [s], so that a driver that falls silent is noticed, and the
            values in the order of the channel's observation names.

        Raises:
            ObservationError: a field has another size than the names, a joint stays away, or has
                two publishers.
        """
        layout = self._find(message.name)
        if not layout.whole:
            if self._lockstep:
                joints = [name for name in self._channel.joints if name not in self._names]
                if layout.rows.size or self.absent:
                    raise self._missing(joints)
            if not layout.rows.size:
                return None
        values = self._fields_of(message, layout.columns)
        if all_finite(values):  # What is no number is refused by name, and is no source.
            self._check_sources(layout, values, stamp, count)
        if layout.whole:
            self._values, self._latest_whole = values, stamp
            self._incomplete_since = None
            return stamp, values
        return self._completed(layout.rows, values, stamp)

    def _completed(self, rows: Integers, part: Array, stamp: float) -> tuple[float, Array] | None:
        """Return the time and the values of all joints, some of which are in a message."""
        limit = self._channel.max_age_s
        if self._latest_whole > -math.inf:
            self._stamps.fill(self._latest_whole)
            self._latest_whole = -math.inf
        behind = float(self._stamps[rows].max()) - stamp
        if 0.0 < behind <= limit:
            return None  # It was overtaken on its way.
        if behind > 0.0:  # The clock was set back: no stamp so far means anything.
            self._stamps.fill(-math.inf)
        values = self._values.reshape(len(self._channel.fields), -1).copy()
        values[:, rows] = part.reshape(len(self._channel.fields), -1)
        self._values = values.ravel()
        self._stamps[rows] = stamp
        oldest = float(self._stamps.min())
        if stamp - oldest > limit:
            self._wait(stamp)
            return None
        self._incomplete_since = None
        return oldest, self._values

    def _find(self, names: Sequence[str]) -> _Layout:
        """Return which joints a message has."""
        if names != self._names or not self._layouts:
            self._names = list(names)
            key = tuple(names)
            if key not in self._layouts:
                if len(self._layouts) >= MAX_LAYOUTS:
                    self._layouts.clear()
                index = {name: column for column, name in reversed(list(enumerate(key)))}
                joints = self._channel.joints
                found = [(row, index[joint]) for row, joint in enumerate(joints) if joint in index]
                pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
                self._layouts[key] = _Layout(
                    pairs[:, 0].copy(), pairs[:, 1].copy(), len(pairs) == len(joints)
                )
            self._layout = self._layouts[key]
        return self._layout

    def _fields_of(self, message: Any, columns: Integers) -> Array:
        """Return the fields of the joints in a message, field by field."""
        rows = []
        for field in self._channel.fields:
            data = np.asarray(getattr(message, field))
            if data.size != len(self._names):
                raise ObservationError(
                    f'channel {self._channel.name!r}: {field} has {data.size} values for '
                    f'{len(self._names)} joints on {self._channel.topic}',
                    self._channel.topic,
                )
            rows.append(data[columns])
        return np.concatenate(rows)

    def _check_sources(
        self, layout: _Layout, values: Array, stamp: float, count: int | None
    ) -> None:
        if count is not None:
            if not layout.whole and not self._sources:
                self._sources = [copy(self._source) for _ in self._channel.joints]
            if self._sources:
                sources = [self._sources[row] for row in layout.rows]
                disagree = sum(source.disagrees(count) for source in sources) > 0
            else:
                disagree = self._source.disagrees(count)
        elif self._leaps is not None:
            at = self._channel.fields.index('position') * layout.rows.size
            positions = values[at : at + layout.rows.size] * self._position_factors[layout.rows]
            disagree = self._leaps.disagrees(layout.rows, positions, stamp)
        else:
            return
        if disagree:
            joints = ', '.join(self._channel.joints[row] for row in layout.rows)
            raise two_publishers(self._channel, f' of {joints}')

    def _wait(self, stamp: float) -> None:
        """Wait for the joints that are not there yet, or no more, for as long as they may take."""
        since = self._incomplete_since
        if since is None or stamp < since:
            self._incomplete_since = since = stamp
        if stamp - since > self._channel.max_age_s:
            old = self._stamps < stamp - self._channel.max_age_s
            raise self._missing([self._channel.joints[row] for row in np.flatnonzero(old)])

    def _missing(self, joints: list[str]) -> ObservationError:
        channel, limit = self._channel, self._channel.max_age_s
        absent = [joint for joint in joints if joint in self.absent]
        if absent:
            reason = (
                f'joints {absent} are not in {channel.topic}, which has {self.seen}; correct '
                'joints in the robot YAML, or start their driver'
            )
        else:
            reason = (
                f'joints {joints} have been in no message on {channel.topic} for more than '
                f'{limit:g} s, the others have; is their driver alive?'
            )
        return ObservationError(f'channel {channel.name!r}: {reason}', channel.topic)


def two_publishers(channel: Channel, what: str = '') -> ObservationError:
    """Return the error of a channel with two sources.

    Args:
        channel: the channel.
        what: ' of ' and what they both publish, empty for all of it.
    """
    return ObservationError(
        f'channel {channel.name!r}: two publishers{what} on {channel.topic} take turns; stop one '
        f'of them: ros2 topic info --verbose {channel.topic}',
        channel.topic,
        'two publishers',
    )
