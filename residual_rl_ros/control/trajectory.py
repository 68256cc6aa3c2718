# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of the way on from a command, for controllers that take more than one point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.control.command_limiter import CommandLimiter
from residual_rl_ros.control.decision import CommandedStep
from residual_rl_ros.control.interpolation import passing_velocities
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import UnsafeCommandError
from residual_rl_ros.numerics import clamp

Array = npt.NDArray[np.float64]
SLACK = 1.0 + 1e-6
"""Rounding, of a step as large as it may be."""


@dataclass(frozen=True)
class Trajectory:
    """Commands from a control step on, one each control period."""

    points: Array
    """Shape (rows, m); the first is that of the control step."""
    velocities: Array | None
    """With which each is passed, the last at rest, shape (rows, m) [1/s]; None if nobody knows
    whether the robot is to rest at the only one."""


class TrajectoryHorizon:
    """Says what is known of the way on, for controllers that take more than one point.

    That is what the decision still commands, then the chunk of the base policy with the present
    residual. A later decision can change it, which is why each control step says it anew.

    Args:
        limiter: its limits hold for each point.
        steps: number of points, at most.
        period_s: control period [s].
    """

    def __init__(self, limiter: CommandLimiter, steps: int, period_s: float) -> None:
        self._limiter = limiter
        # What is only planned does not count as limited.
        self._safety = SafetyFilter(limiter.safety.action)
        self._steps, self._period_s = steps, period_s
        self._before: Array | None = None
        self._stand: Array | None = None

    def of(
        self,
        command: Array,
        step: CommandedStep | None,
        foreseen: npt.NDArray[np.floating[Any]],
    ) -> Trajectory:
        """Return the way on from a command.

        Args:
            command: that is sent, shape (m,).
            step: what it was made of; None if of nothing, while the base policy is late.
            foreseen: base actions after the decision, shape (rows, m).
        """
        before, self._before, self._stand = self._before, command, None
        if self._limiter.overridden:
            return Trajectory(command[None], None)  # An operator goes on as he likes.
        points = [command]
        if step is not None:
            residual = step.planned[-1] - step.ahead[-1]
            planned = np.concatenate([step.planned[1:], foreseen + residual])
            try:
                for wanted in planned[: self._steps - 1]:
                    points.append(self._safety.apply(wanted, points[-1], passed=True))
            except UnsafeCommandError:  # Nothing is known from there on.
                pass
        way = np.array(points)
        begin = command  # At rest, where no command was a control step ago.
        if before is not None and not self._is_far(command, before):
            begin = before
        return Trajectory(way, passing_velocities(way, begin, self._period_s))

    def _is_far(self, command: Array, before: Array) -> bool:
        """Return whether a command is further from another than a control step may be."""
        return bool((np.abs(command - before) > SLACK * self._safety.action.max_step).any())

    def hold(self, command: Array) -> Trajectory:
        """Return where a robot rests that holds: where it was as the hold began.

        Args:
            command: of the hold, shape (m,), for a robot that is not measured.
        """
        if self._stand is None:
            action, measured = self._safety.action, self._limiter.measured
            where = command if measured is None else measured
            self._stand = clamp(where, action.lower, action.upper)
        self._before = self._stand
        return Trajectory(self._stand[None], np.zeros((1, command.size)))
