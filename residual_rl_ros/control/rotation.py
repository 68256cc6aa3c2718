# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Limit how far commanded orientations turn, by the angle of the rotation between them.

Its components say little of that: a rotation vector of +pi and one of -pi are the same orientation,
as are a quaternion and its negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from residual_rl_ros.base_policy.chunk_queue import Mixing
from residual_rl_ros.errors import UnsafeCommandError
from residual_rl_ros.numerics import Array, Float32
from residual_rl_ros.robot.action_spec import ActionSpec

Quaternion = tuple[float, float, float, float]
"""x, y, z, w."""
SMALLEST_QUATERNION = 1e-3
"""A shorter one has no direction to speak of."""
LENGTH_ERROR = 0.1
"""A measured quaternion may be so much longer or shorter than 1."""
TURN = 2.0 * math.pi


class OrientationLimit:
    """Limits one orientation of a command.

    A turn takes the shortest way. Only where the position limits leave out some orientations, and
    of two axes, does it go straight from one rotation vector to the other, on which way it is
    inside.

    Args:
        action: names and limits of the command.
        indices: see `ActionSpec.orientations`.
    """

    def __init__(self, action: ActionSpec, indices: Sequence[int]) -> None:
        self._places = [index for index in indices if index >= 0]
        self._axes = [axis for axis, index in enumerate(indices) if index >= 0]
        self._is_quaternion = len(indices) == 4
        self._names = ', '.join(action.names[index] for index in self._places)
        self._lower, self._upper = action.lower[self._places], action.upper[self._places]
        self._longest = TURN + float(action.following_limit[self._places].max())
        # The vector part of a unit quaternion turns half as fast as it does.
        factor = 2.0 if self._is_quaternion else 1.0
        self.max_angle = factor * float(action.max_step[self._places].min())
        """Largest turn from one control step to the next [rad]."""
        everywhere = bool((self._lower <= -math.pi).all() and (self._upper >= math.pi).all())
        self._shortest = self._is_quaternion or (everywhere and len(self._places) != 2)

    def check(self, command: Array) -> None:
        """Refuse a quaternion of no length.

        Raises:
            UnsafeCommandError: nobody knows what it means.
        """
        if self._is_quaternion:
            self._quaternion(command[self._places])

    def measured_problem(self, measured: Array) -> str:
        """Return what is wrong with numbers that no orientation is measured in, empty if nothing.

        Args:
            measured: where commands go, shape (m,).
        """
        part = measured[self._places]
        length = math.hypot(*part.tolist())
        if self._is_quaternion:
            expected = '' if abs(length - 1.0) <= LENGTH_ERROR else 'a quaternion of length 1'
        else:
            believable = length <= self._longest or self._contains(part)
            expected = '' if believable else f'a rotation vector of up to {self._longest:.4g} rad'
        return expected and f'{self._names} is measured as {part.tolist()}, expected {expected}'

    def bring_inside(self, command: Array) -> None:
        """Say an orientation outside of the position limits in other numbers, if that is inside."""
        given = command[self._places]
        if self._contains(given):
            return
        if self._is_quaternion:
            command[self._places] = self._quaternion(given)
            return
        inside = [each for each in self._same(given) if self._contains(each)]
        if inside:
            command[self._places] = inside[0]

    def step(self, wanted: Array, previous: Array) -> Array:
        """Return a command that turns at most `max_angle` away from another, its part of it.

        Args:
            wanted: command inside of the position limits, shape (m,).
            previous: where the step begins, shape (m,).

        Raises:
            UnsafeCommandError: a quaternion of no length: nobody knows what it means.
        """
        begin, end = previous[self._places], wanted[self._places]
        start = self._quaternion(begin)
        if self._is_quaternion and math.hypot(*end) < SMALLEST_QUATERNION:
            return begin
        turn = _vector(_product(self._quaternion(end), _inverse(start)))
        angle = math.hypot(*turn)
        if angle <= self.max_angle:
            return end
        if not self._shortest:
            way = self._nearest(end, begin) - begin
            length = float(np.linalg.norm(way))
            return begin + way * min(self.max_angle / length, 1.0) if length else begin
        part = [each * self.max_angle / angle for each in turn]
        reached = _product(_from_vector(part), start)
        if self._is_quaternion:
            return np.array(reached)
        return self._nearest(np.array(_vector(reached))[self._axes], begin)

    def continued(self, command: Array, previous: Array) -> Array:
        """Return the rotation vector nearest to another of those that are the same orientation.

        Args:
            command: shape (m,).
            previous: shape (m,).
        """
        given = command[self._places]
        return given if self._is_quaternion else self._nearest(given, previous[self._places])

    def difference(self, one: Array, other: Array) -> Array:
        """Return what turns one command into another, in numbers of the kind of the orientation."""
        end, begin = one[self._places], other[self._places]
        if self._is_quaternion:
            return end - begin if end @ begin >= 0.0 else -end - begin
        turn = _product(self._quaternion(end), _inverse(self._quaternion(begin)))
        return np.array(_vector(turn))[self._axes]

    def alike(self, command: Array, other: Array) -> Array:
        """Return its part of a command in the numbers nearest to another of the same orientation.

        Args:
            command: shape (m,).
            other: shape (m,).
        """
        given, near = command[self._places], other[self._places]
        if self._is_quaternion:
            return given if given @ near >= 0.0 else -given
        turn = [given, *self._same(given)]
        return min(turn, key=lambda each: float(np.linalg.norm(each - near)))

    def whole(self, command: Array) -> Array:
        """Return its part of a command, a quaternion with length 1 if it has any.

        Args:
            command: shape (m,).
        """
        given = command[self._places]
        length = float(np.linalg.norm(given)) if self._is_quaternion else 1.0
        return given / length if length >= SMALLEST_QUATERNION else given

    def put(self, command: Array, part: Array) -> None:
        """Write its part of a command, shape (m,)."""
        command[self._places] = part

    def _contains(self, part: Array) -> bool:
        return bool(((part >= self._lower) & (part <= self._upper)).all())

    def _same(self, vector: Array) -> list[Array]:
        """Return the shortest rotation vectors of an orientation: to one side and to the other."""
        angle = float(np.linalg.norm(vector))
        if angle == 0.0 or not math.isfinite(angle):
            return [vector]
        axis, short = vector / angle, math.remainder(angle, TURN)
        return [short * axis, (short - math.copysign(TURN, short)) * axis]

    def _nearest(self, vector: Array, other: Array) -> Array:
        """Return the vector of the same orientation, inside of the limits, nearest to another."""
        inside = [each for each in self._same(vector) if self._contains(each)]
        return min([vector, *inside], key=lambda each: float(np.linalg.norm(each - other)))

    def _quaternion(self, part: Array) -> Quaternion:
        """Return the unit quaternion of its part of a command."""
        if not self._is_quaternion:
            vector = [0.0, 0.0, 0.0]
            for axis, value in zip(self._axes, part.tolist(), strict=True):
                vector[axis] = value
            return _from_vector(vector)
        x, y, z, w = part.tolist()
        length = math.hypot(x, y, z, w)
        if length < SMALLEST_QUATERNION:
            raise UnsafeCommandError(
                f'the orientation {self._names} is {part.tolist()}, expected a quaternion with a '
                'length; holding'
            )
        return x / length, y / length, z / length, w / length


