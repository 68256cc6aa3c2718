# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The last station before the robot: finite check, position clamp, slew limit, workspace."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.residual.composition import clamp
from residual_rl_ros.residual.workspace import Workspace
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
        self._workspace = Workspace(action.workspace) if action.workspace else None
        self.clamped = 0
        """Commands changed by the position clamp since the start."""
        self.slew_limited = 0
        """Commands changed by the slew limit since the start."""
        self.workspace_limited = 0
        """Commands cut short at the border of the workspace since the start."""

    def apply(self, command: npt.ArrayLike, previous: Array | None) -> Array:
        """Return the safe command, shape (m,).

        Args:
            command: wanted command, shape (m,).
            previous: the command before, or the measured positions at the start; None skips the
                slew limit.

        Raises:
            UnsafeCommandError: a command is not finite or of the wrong size; nothing may be sent.
        """
        wanted = np.asarray(command, dtype=np.float64)
        for name, value in (('command', wanted), ('previous command', previous)):
            if value is not None and value.shape != (self.action.size,):
                raise UnsafeCommandError(
                    f'{name} has shape {value.shape}, expected ({self.action.size},); holding'
                )
        if previous is not None and not np.isfinite(previous).all():
            raise UnsafeCommandError(f'previous command is {previous.tolist()}; holding')
        if not np.isfinite(wanted).all():
            index = int(np.flatnonzero(~np.isfinite(wanted))[0])
            raise UnsafeCommandError(
                f'command for {self.action.names[index]!r} is {wanted[index]}; holding'
            )
        safe = clamp(wanted, self.action.lower, self.action.upper)
        self.clamped += bool((safe != wanted).any())
        if previous is None:
            return safe
        reach = self.action.max_step
        limited = clamp(safe, previous - reach, previous + reach)
        self.slew_limited += bool((limited != safe).any())
        if self._workspace is None:
            return limited
        inside = self._workspace.limit(limited, previous)
        self.workspace_limited += inside is not limited
        return inside
