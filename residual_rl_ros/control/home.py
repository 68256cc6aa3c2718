# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The way home: where an episode begins, and how the robot gets there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from residual_rl_ros.control.gates import still_told
from residual_rl_ros.control.rotation import OrientationLimit
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import clamp
from residual_rl_ros.robot.preparation import HomeSpec

Array = npt.NDArray[np.float64]


class _Turn(OrientationLimit):
    """An orientation on the way home, at the velocity of that way."""

    def steps(self, end: Array, begin: Array) -> float:
        """Return how many control steps it takes to turn from one command to another."""
        angle = float(np.linalg.norm(self.difference(end, begin)))
        return (2.0 if self._is_quaternion else 1.0) * angle / self.max_angle

    def part(self, end: Array, begin: Array, share: float) -> Array:
        """Return the orientation after a share of the turn."""
        largest, steps = self.max_angle, self.steps(end, begin)
        self.max_angle = share * steps * largest
        try:
            return self.step(end, begin)
        finally:
            self.max_angle = largest


class GoHome:
    """Leads a robot home: straight in its actions, with a trapezoid of velocity.

    Orientations turn the shortest way. Each step goes on from the last command, so that a step that
    was cut short is not made up for.

    Args:
        spec: where to, and how fast.
        safety: the limits.
        period_s: control period [s].

    Raises:
        ConfigError: home is outside of the workspace, or links are too near one another there.
    """

    def __init__(self, spec: HomeSpec, safety: SafetyFilter, period_s: float) -> None:
        self.spec = spec
        """Where it leads to."""
        self.deadline = np.inf
        """When it must have arrived [s]."""
        self._safety = safety
        self._action = safety.action
        self._period = period_s
        self._gain = 1.0 if spec.acceleration_s == 0.0 else period_s / spec.acceleration_s
        """Share of the largest velocity that is gained in a control step, at the most."""
        self._velocity = 0.0
        """Share of the largest velocity."""
        self._goal = spec.goal
        self._led = ~np.isnan(spec.goal)
        slow = replace(safety.action, max_step=spec.max_step)
        self._turns = [_Turn(slow, each) for each in slow.orientations if self._led[max(each)]]
        known = (self._led | ~self._action.moves_arm).all()
        problem = safety.body_problem(spec.pose(self._action)) if known else ''
        if problem:
            raise ConfigError(f'robot.home.positions {problem}; change one of them')

    def is_home(self, measured: Array | None) -> bool:
        """Return whether a robot is at home.

        Args:
            measured: where it is, shape (m,); None if nobody knows.
        """
        # An action that stays has no goal: NaN is not larger than anything.
        return measured is not None and not (self._far(measured) > self.spec.tolerance).any()

    def _far(self, measured: Array) -> Array:
        """Return how far each action is from home, shape (m,), NaN for one that stays."""
        return np.abs(self._safety.difference(self.spec.goal, measured))

    def begin(self, measured: Array, told: Array | None, now: float) -> None:
        """Set out.

        Args:
            measured: where the robot is, shape (m,).
            told: what it was told last, which an action without a home is told on if it follows: a
                gripper keeps its grip; None: nothing.
            now: time [s].
        """
        staying = still_told(self._safety, measured, told)
        staying = clamp(staying, self._action.lower, self._action.upper)
        staying = np.where(self._action.goes_to_zero, 0.0, staying)
        self._goal = np.where(self._led, self.spec.goal, staying)
        self._velocity = 0.0
        way_s, rise_s = self._remaining(measured) * self._period, self.spec.acceleration_s
        needed_s = way_s + rise_s if way_s >= rise_s else 2.0 * float(np.sqrt(way_s * rise_s))
        self.deadline = now + needed_s + self.spec.timeout_s

    def _remaining(self, position: Array) -> float:
        """Return the way that is left, in control steps at the largest velocity."""
        ways = np.abs(self._goal - position) / self.spec.max_step
        for turn in self._turns:
            turn.put(ways, np.array(turn.steps(self._goal, position)))
        return float(ways[self._led].max())

    def step(self, position: Array) -> Array:
        """Return what to command next, shape (m,).

        Args:
            position: where the step begins, shape (m,).
        """
        remaining = self._remaining(position)
        half = 0.5 * self._gain
        stopping = np.sqrt(half * half + 2.0 * self._gain * remaining) - half
        self._velocity = min(self._velocity + self._gain, 1.0, float(stopping))
        if self._velocity >= remaining:
            return self._goal
        share = self._velocity / remaining
        moved = position + share * (self._goal - position)
        for turn in self._turns:
            turn.put(moved, turn.part(self._goal, position, share))
        command: Array = np.where(self._led, moved, self._goal)
        return command

    def problem(self, measured: Array) -> str:
        """Return which action has not arrived, and where it is instead.

        Args:
            measured: where the robot is, shape (m,).
        """
        goal, tolerance = self.spec.goal, self.spec.tolerance
        index = int(np.nanargmax(self._far(measured) / tolerance))
        return (
            f'not home in time: {self._action.names[index]!r} is at {measured[index]:.4g}, '
            f'expected {goal[index]:.4g} give or take {tolerance[index]:.4g}; clear the way, or '
            'change robot.home'
        )
