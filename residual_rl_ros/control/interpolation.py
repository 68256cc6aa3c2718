# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Between two control steps: commands at the rate of the controller instead of steps.

A command is reached about one control period after it was decided. Each interpolator begins where
the motion is, so that a command that is late or early makes no jump. In between nothing but the
position limits is checked: on a straight way between two safe commands velocities are safe too, and
a workspace is left by no more than the way bends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from residual_rl_ros.errors import ConfigError, UnsafeCommandError
from residual_rl_ros.numerics import Array, clamp

SLACK_SAMPLES, SLACK_SHARE = 2, 0.2
"""A command is reached so many samples, or that share of a period, after the next one is due: ticks
are not exactly on time, and a motion that has arrived stops."""
NEARLY = 0.95
"""Share of the velocity limit at which a command is passed at most: at the limit itself, rounding
would make it out of reach."""


def passing_velocities(points: Array, before: Array, period_s: float) -> Array:
    """Return the velocity with which each of some points is passed, shape (rows, m) [1/s].

    It is the mean of those to and from the point, zero where the direction changes and at the last.
    Cubic segments between the points then go beyond none of them (Fritsch and Carlson 1980).

    Args:
        points: one each control period, shape (rows, m).
        before: where the way begins, a period before the first, shape (m,).
        period_s: control period [s].
    """
    slopes = np.diff(points, axis=0, prepend=before[None]) / period_s
    to, on = slopes[:-1], slopes[1:]
    most = 3.0 * np.minimum(np.abs(to), np.abs(on))
    velocities = np.zeros_like(points)
    velocities[:-1] = np.where(to * on > 0.0, clamp(0.5 * (to + on), -most, most), 0.0)
    return velocities


@dataclass(frozen=True)
class MotionLimits:
    """What a motion must keep, in units of the commands; shape (m,) each."""

    lower: Array
    upper: Array
    max_velocity: Array
    """[1/s]."""
    max_acceleration: Array
    """[1/s^2]; size 0: no limit."""
    max_jerk: Array
    """[1/s^3]; size 0: no limit."""


class Interpolator(Protocol):
    """Makes a motion of commands."""

    def aim(self, command: Array, now: float) -> None:
        """Take in the command of a control step, shape (m,).

        Args:
            command: where the motion is to be after a control period.
            now: time [s].
        """

    def sample(self, now: float) -> Array:
        """Return what to send at a time [s], shape (m,). Times do not go back."""

    def jump(self, command: Array, now: float) -> None:
        """Begin anew at a command, at rest: the robot was moved, or nothing was sent yet."""

    def arrived(self, now: float) -> bool:
        """Return whether the motion rests at the last command; without a next one it gets there."""


def duration_s(period_s: float, sample_s: float) -> float:
    """Return the time in which a command is reached [s]."""
    return period_s + min(SLACK_SAMPLES * sample_s, SLACK_SHARE * period_s)


class LinearInterpolator:
    """Constant velocity from command to command.

    Args:
        limits: of the motion; those of acceleration and jerk must be empty.
        period_s: control period [s].
        sample_s: time between two samples [s].
    """

    def __init__(self, limits: MotionLimits, period_s: float, sample_s: float) -> None:
        del limits
        self._duration = duration_s(period_s, sample_s)
        self._began = 0.0
        self._from: Array = np.zeros(0)
        self._to: Array = np.zeros(0)

    def aim(self, command: Array, now: float) -> None:
        """Take in a command; see `Interpolator`."""
        self._from, self._to, self._began = self.sample(now), command.copy(), now

    def sample(self, now: float) -> Array:
        """Return what to send; see `Interpolator`."""
        share = min(max((now - self._began) / self._duration, 0.0), 1.0)
        sampled: Array = self._from + share * (self._to - self._from)
        return sampled

    def jump(self, command: Array, now: float) -> None:
        """Begin anew; see `Interpolator`."""
        self._from, self._to, self._began = command.copy(), command.copy(), now

    def arrived(self, now: float) -> bool:
        """Return whether the motion rests; see `Interpolator`."""
        return not 0.0 <= now - self._began < self._duration


