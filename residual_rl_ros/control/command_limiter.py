# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The last command, which decides what the next may be and how the robot is held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from residual_rl_ros.control.safety import SafetyFilter

Array = npt.NDArray[np.float64]


class CommandLimiter:
    """Passes commands through the safety filter and remembers the last one.

    Args:
        safety: last filter before the robot.
        observation_names: where the measured positions of the actions are found.
    """

    def __init__(self, safety: SafetyFilter, observation_names: Sequence[str]) -> None:
        self.safety = safety
        self._measured = [observation_names.index(name) for name in safety.action.measured_by]
        self._rest = np.zeros(safety.action.size) if safety.action.hold == 'zero' else None
        self._before: Array | None = None  # Where the next command begins.
        self._commanded = False
        self.overridden = False
        """Whether the last command was an operator's."""

    def start_from(self, observation: Array) -> None:
        """Begin where the robot is, for it may have been moved since the last command.

        A velocity is not moved: there the last command goes on until the next one.

        Args:
            observation: shape (n,).
        """
        self.overridden = False
        if self._rest is None or not self._commanded:
            self.reset()
            self._before = observation[self._measured] if self._measured else None

    def reset(self) -> None:
        """Forget the last command: somebody else may have commanded the robot since."""
        self._before, self._commanded = None, False

    @property
    def last_command(self) -> Array | None:
        """What the robot was told last, shape (m,), None if nothing."""
        return self._before if self._commanded else None

    @property
    def at_rest(self) -> bool:
        """Whether the robot stays as it is without another command."""
        last = self.last_command
        return self._rest is None or last is None or not last.any()

    @property
    def knows_where(self) -> bool:
        """Whether it is known where the next command begins, if that can be measured at all."""
        return self._before is not None or not self._measured

    def limit(self, command: Array, base: Array | None = None) -> Array:
        """Return a command as it may be sent, shape (m,), without sending it.

        Args:
            command: wanted command, shape (m,).
            base: the base action in it; None limits the command as a whole.

        Raises:
            UnsafeCommandError: nothing may be sent.
        """
        return self.safety.apply(command, self._before, base)

    def commit(self, command: Array, overridden: bool = False) -> Array:
        """Remember a command that is sent, and return it.

        Args:
            command: shape (m,).
            overridden: it is an operator's.
        """
        self._before, self._commanded, self.overridden = command, True, overridden
        return command

    def override(self, command: Array) -> Array:
        """Return an operator's command, limited, shape (m,).

        Raises:
            UnsafeCommandError: nothing may be sent.
        """
        return self.commit(self.limit(command), overridden=True)

    def hold(self) -> Array | None:
        """Return the command that holds the robot, shape (m,), None if nothing was sent yet.

        The last command again or, where the robot holds by zero, one step of slowing down.
        """
        if self._rest is not None and self._commanded:
            self._before = self.limit(self._rest)
        return self.last_command
