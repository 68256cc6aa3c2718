# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is done to the numbers of a channel before they are an observation.

In this order: decode, rotation form, degrees to radians, scale, offset, wrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from residual_rl_ros.errors import ObservationError
from residual_rl_ros.numerics import Array

QUATERNION, ROTATION_6D = 'quaternion', 'rotation_6d'
ROTATIONS = (QUATERNION, ROTATION_6D)
"""Forms of an orientation: a unit quaternion with w >= 0, or two columns of its matrix."""
UNIT_TOLERANCE = 0.01
"""So far may the length of an orientation be from 1."""
NO_ANGLE = 'effort'
"""Field of a JointState that `degrees` leaves as it is."""


@dataclass(frozen=True)
class ChannelTransform:
    """The transforms of a channel, as its keys say; nothing by default."""

    scale: tuple[float, ...] = ()
    """Factor of each observation name or of all."""
    offset: tuple[float, ...] = ()
    """What is then added, likewise."""
    degrees: bool = False
    """Angles are in degrees, and become radians; efforts of a JointState are left alone."""
    wrap: tuple[str, ...] = ()
    """Fields or observation names, without the channel's, that are wrapped to [-pi, pi]."""
    rotation: str = ''
    """One of `ROTATIONS`; empty leaves the orientation as it is."""

    def fields(self, fields: Sequence[str]) -> tuple[str, ...]:
        """Return the fields after the change of the rotation's form.

        Args:
            fields: of the message. The six numbers stand where the orientation's first one stood.
        """
        if self.rotation != ROTATION_6D:
            return tuple(fields)
        places = orientation_places(fields)
        first = min(places)
        root = fields[places[0]].removesuffix('orientation.x')
        made = tuple(f'{root}{ROTATION_6D}.{index}' for index in range(6))
        kept = [field for place, field in enumerate(fields) if place not in places]
        return (*kept[:first], *made, *kept[first:])

    def factors(self, fields: Sequence[str], joints: int = 1) -> Array:
        """Return the factor of each observation name, degrees and scale together.

        Args:
            fields: as `fields` returns them.
            joints: number of values of each field.
        """
        size = len(fields) * joints
        factors = np.full(size, self.scale[0] if self.scale else 1.0)
        if len(self.scale) > 1:
            factors[:] = self.scale
        if self.degrees:
            angles = np.repeat([field != NO_ANGLE for field in fields], joints)
            factors[angles] *= math.pi / 180.0
        return factors


NO_TRANSFORM = ChannelTransform()


def orientation_places(fields: Sequence[str]) -> tuple[int, ...]:
    """Return where x, y, z and w of an orientation are among fields; empty if one is missing."""
    ends = [f'orientation.{axis}' for axis in 'xyzw']
    found = [
        [place for place, field in enumerate(fields) if field == end or field.endswith(f'.{end}')]
        for end in ends
    ]
    return tuple(places[0] for places in found) if all(len(each) == 1 for each in found) else ()


class ValueTransform:
    """Transforms the values of one channel.

    Args:
        transform: what is done.
        fields: of the message.
        joints: names of the joints that each field has; empty if it is one value.
        where: the channel and its topic, for errors.
        topic: its topic.
    """

    def __init__(
        self,
        transform: ChannelTransform,
        fields: Sequence[str],
        joints: Sequence[str],
        where: str,
        topic: str,
    ) -> None:
        self._where, self._topic = where, topic
        self._before: list[int] = []
        self._after: list[int] = []
        self._rotate: Callable[[Array], Array] | None = None
        self._places = list(orientation_places(fields)) if transform.rotation else []
        if transform.rotation == QUATERNION:
            self._rotate = self._with_quaternion
        elif transform.rotation == ROTATION_6D:
            self._rotate = self._with_rotation_6d
            first = min(self._places)
            self._before = list(range(first))
            self._after = [at for at in range(first, len(fields)) if at not in self._places]
        self._size = len(fields) * max(len(joints), 1)
        made = transform.fields(fields)
        factors = transform.factors(made, max(len(joints), 1))
        self._factors = None if (factors == 1.0).all() else factors
        offset = np.array(transform.offset or [0.0])
        self._offset = offset if offset.any() else None
        wrapped = [
            field in transform.wrap or f'{field}.{joint}' in transform.wrap
            for field in made
            for joint in joints or ('',)
        ]
        self._wrapped = np.flatnonzero(wrapped) if transform.wrap else None

    def __call__(self, values: Array) -> Array:
        """Return new values; those of a wrong number as they are, for they are refused later.

        Args:
            values: of a message, in the order of the channel's fields.

        Raises:
            ObservationError: an orientation is no rotation.
        """
        if values.size != self._size:
            return values
        if self._rotate is not None:
            values = self._rotate(values)
        # What is not finite, or no longer is, the assembler refuses by name.
        with np.errstate(over='ignore', invalid='ignore'):
            if self._factors is not None:
                values = values * self._factors
            if self._offset is not None:
                values = values + self._offset
            if self._wrapped is not None:
                values = values.copy()
                angles = values[self._wrapped]
                values[self._wrapped] = angles - 2.0 * math.pi * np.rint(angles / (2.0 * math.pi))
        return values

    def _quaternion(self, values: Array) -> Array:
        """Return the unit quaternion x, y, z, w with w >= 0 of the two that mean the same."""
        quaternion = values[self._places]
        length = math.sqrt(quaternion.dot(quaternion))
        if not abs(length - 1.0) <= UNIT_TOLERANCE:
            raise ObservationError(
                f'{self._where}: orientation {quaternion.tolist()} has the length {length:g}, '
                'expected 1; correct its publisher',
                self._topic,
            )
        x, y, z, w = quaternion.tolist()
        # Half a turn has w = 0: then the first axis that turns decides.
        leading = next(each for each in (w, x, y, z) if each != 0.0)
        unit: Array = quaternion / math.copysign(length, leading)
        return unit

    def _with_quaternion(self, values: Array) -> Array:
        values = values.copy()
        values[self._places] = self._quaternion(values)
        return values

    def _with_rotation_6d(self, values: Array) -> Array:
        """Put the first and the second column of the rotation matrix for the orientation."""
        x, y, z, w = self._quaternion(values).tolist()
        columns = [
            *(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + z * w), 2.0 * (x * z - y * w)),
            *(2.0 * (x * y - z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + x * w)),
        ]
        return np.concatenate((values[self._before], columns, values[self._after]))