class CubicInterpolator:
    """Cubic Hermite segments: position and velocity have no jumps.

    The velocity at the end of a segment is that between its command and the one before, and zero
    where the direction changes. A motion that must brake goes beyond its command by up to 4/27 of
    the way that it would have gone in the segment, and it is up to 1.5 times as fast as its steps.

    Args:
        limits, period_s, sample_s: see `LinearInterpolator`.
    """

    def __init__(self, limits: MotionLimits, period_s: float, sample_s: float) -> None:
        self._limits = limits
        self._period = period_s
        self._duration = duration_s(period_s, sample_s)
        self._began = 0.0
        self._to: Array = np.zeros(0)
        self._segment: tuple[Array, ...] = ()
        """x = c0 + c1 s + c2 s^2 + c3 s^3, of the share s of the segment."""

    def aim(self, command: Array, now: float) -> None:
        """Take in a command; see `Interpolator`."""
        position, velocity = self.sample(now), self._velocity(now)
        step = command - self._to
        ahead = command - position
        final = np.where(step * ahead > 0.0, step / self._period, 0.0)
        # Monotone (Fritsch and Carlson 1980): three times the mean slope of the segment at most.
        most = 3.0 * np.abs(ahead) / self._duration
        a, b = velocity * self._duration, clamp(final, -most, most) * self._duration
        self._to, self._began = command.copy(), now
        self._segment = position, a, 3.0 * ahead - 2.0 * a - b, a + b - 2.0 * ahead

    def sample(self, now: float) -> Array:
        """Return what to send; see `Interpolator`."""
        s = self._share(now)
        if s == 1.0:
            return self._to.copy()
        begin, first, second, third = self._segment
        position = begin + s * (first + s * (second + s * third))
        return clamp(position, self._limits.lower, self._limits.upper)

    def jump(self, command: Array, now: float) -> None:
        """Begin anew; see `Interpolator`."""
        self._to, self._began = command.copy(), now
        self._segment = (self._to, *3 * [np.zeros_like(command)])

    def arrived(self, now: float) -> bool:
        """Return whether the motion rests; see `Interpolator`."""
        return not 0.0 <= now - self._began < self._duration

    def _velocity(self, now: float) -> Array:
        """Return the velocity at a time, shape (m,)."""
        s = self._share(now)
        if s == 1.0:
            return np.zeros_like(self._to)
        _, first, second, third = self._segment
        return (first + s * (2.0 * second + 3.0 * s * third)) / self._duration

    def _share(self, now: float) -> float:
        return min(max((now - self._began) / self._duration, 0.0), 1.0)


