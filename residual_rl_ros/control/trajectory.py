# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of the way on from a command, for controllers that take more than one point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.decision import CommandedStep
from residual_rl_ros.control.interpolation import passing_velocities
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.numerics import Array, all_finite
from residual_rl_ros.transitions.transition import Source

SLACK = 1.0 + 1e-6
"""Rounding, of a step as large as it may be."""


@dataclass(frozen=True)
class Trajectory:
    """Commands from a control step on, one each control period."""

    points: Array
    """Shape (rows, m); the first is that of the control step."""
    velocities: Array | None
    """With which each is passed, the last at rest, shape (rows, m) [1/s]; None where a single point
    is all that is known, of which nobody knows whether the robot is to rest there."""


class TrajectoryHorizon:
    """Says what is known of the way on, for controllers that take more than one point.

    That is what the decision still commands, then the chunk of the base policy with the present
    residual, each within the limits. A later decision can change it, which is why each control step
    says it anew.

    Args:
        controller: knows it.
        steps: number of points, at most.
        period_s: control period [s].
    """

    def __init__(self, controller: ResidualController, steps: int, period_s: float) -> None:
        self._controller = controller
        # What is only planned does not count as limited.
        self._safety = SafetyFilter(controller.limiter.safety.action)
        self._steps, self._period_s = steps, period_s
        self._before: Array | None = None

    def of(self, command: Array, holding: bool) -> Trajectory:
        """Return the way on from a command.

        Args:
            command: that is sent, shape (m,).
            holding: the robot holds: it is to rest at the command. A measurement can be wrong, and
                is behind; a gripper that rests where it is measured lets go.
        """
        before, self._before = self._before, command
        if holding or self._controller.hold_reason:
            return Trajectory(command[None], np.zeros((1, command.size)))
        step = self._controller.commanded()
        if step is None or step.source is Source.TAKEOVER:
            return Trajectory(command[None], None)
        points = np.array(self._points(command, step))
        begin = command  # At rest, where no command was a control step ago.
        if before is not None and not self._is_far(command, before):
            begin = before
        return Trajectory(points, passing_velocities(points, begin, self._period_s))

    def _points(self, command: Array, step: CommandedStep) -> list[Array]:
        """Return the command and what follows, as far as that is known."""
        points = [command]
        residual = step.planned[-1] - step.ahead[-1]
        following = self._controller.queue.foreseen + residual
        for wanted in np.concatenate([step.planned[1:], following])[: self._steps - 1]:
            if not all_finite(wanted):
                break
            points.append(self._safety.apply(wanted, points[-1], passed=True))
        return points

    def _is_far(self, command: Array, before: Array) -> bool:
        """Return whether a command is further from another than a control step may be."""
        return bool((np.abs(command - before) > SLACK * self._safety.action.max_step).any())
