# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Send a command several times in a control period, on the way from one step to the next."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from residual_rl_ros.control.interpolation import KINDS, Interpolator, MotionLimits, duration_s
from residual_rl_ros.control.rotation import OrientationLimit
from residual_rl_ros.errors import UnsafeCommandError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.command import Command
from residual_rl_ros.ros.common.command_writers import CommandWriter

REBASED = 1.6
"""A command further from the one before than so many of the largest steps does not continue its
motion: the robot was moved, and the limiter has begun where it is. A rotation vector changes up to
pi/2 times as much as it turns."""
SAME_S = 1e-6
"""Times that are nearer are the same but for rounding [s]: a sample of then, not after it."""


class CommandStream:
    """A command that is sent at the rate of its controller.

    `aim` takes in the command of each control step; `send` is to be called each `sample_s`.

    Args:
        command: with more than one sample.
        writer: makes its messages.
        publisher: sends them.
        action: limits of the action vector.
        period_s: control period [s].
    """

    def __init__(
        self,
        command: Command,
        writer: CommandWriter,
        publisher: Any,
        action: ActionSpec,
        period_s: float,
    ) -> None:
        limits = MotionLimits(
            command.part_of(action.lower),
            command.part_of(action.upper),
            command.part_of(action.max_step) / period_s,
            np.array(command.max_acceleration),
            np.array(command.max_jerk),
        )
        self._command, self._writer, self._publisher = command, writer, publisher
        self.name = command.name
        """Of the command."""
        self.sample_s = period_s / command.samples
        """Time between two samples [s]."""
        self.lag_s = duration_s(period_s, self.sample_s)
        """How long after its command a motion is there, where its limits permit [s]."""
        self.arrived = True
        """Whether the last command, or nothing yet, has been sent: nothing is on its way."""
        self._reach = REBASED * command.part_of(action.max_step)
        self._interpolator: Interpolator = KINDS[command.interpolation](
            limits, period_s, self.sample_s
        )
        self._orientations = [OrientationLimit(action, each) for each in action.orientations]
        self._latest: Array | None = None

    def begin(self) -> None:
        """Begin anew: the first command is sent as it is."""
        self._latest, self.arrived = None, True

    def aim(self, vector: Array, stamp: float) -> None:
        """Take in the command of a control step.

        Args:
            vector: action vector, shape (m,).
            stamp: time [s].
        """
        vector = vector.copy()
        moved = self._latest is None
        if self._latest is not None:
            for each in self._orientations:
                each.put(vector, each.continued(vector, self._latest))
            way = self._command.part_of(vector - self._latest)
            moved = bool((np.abs(way) > self._reach).any())
        if moved:
            self._interpolator.jump(self._command.part_of(vector), stamp)
        else:
            self._interpolator.aim(self._command.part_of(vector), stamp)
        self._latest, self.arrived = vector, False

    def send(self, now: float) -> None:
        """Send where the motion is, until it has arrived.

        Args:
            now: time [s].

        Raises:
            UnsafeCommandError: the motion cannot go on as it was, and nothing was sent.
            CommandError: the codec of its type failed.
        """
        if self.arrived:
            return
        try:
            values = self._interpolator.sample(now)
        except UnsafeCommandError as error:
            raise UnsafeCommandError(f'command {self.name!r}: {error}') from error
        self.arrived = self._interpolator.arrived(now)
        self._publish(values, now)

    def settle(self, now: float) -> None:
        """Send the last command itself, wherever the motion is, which ends.

        Raises:
            CommandError: the codec of its type failed.
        """
        assert self._latest is not None, 'something was aimed at'
        target = self._command.part_of(self._latest)
        self._interpolator.jump(target, now)
        self.arrived = True
        self._publish(target, now)

    def _publish(self, values: Array, now: float) -> None:
        self._publisher.publish(self._writer.message(values, now))


class SteadySleep:
    """Sleeps so that several sleeps end when they say, whatever is done in between.

    Time in which the process stood still is not made up for: no sample follows another at once.
    """

    def __init__(self) -> None:
        self._until = time.monotonic()

    def __call__(self, seconds: float) -> None:
        """Sleep until so many seconds after the end of the sleep before."""
        self._until += seconds
        left_s = self._until - time.monotonic()
        if left_s > 0.0:
            time.sleep(left_s)
        else:
            self._until -= left_s


class SampleSchedule:
    """Has samples sent as they fall due, where no timer does: time passes in `wait`.

    Args:
        samples: by the time between two of them [s], what sends them, given the time [s].
        now: when it begins [s].
        sleep: lets time pass [s].
    """

    def __init__(
        self,
        samples: Mapping[float, Callable[[float], object]],
        now: float,
        sleep: Callable[[float], object],
    ) -> None:
        self._samples, self._began, self._sleep = samples, now, sleep
        self._due = {sample_s: sample_s for sample_s in samples}
        self.elapsed_s = 0.0
        """Time since it began [s]."""

    @property
    def now(self) -> float:
        """Time [s]."""
        return self._began + self.elapsed_s

    def wait(self, seconds: float) -> None:
        """Let time pass [s]."""
        end_s = self.elapsed_s + seconds
        while (due_s := min(self._due.values(), default=math.inf)) < end_s + SAME_S:
            self._sleep_until(due_s)
            for sample_s in [each for each, at_s in self._due.items() if at_s < due_s + SAME_S]:
                self._due[sample_s] += sample_s
                self._samples[sample_s](self.now)
        self._sleep_until(end_s)

    def _sleep_until(self, at_s: float) -> None:
        if at_s > self.elapsed_s:
            self._sleep(at_s - self.elapsed_s)
            self.elapsed_s = at_s
