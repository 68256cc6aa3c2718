# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The last station before the robot: finite check, position clamp, slew limit, workspace."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.residual.workspace import Workspace
from residual_rl_ros.small_arrays import all_finite, clamp
from residual_rl_ros.spec import ActionSpec

Array = npt.NDArray[np.float64]


class UnsafeCommandError(ResidualRLError):
    """A command is not finite or of the wrong size; the robot must hold instead."""


class SafetyFilter:
    """Clamps commands to the limits of an action, in the order of DESIGN.md section 7.

    A command inside all limits passes unchanged, bit for bit.

    Args:
        action: names and limits of the command.

    Raises:
        SpecificationError: the kinematic model of the workspace cannot be used.
    """

    def __init__(self, action: ActionSpec) -> None:
        self.action = action
        self._shape = (action.size,)
        self._workspace = Workspace(action.workspace) if action.workspace else None
        self.clamped = 0
        """Commands changed by the position clamp since the start."""
        self.slew_limited = 0
        """Commands changed by the slew limit since the start."""
        self.workspace_limited = 0
        """Commands cut short at the border of the workspace since the start."""

    def apply(
        self, command: npt.ArrayLike, previous: Array | None, base: Array | None = None
    ) -> Array:
        """Return the safe command, shape (m,).

        At the border of the workspace the residual gives way, and the base only if it must: the
        result is never further than `command - base` from the base command that position and slew
        limits leave or, where that one leaves the workspace too, from what is left of it.

        Args:
            command: wanted command, shape (m,).
            previous: the command before, or the measured positions at the start; None skips the
                slew limit.
            base: the base action in it; None limits the command as a whole.

        Raises:
            UnsafeCommandError: a command is not finite or of the wrong size; nothing may be sent.
        """
        wanted = np.asarray(command, dtype=np.float64)
        self._check('command', wanted)
        safe = clamp(wanted, self.action.lower, self.action.upper)
        self.clamped += _differ(safe, wanted)
        if previous is None:
            return safe
        self._check('previous command', previous)
        reach = self.action.max_step
        low, high = previous - reach, previous + reach
        limited = clamp(safe, low, high)
        self.slew_limited += _differ(limited, safe)
        if self._workspace is None:
            return limited
        allowed = self._workspace.excess(previous)
        if self._workspace.allows(limited, allowed):
            return limited
        self.workspace_limited += 1
        start = previous
        if base is not None:
            base = clamp(clamp(base, self.action.lower, self.action.upper), low, high)
            if self._workspace.allows(base, allowed):
                start = base
            else:
                limited = base
        return self._workspace.last_allowed(start, limited, allowed)

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


def _differ(one: Array, other: Array) -> bool:
    """Return whether two commands differ in a bit; `!=` and `any` take ten times as long."""
    return one.tobytes() != other.tobytes()
