# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The last filter before the robot: finite, position limits, slew limits, limits of the body."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from residual_rl_ros.control.rotation import OrientationLimit
from residual_rl_ros.control.self_collision import SelfCollision
from residual_rl_ros.control.workspace import Workspace
from residual_rl_ros.errors import UnsafeCommandError
from residual_rl_ros.numerics import Array, all_finite, clamp, is_one_hot
from residual_rl_ros.robot.action_spec import ActionSpec

BISECTIONS = 10
"""The last command that is still inside is found to a thousandth of the step."""


class BodyLimit(Protocol):
    """A limit of joint positions."""

    def excess(self, joints: Array) -> Array:
        """Return how far each of its quantities is beyond the limit, shape (k,), [m], 0 inside."""

    def problem(self, joints: Array) -> str:
        """Return what is beyond the limit, in words; empty if nothing is."""


class SafetyFilter:
    """Clamps commands to the limits of an action: slew, body and, outermost, position.

    Those of the body are the boxes of its workspace and the distance of its links. From beyond
    them, where a robot can be put by hand, the way may only lead back.

    A command inside all limits passes unchanged, bit for bit. Outside of the position limits there
    is no command, wherever the robot stands: one that stands outside is led to its limit. Of an
    orientation the angle is limited by which it turns (`control/rotation.py`). Of discrete actions
    exactly one is chosen: nothing is between them that could be clamped to.

    Args:
        action: names and limits of the command.

    Raises:
        ConfigError: a model of the body cannot be used.
    """

    def __init__(self, action: ActionSpec) -> None:
        self.action = action
        self._shape = (action.size,)
        self.workspace = Workspace(action.workspace) if action.workspace else None
        """Boxes of points of the arm, None without."""
        self.self_collision = (
            SelfCollision(action.self_collision) if action.self_collision else None
        )
        """Distance between its links, None without."""
        body: tuple[BodyLimit | None, ...] = (self.workspace, self.self_collision)
        self._body = [limit for limit in body if limit is not None]
        self._moves_arm = action.moves_arm
        self.orientations = [OrientationLimit(action, each) for each in action.orientations]
        """Limits of the orientations that are commanded."""
        self.clamped = 0
        """Commands outside of the position limits since the start."""
        self.slew_limited = 0
        """Commands changed by the slew limit since the start."""
        self.workspace_limited = 0
        """Commands cut short at the border of the workspace since the start."""
        self.self_collision_limited = 0
        """Commands cut short because links would come too near one another since the start."""

    def apply(
        self,
        command: npt.ArrayLike,
        previous: Array | None,
        base: Array | None = None,
        passed: bool = False,
    ) -> Array:
        """Return the safe command, shape (m,).

        At a limit of the body the residual gives way, and the base only if it must: the result is
        never further than `command - base` from the base command that position and slew limits
        leave or, where that one is beyond the limit too, from what is left of it.

        Args:
            command: wanted command, shape (m,).
            previous: where the step begins, the last command or the measured positions; None skips
                all limits but those of the positions.
            base: the base action in it; None limits the command as a whole.
            passed: `previous` has passed this filter, so that it is inside of the limits.

        Raises:
            UnsafeCommandError: a command is not finite or of the wrong size, begins as a quaternion
                of no length, or chooses not exactly one of discrete actions; nothing may be sent.
        """
        wanted = np.asarray(command, dtype=np.float64)
        self._check('command', wanted)
        if self.action.is_discrete:
            if not is_one_hot(wanted):
                raise UnsafeCommandError(f'command {illegal_choice(self.action, wanted)}; holding')
            return wanted
        lower, upper = self.action.lower, self.action.upper
        wanted = self._in_other_numbers(wanted)
        safe = clamp(wanted, lower, upper)
        self.clamped += _differ(safe, wanted)
        if previous is None:
            for orientation in self.orientations:
                orientation.check(safe)
            return safe
        if not passed:
            self._check('previous command', previous)
        reach = self.action.max_step
        low, high = previous - reach, previous + reach
        limited = clamp(safe, low, high)
        for orientation in self.orientations:
            orientation.put(limited, orientation.step(safe, previous))
        if not passed:
            limited = clamp(limited, lower, upper)
        self.slew_limited += _differ(limited, safe)
        if not self._body or not any(each.excess(limited).any() for each in self._body):
            return limited
        # Where the robot stands outside of its position limits, the way begins at the limit.
        start = clamp(previous, lower, upper)
        allowed = [np.maximum(each.excess(previous), each.excess(start)) for each in self._body]
        if self._allows(limited, allowed):
            return limited
        self._count(limited, allowed)
        end = limited
        if base is not None:
            base = clamp(clamp(base, low, high), lower, upper)
            if self._allows(base, allowed):
                start = base
            else:
                end = base
        # What moves no arm has its limits already, and numbers of an orientation have no middle.
        return np.where(self._moves_arm, self._last_allowed(start, end, allowed), limited)

    def orientation_problem(self, command: Array) -> str:
        """Return what is wrong with a command whose quaternion has no length, else nothing.

        Args:
            command: finite, shape (m,).
        """
        try:
            for orientation in self.orientations:
                orientation.check(command)
        except UnsafeCommandError as error:
            return str(error)
        return ''

    def body_problem(self, joints: Array) -> str:
        """Return which limit of the body positions are beyond, empty if none.

        Args:
            joints: shape (m,).
        """
        return next(filter(None, (limit.problem(joints) for limit in self._body)), '')

    def _allows(self, joints: Array, allowed: list[Array]) -> bool:
        """Return whether the body is inside its limits or, in nothing, further out than allowed.

        Args:
            joints: joint positions, shape (m,).
            allowed: how far out, for each limit of the body, shape (k,) [m].
        """
        of_each = zip(self._body, allowed, strict=True)
        return all(bool((limit.excess(joints) <= excess).all()) for limit, excess in of_each)

    def _last_allowed(self, start: Array, end: Array, allowed: list[Array]) -> Array:
        """Return the last joint positions on the way from an allowed start to an end that is not.

        Args:
            start: allowed joint positions, shape (m,).
            end: joint positions that are not, shape (m,).
            allowed: as of `_allows`.
        """
        inside, outside = 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = 0.5 * (inside + outside)
            if self._allows(start + middle * (end - start), allowed):
                inside = middle
            else:
                outside = middle
        return start + inside * (end - start)

    def _count(self, joints: Array, allowed: list[Array]) -> None:
        """Count by which limits of the body a command is cut short."""
        for limit, excess in zip(self._body, allowed, strict=True):
            beyond = bool((limit.excess(joints) > excess).any())
            self.workspace_limited += beyond and limit is self.workspace
            self.self_collision_limited += beyond and limit is self.self_collision

    def excess(self, values: Array) -> Array:
        """Return how far each value is outside of the position limits, shape (m,).

        Args:
            values: measured where commands go, shape (m,).
        """
        values = self._in_other_numbers(values)
        return np.maximum(self.action.lower - values, values - self.action.upper)

    def difference(self, one: Array, other: Array) -> Array:
        """Return how far one command, or measurement, is from another, shape (m,)."""
        difference = one - other
        for orientation in self.orientations:
            orientation.put(difference, orientation.difference(one, other))
        return difference

    def _in_other_numbers(self, command: Array) -> Array:
        """Return a command whose orientations are inside of the limits, if any numbers are."""
        if self.orientations:
            command = command.copy()
            for orientation in self.orientations:
                orientation.bring_inside(command)
        return command

    def _check(self, name: str, command: Array) -> None:
        """Refuse a command of the wrong size or with a value that is not finite."""
        if command.shape != self._shape:
            raise UnsafeCommandError(
                f'{name} has shape {command.shape}, expected {self._shape}; holding'
            )
        if not all_finite(command):
            index = int(np.flatnonzero(~np.isfinite(command))[0])
            raise UnsafeCommandError(
                f'{name} for {self.action.names[index]!r} is {command[index]}; holding'
            )


def illegal_choice(action: ActionSpec, command: Array) -> str:
    """Return what is wrong with a command of discrete actions that is not one-hot.

    Args:
        action: the actions.
        command: shape (m,).
    """
    return (
        f'is {command[:8].tolist()}, expected 1 for one of {", ".join(action.names)}, and 0 for '
        'the others'
    )


def _differ(one: Array, other: Array) -> bool:
    """Return whether two commands differ in a bit; `!=` and `any` take ten times as long."""
    return one.tobytes() != other.tobytes()
