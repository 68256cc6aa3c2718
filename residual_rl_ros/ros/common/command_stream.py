# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Send a command several times in a control period, on the way from one step to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.control.interpolation import KINDS, MotionLimits
from residual_rl_ros.control.rotation import OrientationLimit
from residual_rl_ros.errors import UnsafeCommandError
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.command import Command
from residual_rl_ros.ros.common.command_writers import CommandWriter

Array = npt.NDArray[np.float64]
REBASED = 1.6
"""A command further from the one before than so many of the largest steps does not continue its
motion: the robot was moved, and the limiter has begun where it is. A rotation vector changes up to
pi/2 times as much as it turns."""
FINISH_S = 1.0
"""How long a node that stops lets a motion arrive [s]."""


class CommandStream:
    """A command that is sent at the rate of its controller.

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
        self.sample_s = period_s / command.samples
        """Time between two samples [s]."""
        self._reach = REBASED * command.part_of(action.max_step)
        self._interpolator = KINDS[command.interpolation](limits, period_s, self.sample_s)
        self._orientations = [OrientationLimit(action, each) for each in action.orientations]
        self._latest: Array | None = None
        self._resting, self._runs = True, False
        self._now: Callable[[], float] = lambda: 0.0
        self._fault: Callable[[str], object] = lambda reason: None

    def aim(self, vector: Array, stamp: float) -> None:
        """Take in the command of a control step; where nobody calls `send`, do so.

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
        self._latest, self._resting = vector, False
        if not self._runs:
            self._publish(stamp)

    def start(self, now: Callable[[], float], fault: Callable[[str], object]) -> None:
        """Begin: from here on `send` is called each `sample_s`; see `CommandOutputs.start`."""
        self._now, self._fault, self._latest = now, fault, None
        self._runs = True

    def stop(self) -> None:
        """End it: from here on `aim` and `finish` send."""
        self._runs = False

    def finish(self, now: float, sleep: Callable[[float], None]) -> None:
        """Send the rest of the motion, so that the robot does not stop on the way.

        Args:
            now: time of the last command [s].
            sleep: lets time pass [s].
        """
        for step in range(1, int(FINISH_S / self.sample_s) + 1):
            if self._resting or self._latest is None:
                return
            sleep(self.sample_s)
            self._publish(now + step * self.sample_s)

    def send(self) -> None:
        """Send where the motion is, until it has arrived."""
        if not self._resting and self._latest is not None:
            self._publish(self._now())

    def _publish(self, now: float) -> None:
        try:
            values = self._interpolator.sample(now)
        except UnsafeCommandError as error:
            self._resting = True
            self._fault(f'command {self._command.name!r}: {error}')
            return
        self._resting = self._interpolator.arrived(now)
        self._publisher.publish(self._writer.message(values, now))
