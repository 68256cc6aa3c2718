# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is commanded: the action contract of a robot, with its limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ConfigError

Array = npt.NDArray[np.float64]


def check_names(kind: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names as a tuple.

    Raises:
        ConfigError: there are none, one is empty or one is repeated.
    """
    if not names:
        raise ConfigError(f'{kind} names are empty; list at least one')
    for name in names:
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigError(
                f'{kind} name {name!r} is not a non-empty string of printable characters'
            )
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise ConfigError(f'{kind} names are repeated: {repeated}; each must be unique')
    return tuple(names)


def integer(value: Any) -> int:
    """Return a whole number as int.

    Raises:
        ValueError: the value is a boolean, no number or not whole; nothing is truncated.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise ValueError(f'{value!r} is not a whole number')
    return int(value)


@dataclass(frozen=True)
class WorkspaceSpec:
    """The box that a point of an arm must not leave."""

    model: str
    """Kinematic model, MJCF or URDF: a path, or the name of a shipped one in `sim/`."""
    point: str
    """Site or body (URDF: link) of the model."""
    joints: tuple[str, ...]
    """Joint of each action, whose position is commanded (m)."""
    lower: Array
    """Smallest coordinates, base frame of the model, shape (3,) [m]."""
    upper: Array
    """Largest coordinates, shape (3,) [m]."""

    def __post_init__(self) -> None:
        """Check names and sizes."""
        check_names('workspace joint', self.joints)
        for label in ('lower', 'upper'):
            value = np.asarray(getattr(self, label), dtype=np.float64)
            if value.shape != (3,) or np.isnan(value).any():
                raise ConfigError(
                    f'workspace {label} is {value.tolist()}, expected 3 numbers x, y, z [m]'
                )
            object.__setattr__(self, label, value)
        if not (self.lower < self.upper).all():
            raise ConfigError(
                f'workspace lower {self.lower.tolist()} is not below upper {self.upper.tolist()}'
            )


RATES = ('m/s', 'rad/s', 'm/step', 'rad/step')
"""Units of velocities and of increments: repeated, they move on, and zero stays."""
UNITS = ('m', 'rad', *RATES, 'N', 'N m', '1')
"""Units of actions."""


@dataclass(frozen=True)
class ActionSpec:
    """The command vector: m names with their limits, all in command units."""

    names: tuple[str, ...]
    """Action names, for example `joint1.position`."""
    lower: Array
    """Smallest command, shape (m,)."""
    upper: Array
    """Largest command, shape (m,)."""
    max_step: Array
    """Largest change of a command from one control step to the next (slew limit), shape (m,)."""
    measured_by: tuple[str, ...] = ()
    """Observation name that measures each action (m), where the slew limit starts at the beginning
    of an episode; empty if the actions are not measured: then the first command is free."""
    workspace: WorkspaceSpec | None = None
    """Limits of the end effector, for joint positions."""
    units: tuple[str, ...] = ()
    """Unit of each action (m), from `UNITS`; empty if they are not given."""
    hold: str = 'last'
    """How a robot holds: by its `last` command again or, for velocities, by `zero`."""

    def __post_init__(self) -> None:
        """Check sizes and signs."""
        check_names('action', self.names)
        self._check_units()
        if self.measured_by and len(self.measured_by) != self.size:
            raise ConfigError(
                f'action measured_by has {len(self.measured_by)} names, expected {self.size} or 0'
            )
        if self.workspace and len(self.workspace.joints) != self.size:
            raise ConfigError(
                f'workspace joints are {list(self.workspace.joints)}, expected one for each of '
                f'{", ".join(self.names)}'
            )
        if self.workspace and not self.measured_by:
            raise ConfigError('workspace needs measured_by: limits begin where the robot really is')
        for label in ('lower', 'upper', 'max_step'):
            value = np.asarray(getattr(self, label), dtype=np.float64)
            if value.shape != (self.size,):
                raise ConfigError(
                    f'action {label} has {value.size} values, expected {self.size} (one per name)'
                )
            if np.isnan(value).any():
                raise ConfigError(f'action {label} holds NaN: {value.tolist()}')
            object.__setattr__(self, label, value)
        for name, low, high, step in zip(
            self.names, self.lower, self.upper, self.max_step, strict=True
        ):
            if not low < high:
                raise ConfigError(f'action {name!r}: lower {low} is not below upper {high}')
            if not step > 0.0:
                raise ConfigError(f'action {name!r}: slew limit {step} is not positive')

        if self.hold == 'zero' and ((self.lower > 0.0) | (self.upper < 0.0)).any():
            raise ConfigError(
                f'hold zero is outside of lower {self.lower.tolist()}, upper {self.upper.tolist()}'
            )

    def _check_units(self) -> None:
        if self.units and len(self.units) != self.size:
            raise ConfigError(
                f'action units are {list(self.units)}, expected one for each of '
                f'{", ".join(self.names)}'
            )
        for unit in self.units:
            if unit not in UNITS:
                raise ConfigError(f'action unit is {unit!r}, expected one of {UNITS}')
        if self.hold not in ('last', 'zero'):
            raise ConfigError(f'hold is {self.hold!r}, expected last or zero')
        if self.hold == 'zero' and not (self.units and set(self.units) <= set(RATES)):
            raise ConfigError(
                f'hold zero would move a robot whose actions are {list(self.units) or "unknown"}; '
                f'it is for action units {RATES}: set units, or hold last'
            )

    @property
    def size(self) -> int:
        """Number of action dimensions m."""
        return len(self.names)