class OrientationMixing(Mixing):
    """Takes means of orientations, which several numbers stand for.

    The mean of a rotation vector and of its like on the other side of pi, or of a quaternion and
    its negative, is another orientation, or none.

    Args:
        orientations: those of an action.
    """

    def __init__(self, orientations: Sequence[OrientationLimit]) -> None:
        self._orientations = orientations

    def alike(self, rows: Float32, reference: Float32) -> Float32:
        """Return actions whose orientations are told in the numbers nearest to others."""
        if not self._orientations:
            return rows
        result = rows.copy()
        for row, other in zip(result, reference, strict=True):
            for orientation in self._orientations:
                orientation.put(row, orientation.alike(row, other))
        return result

    def whole(self, rows: Float32) -> Float32:
        """Return means of actions, of quaternions with length 1."""
        for row in rows:
            for orientation in self._orientations:
                orientation.put(row, orientation.whole(row))
        return rows


def _from_vector(vector: Sequence[float]) -> Quaternion:
    """Return the unit quaternion of axis times angle [rad]."""
    angle = math.hypot(*vector)
    factor = 0.5 if angle == 0.0 else math.sin(0.5 * angle) / angle
    x, y, z = vector
    return factor * x, factor * y, factor * z, math.cos(0.5 * angle)


def _vector(quaternion: Quaternion) -> tuple[float, float, float]:
    """Return axis times angle of a unit quaternion, the angle at most half a turn [rad]."""
    x, y, z, w = quaternion
    sine = math.hypot(x, y, z)
    angle = 2.0 * math.atan2(sine, abs(w))
    factor = math.copysign(2.0 if sine == 0.0 else angle / sine, w)
    return factor * x, factor * y, factor * z


def _inverse(quaternion: Quaternion) -> Quaternion:
    x, y, z, w = quaternion
    return -x, -y, -z, w


def _product(second: Quaternion, first: Quaternion) -> Quaternion:
    """Return the rotation that is one after another."""
    a, b, c, d = second
    x, y, z, w = first
    return (
        d * x + a * w + b * z - c * y,
        d * y - a * z + b * w + c * x,
        d * z + a * y - b * x + c * w,
        d * w - a * x - b * y - c * z,
    )
