# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Take a robot over by hand: from the values of an operator's controls to commands.

`takeover_controls` says what the controls mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

import numpy as np

from residual_rl_ros.control.command_limiter import CommandLimiter, start_reference
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.control.takeover_controls import (
    MOVED,
    PRESSED,
    TakeoverConfig,
    TakeoverKeys,
)
from residual_rl_ros.errors import ObservationError
from residual_rl_ros.numerics import Array, clamp
from residual_rl_ros.robot.action_spec import ActionSpec

LEAD = 0.8
"""Share of following_limit by which a target may be ahead of the robot."""


class TakeoverState(StrEnum):
    """Who has the robot."""

    OFF = 'off'
    """The policy."""
    ON = 'on'
    """The operator."""
    LOST = 'lost'
    """The operator, of whom nothing is heard: the robot stands still until he takes it again."""


class Presses:
    """Tells which buttons are pressed anew.

    A button that is down when the input is first heard, or heard again, has not been pressed, but
    for hold. Hold comes first, and release does not count beside it.

    Args:
        keys: names the control of each button, and for how long one may bounce.
    """

    def __init__(self, keys: TakeoverKeys) -> None:
        self.ignored: list[str] = []
        """Buttons that were down when the input was heard again, and do not count."""
        self._controls = keys.buttons.by_name()
        self._debounce_s = keys.debounce_s
        self._values: Mapping[str, float] = {}
        self._down_at: dict[str, float] = {}

    def take(self, values: Mapping[str, float], now: float, known: bool) -> list[str]:
        """Return the buttons that are pressed with new values.

        Args:
            values: of all controls.
            now: time [s].
            known: the input was heard shortly before.
        """
        before, self._values = self._values, values
        pressed, self.ignored = [], []
        for name, control in self._controls.items():
            if values[control] <= PRESSED:
                continue
            anew = known and now - self._down_at.get(name, -np.inf) > self._debounce_s
            if before.get(control, 0.0) <= PRESSED and (anew or name == 'hold'):
                pressed.append(name)
            elif not known and name != 'hold':
                self.ignored.append(name)
            self._down_at[name] = now
        if 'hold' in pressed and 'release' in pressed:
            pressed.remove('release')
        return pressed


class Takeover:
    """Makes an operator's commands of the values of his controls.

    Positions go on from where the robot was told to be, so that a gripper keeps its grip, or from
    where it is measured, if that is not known or too far away. They are never further ahead of it
    than a part of following_limit: that cuts short what the operator adds, and nothing else moves
    them. Everything else is commanded directly. Who holds on from the beginning must let go first.

    Args:
        config: what the controls mean.
        action: the robot's actions.
        period_s: time between two commands [s].

    Raises:
        ConfigError: the robot does not fit.
    """

    def __init__(self, config: TakeoverConfig, action: ActionSpec, period_s: float) -> None:
        config.check(action, period_s)
        self.state = TakeoverState.OFF
        self.presses = Presses(config.keys)
        """What is said of buttons."""
        self.problem = ''
        """Why the latest measurement is not believed."""
        self._keys = config.keys
        self._axes = [(action.names.index(axis.action), axis) for axis in config.keys.axes]
        self._action = action
        self._period = period_s
        # The policy node sees to the body.
        self._safety = SafetyFilter(replace(action, workspace=None, self_collision=None))
        self._limiter = CommandLimiter(self._safety, action.measured_by)
        self._values: Mapping[str, float] = {}
        self._let_go = False
        self._heard = self._moved = -np.inf
        self._target: Array = np.zeros(action.size)

    def receive(self, values: Mapping[str, float], now: float) -> list[str]:
        """Take in the values of all controls; return the buttons that are pressed anew.

        Args:
            values: by control.
            now: time [s].
        """
        known = now - self._heard <= self._keys.max_age_s
        self._values, self._heard = dict(values), now
        if any(axis.deflection(values) for _, axis in self._axes):
            self._moved = now
        self._let_go |= not self._is_held(now)
        return self.presses.take(self._values, now, known)

    def silent(self, now: float) -> bool:
        """Return whether nothing has been heard for `max_age_s`."""
        return not 0.0 <= now - self._heard <= self._keys.max_age_s

    def command(
        self, measured: Array | None, now: float, last: Array | None = None
    ) -> Array | None:
        """Return what to command, shape (m,), None while the policy has the robot.

        Args:
            measured: where the robot is, shape (m,); None if nobody knows.
            now: time [s].
            last: what the policy has just told it, shape (m,); None: nothing.
        """
        measured = self._believed(measured)
        held = not self.silent(now) and self._let_go and self._is_held(now)
        if self.state is TakeoverState.OFF:
            if not held or (measured is None and not self._action.goes_to_zero.all()):
                return None
            start = np.zeros(self._action.size) if measured is None else measured
            self._target = start_reference(self._safety, start, last)
        elif self.silent(now):
            self.state = TakeoverState.LOST
            return self.at_rest()
        elif not held:
            if self.state is TakeoverState.ON:
                self.state = TakeoverState.OFF
                return None
            return self.at_rest()
        self.state = TakeoverState.ON
        return self._moved_on(measured)

    def _believed(self, measured: Array | None) -> Array | None:
        """Return a measurement that a robot inside its limits can have, else None."""
        self.problem = ''
        self._limiter.observe(measured)
        try:
            self._limiter.check_measured()
        except ObservationError as error:
            self.problem = str(error)
            return None
        return self._limiter.measured

    def _is_held(self, now: float) -> bool:
        keys = self._keys
        if keys.deadman == MOVED:
            return now - self._moved <= keys.release_after_s
        value, threshold = self._values[keys.deadman], keys.deadman_threshold
        return value < threshold if threshold < 0.0 else value > threshold

    def at_rest(self) -> Array:
        """Return the command that leaves the robot where it is, shape (m,)."""
        self._target = np.where(self._action.goes_to_zero, 0.0, self._target)
        return self._target

    def _moved_on(self, measured: Array | None) -> Array:
        """Return the command one period later."""
        action, target = self._action, self.at_rest()
        wanted = np.zeros(action.size)
        for index, axis in self._axes:
            wanted[index] = axis.scale * axis.deflection(self._values)
        moved = target
        if measured is not None:
            ahead, lead = self._safety.difference(target, measured), LEAD * action.following_limit
            back, on = np.minimum(-lead - ahead, 0.0), np.maximum(lead - ahead, 0.0)
            moved = target + clamp(wanted * self._period, back, on)
        moved = np.where(action.goes_to_zero, wanted, moved)
        self._target = clamp(moved, action.lower, action.upper)
        return self._target