class LimitedInterpolator:
    """Follows the commands within limits of velocity, acceleration and jerk (Ruckig).

    Berscheid and Kröger, "Jerk-limited real-time trajectory generation with arbitrary target
    states", arXiv 2105.04830. Where the limits are too tight for the commands, it lags behind. A
    motion that Ruckig refuses is an error; what follows keeps the velocity limit alone, so that a
    robot that is stopped for it comes to rest without a jump.

    Args:
        limits: of the motion; acceleration and jerk must be given.
        period_s: control period [s].
        sample_s: time between two samples [s].

    Raises:
        ConfigError: Ruckig is not installed.
    """

    def __init__(self, limits: MotionLimits, period_s: float, sample_s: float) -> None:
        try:
            import ruckig
        except ImportError as error:
            raise ConfigError(
                'limits of acceleration and jerk need Ruckig, which is not installed: '
                "pip install 'residual_rl_ros[smoothing]', or remove max_acceleration and max_jerk"
            ) from error
        size = limits.max_velocity.size
        self._period, self._longest = period_s, duration_s(period_s, sample_s)
        self._error = ruckig.RuckigError
        self._online = ruckig.Ruckig(size, sample_s)
        self._input, self._output = ruckig.InputParameter(size), ruckig.OutputParameter(size)
        self._usable = (ruckig.Result.Working, ruckig.Result.Finished)
        self._input.max_velocity = limits.max_velocity.tolist()
        self._input.max_acceleration = limits.max_acceleration.tolist()
        self._input.max_jerk = limits.max_jerk.tolist()
        # Else it would arrive at once, and go on beyond the command.
        self._input.minimum_duration = self._longest
        self._limits, self._step = limits, limits.max_velocity * sample_s
        self._refused = False
        self._to: Array = np.zeros(size)
        self._position: Array = np.zeros(size)
        self._aimed_at, self._settling, self._resting = 0.0, True, True

    def aim(self, command: Array, now: float) -> None:
        """Take in a command; see `Interpolator`."""
        step, ahead = command - self._to, command - self._position
        velocity = step / self._period
        # Slow enough to be reached on the way, and to stop within a step after it.
        way = np.minimum(np.abs(step), np.abs(ahead))
        most = np.minimum(NEARLY * self._limits.max_velocity, self._reachable(way))
        velocity = np.where(velocity * ahead > 0.0, velocity, 0.0).clip(-most, most)
        self._to, self._aimed_at, self._settling = command.copy(), now, False
        self._input.target_position = command.tolist()
        self._input.target_velocity = velocity.tolist()

    def _reachable(self, way: Array) -> Array:
        """Return the velocity that a motion from rest has after a way: more needs a run-up."""
        a, jerk = self._limits.max_acceleration, self._limits.max_jerk
        while_growing = np.cbrt(way**2 * jerk)
        beyond = np.sqrt((a**2 / (2.0 * jerk)) ** 2 + 2.0 * a * way) - a**2 / (2.0 * jerk)
        return np.where(while_growing <= a**2 / jerk, while_growing, beyond)

    def sample(self, now: float) -> Array:
        """Return what to send, one sample further; see `Interpolator`.

        Raises:
            UnsafeCommandError: Ruckig finds no motion, for the first time since the last `jump`.
        """
        if self._refused:
            return self._straight_on()
        if now - self._aimed_at >= self._longest and not self._settling:
            self._settling = True  # No next command came: it ends here.
            self._input.target_velocity = [0.0] * self._to.size
        try:
            result = self._online.update(self._input, self._output)
        except self._error as error:
            self._refused = True
            raise UnsafeCommandError(f'no motion to {self._to.tolist()}: {error}') from error
        if result not in self._usable:
            self._refused = True
            raise UnsafeCommandError(f'no motion to {self._to.tolist()}: {result}')
        self._output.pass_to_input(self._input)
        self._resting = result == self._usable[1]
        arrived = self._settling and self._resting  # To the last bit: a rest is no slow motion.
        self._position = self._to if arrived else np.array(self._output.new_position)
        return self._position.clip(self._limits.lower, self._limits.upper)

    def _straight_on(self) -> Array:
        """Return what to send, one sample nearer to the command within the velocity limit."""
        step = (self._to - self._position).clip(-self._step, self._step)
        self._settling = self._resting = bool((np.abs(step) < self._step).all())
        self._position = self._to if self._resting else self._position + step
        return self._position.clip(self._limits.lower, self._limits.upper)

    def jump(self, command: Array, now: float) -> None:
        """Begin anew; see `Interpolator`."""
        self._refused = False
        self._to = self._position = command.copy()
        self._aimed_at, self._settling, self._resting = now, True, True
        still = [0.0] * command.size
        self._input.current_position = self._input.target_position = command.tolist()
        self._input.current_velocity = self._input.target_velocity = still
        self._input.current_acceleration = still

    def arrived(self, now: float) -> bool:
        """Return whether the motion rests; see `Interpolator`."""
        del now
        return self._settling and self._resting


KINDS: dict[str, Callable[[MotionLimits, float, float], Interpolator]] = {
    'linear': LinearInterpolator,
    'cubic': CubicInterpolator,
    'limited': LimitedInterpolator,
}
"""Interpolators by their names in the robot YAML."""
