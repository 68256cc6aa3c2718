# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Between two control steps: commands at the rate of the controller instead of steps.

A command is reached one control period after it was decided. Each interpolator begins where the
motion is, so that a command that is late or early makes no jump.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ConfigError

Array = npt.NDArray[np.float64]
SLACK_SAMPLES = 2
"""A command is reached so many samples after the next one is due: ticks are not exactly on time,
and a motion that has arrived stops."""


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


class LinearInterpolator:
    """Constant velocity from command to command.

    Args:
        limits: of the motion; those of acceleration and jerk must be empty.
        period_s: control period [s].
        sample_s: time between two samples [s].
    """

    def __init__(self, limits: MotionLimits, period_s: float, sample_s: float) -> None:
        del limits  # Between two safe commands everything is safe.
        self._duration = period_s + SLACK_SAMPLES * sample_s
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


class CubicInterpolator:
    """Cubic Hermite segments: position and velocity have no jumps.

    The velocity at the end of a segment is that between its command and the one before, and zero
    where the direction changes, so that no command is overshot.

    Args:
        limits, period_s, sample_s: see `LinearInterpolator`.
    """

    def __init__(self, limits: MotionLimits, period_s: float, sample_s: float) -> None:
        self._limits = limits
        self._period = period_s
        self._duration = period_s + SLACK_SAMPLES * sample_s
        self._began = 0.0
        self._from: Array = np.zeros(0)
        self._to: Array = np.zeros(0)
        self._velocity: Array = np.zeros(0)
        self._final: Array = np.zeros(0)

    def aim(self, command: Array, now: float) -> None:
        """Take in a command; see `Interpolator`."""
        position, velocity = self._state(now)
        step = command - self._to
        ahead = command - position
        final = np.where(step * ahead > 0.0, step / self._period, 0.0)
        # Monotone (Fritsch and Carlson 1980): three times the mean slope of the segment at most.
        most = 3.0 * np.abs(ahead) / self._duration
        self._from, self._to, self._began = position, command.copy(), now
        self._velocity, self._final = velocity, np.clip(final, -most, most)

    def sample(self, now: float) -> Array:
        """Return what to send; see `Interpolator`."""
        return self._state(now)[0]

    def jump(self, command: Array, now: float) -> None:
        """Begin anew; see `Interpolator`."""
        self._from, self._to, self._began = command.copy(), command.copy(), now
        self._velocity = self._final = np.zeros_like(command)

    def _state(self, now: float) -> tuple[Array, Array]:
        """Return position and velocity at a time, shape (m,) each."""
        duration = self._duration
        s = min(max((now - self._began) / duration, 0.0), 1.0)
        if s == 1.0:
            return self._to.copy(), np.zeros_like(self._to)
        way = self._to - self._from
        a, b = self._velocity * duration, self._final * duration
        # x = from + a s + (3 way - 2 a - b) s^2 + (a + b - 2 way) s^3
        second, third = 3.0 * way - 2.0 * a - b, a + b - 2.0 * way
        position = self._from + s * (a + s * (second + s * third))
        velocity = (a + s * (2.0 * second + 3.0 * s * third)) / duration
        return position.clip(self._limits.lower, self._limits.upper), velocity


class LimitedInterpolator:
    """Follows the commands within limits of velocity, acceleration and jerk (Ruckig).

    Berscheid and Kröger, "Jerk-limited real-time trajectory generation with arbitrary target
    states", arXiv 2105.04830. Where the limits are too tight for the commands, it lags behind.

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
        self._period = period_s
        self._online = ruckig.Ruckig(size, sample_s)
        self._input, self._output = ruckig.InputParameter(size), ruckig.OutputParameter(size)
        self._usable = (ruckig.Result.Working, ruckig.Result.Finished)
        self._input.max_velocity = limits.max_velocity.tolist()
        self._input.max_acceleration = limits.max_acceleration.tolist()
        self._input.max_jerk = limits.max_jerk.tolist()
        # Else it would arrive at once, and go on beyond the command.
        self._input.minimum_duration = period_s + SLACK_SAMPLES * sample_s
        self._limits = limits
        self._to: Array = np.zeros(size)
        self._position: Array = np.zeros(size)

    def aim(self, command: Array, now: float) -> None:
        """Take in a command; see `Interpolator`."""
        del now
        velocity = (command - self._to) / self._period
        ahead = command - self._position
        most = self._limits.max_velocity
        velocity = np.where(velocity * ahead > 0.0, velocity, 0.0).clip(-most, most)
        self._to = command.copy()
        self._input.target_position = command.tolist()
        self._input.target_velocity = velocity.tolist()

    def sample(self, now: float) -> Array:
        """Return what to send, one sample further; see `Interpolator`."""
        del now
        if self._online.update(self._input, self._output) in self._usable:
            self._output.pass_to_input(self._input)
            self._position = np.array(self._output.new_position)
        return self._position.clip(self._limits.lower, self._limits.upper)

    def jump(self, command: Array, now: float) -> None:
        """Begin anew; see `Interpolator`."""
        del now
        self._to = self._position = command.copy()
        still = [0.0] * command.size
        self._input.current_position = self._input.target_position = command.tolist()
        self._input.current_velocity = self._input.target_velocity = still
        self._input.current_acceleration = still


KINDS: dict[str, Callable[[MotionLimits, float, float], Any]] = {
    'linear': LinearInterpolator,
    'cubic': CubicInterpolator,
    'limited': LimitedInterpolator,
}
"""Interpolators by their names in the robot YAML."""
