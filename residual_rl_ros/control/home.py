# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The way home: where an episode begins, and how the robot gets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from residual_rl_ros.control.command_limiter import start_reference
from residual_rl_ros.control.rotation import OrientationLimit
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Array, clamp
from residual_rl_ros.robot.preparation_spec import HomeSpec

APPROACH_S, APPROACH_PERIODS = 0.5, 10
"""The velocity at which a joint comes home is what is left of its way, by this time: the larger of
seconds and control periods. It overshoots only where measurement and motion lag by half of it."""


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

    def see(self, observation: Array | None) -> None:
        """Take in what is observed, shape (n,): velocities do not tell where a robot is."""

    def is_home(self, measured: Array | None) -> bool:
        """Return whether a robot is at home.

        Args:
            measured: what its actions are measured at, shape (m,); None if nobody knows.
        """
        position = self._position(measured)
        # An action that stays has no goal: NaN is not larger than anything.
        return position is not None and not (self._far(position) > self.spec.tolerance).any()

    def _position(self, measured: Array | None) -> Array | None:
        """Return where the robot is, shape (m,), None if nobody knows."""
        return measured

    def _far(self, position: Array) -> Array:
        """Return how far each action is from home, shape (m,), NaN for one that stays."""
        return np.abs(self._safety.difference(self.spec.goal, position))

    def begin(self, measured: Array, last: Array | None, now: float) -> None:
        """Set out.

        Args:
            measured: what the actions are measured at, shape (m,).
            last: what the robot was told last, which an action without a home is told on if it
                follows: a gripper keeps its grip; None: nothing.
            now: time [s].
        """
        staying = start_reference(self._safety, measured, last)
        staying = clamp(staying, self._action.lower, self._action.upper)
        staying = np.where(self._action.goes_to_zero, 0.0, staying)
        self._goal = np.where(self._led, self.spec.goal, staying)
        self._velocity = 0.0
        self.deadline = now + self._needed_s(measured) + self.spec.timeout_s

    def _needed_s(self, measured: Array) -> float:
        """Return how long the way takes [s]."""
        way_s, rise_s = self._remaining(measured) * self._period, self.spec.acceleration_s
        return way_s + rise_s if way_s >= rise_s else 2.0 * float(np.sqrt(way_s * rise_s))

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
            measured: what the actions are measured at, shape (m,).
        """
        position = self._position(measured)
        assert position is not None
        goal, tolerance = self.spec.goal, self.spec.tolerance
        index = int(np.nanargmax(self._far(position) / tolerance))
        return (
            f'not home in time: {self._action.names[index]!r} is at {position[index]:.4g}, '
            f'expected {goal[index]:.4g} give or take {tolerance[index]:.4g}; clear the way, or '
            'change robot.home'
        )


class VelocityHome(GoHome):
    """Leads joints home that are commanded in velocities, by their measured positions.

    Straight as long as all of them move. A velocity is in proportion to what is left of the way, no
    larger than that from which the slew limit can slow down in time, and zero within half of the
    tolerance. What has no home stays: positions are told again, everything else is zero.

    Args:
        spec: where to, and how fast.
        safety: the limits.
        period_s: control period [s].
        observation_names: where the positions are found.
    """

    def __init__(
        self,
        spec: HomeSpec,
        safety: SafetyFilter,
        period_s: float,
        observation_names: Sequence[str],
    ) -> None:
        super().__init__(spec, safety, period_s)
        indices = [observation_names.index(name) for name in spec.measured_by if name]
        self._indices = np.array(indices, dtype=np.intp)
        self._observed: Array | None = None
        self._fastest = spec.max_step / period_s
        # Half of what the slew limit allows: the measurement lags.
        self._braking = 0.5 * safety.action.max_step / period_s
        self._approach_s = max(APPROACH_S, APPROACH_PERIODS * period_s)

    def see(self, observation: Array | None) -> None:
        """Take in where the joints are, shape (n,); None if nobody knows."""
        self._observed = None if observation is None else observation[self._indices]

    def _position(self, measured: Array | None) -> Array | None:
        if self._observed is None:
            return None
        position = self._goal.copy()
        position[self._led] = self._observed
        return position

    def _needed_s(self, measured: Array) -> float:
        far = np.abs(self._way())
        way_s = float((far / self._fastest).max())
        braking_s = float((self._fastest / self._braking)[self._led].max())
        end_s = self._approach_s * float(np.log1p(2.0 * far / self.spec.tolerance).max())
        return way_s + max(self.spec.acceleration_s, braking_s) + braking_s + end_s

    def _way(self) -> Array:
        """Return what is left to each joint, with its sign, shape (m,); 0 for one that stays."""
        position = self._position(None)
        left: Array = np.zeros(self._action.size)
        if position is not None:
            left[self._led] = (self.spec.goal - position)[self._led]
        return left

    def step(self, position: Array) -> Array:
        """Return what to command next, shape (m,).

        Args:
            position: the command at which the step begins, shape (m,).
        """
        way = self._way()
        far = np.abs(way)
        moving = far > 0.5 * self.spec.tolerance
        self._velocity = min(self._velocity + self._gain, 1.0)
        share = 0.0
        if moving.any():
            slow = np.minimum(far / self._approach_s, np.sqrt(2.0 * self._braking * far))
            allowed = np.minimum(self._velocity * self._fastest, slow)
            share = float((allowed[moving] / far[moving]).min())
        command: Array = np.where(self._led, share * moving * way, self._goal)
        return command


def way_home(
    spec: HomeSpec, safety: SafetyFilter, period_s: float, observation_names: Sequence[str]
) -> GoHome:
    """Return what leads a robot home; see `GoHome` and `VelocityHome`."""
    if spec.measured_by:
        return VelocityHome(spec, safety, period_s, observation_names)
    return GoHome(spec, safety, period_s)
