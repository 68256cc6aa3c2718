# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is commanded: the action contract of a robot, with its limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from residual_rl_ros.errors import ConfigError, shown
from residual_rl_ros.numerics import Array, Mask
from residual_rl_ros.robot.body_spec import SelfCollisionSpec, WorkspaceSpec
from residual_rl_ros.robot.names import check_names

POSITIONS = ('m', 'rad')
"""Units of positions: repeated, they stay."""
INCREMENTS = ('m/step', 'rad/step')
VELOCITIES = ('m/s', 'rad/s')
RATES = (*VELOCITIES, *INCREMENTS)
"""Units of velocities and of increments: repeated, they move on, and zero stays."""
EFFORTS = ('N', 'N m')
"""Units of efforts: repeated, they push on, and zero lets go."""
UNITS = (*POSITIONS, *RATES, *EFFORTS, '1')
"""Units of actions; `1` does not say what a repeated command does."""
FOLLOWING_S, FOLLOWING_PERIODS = 0.25, 5
"""A command may be so far ahead of its measurement, at the largest velocity: servos lag. The larger
of seconds and control periods counts; a specification, which knows no seconds, has the latter."""
STANDS_STILL = 0.75
"""A robot that is told this share of its largest velocity, and stands still, does not follow."""
START_S, START_PERIODS = 1.0, 20
"""An episode's first command may be so far away, likewise."""
MAX_LIMIT = 1e6
"""Largest finite limit of an action, trained action and residual bound, in its unit."""
CONTINUOUS, DISCRETE = KINDS = ('continuous', 'discrete')
"""Kinds of actions."""


@dataclass(frozen=True)
class ActionSpec:
    """The command vector: m names with their limits, all in command units.

    Of discrete actions one is chosen: the command is a one-hot vector, 1 for that one.
    """

    names: tuple[str, ...]
    """Action names, for example `joint1.position`."""
    lower: Array
    """Smallest command, shape (m,)."""
    upper: Array
    """Largest command, shape (m,)."""
    max_step: Array
    """Largest change of a command from one control step to the next (slew limit), shape (m,)."""
    measured_by: tuple[str, ...] = ()
    """Observation name that measures each action (m), where the slew limit starts after any time
    without commands; empty if the actions are not measured: then it starts at the last command."""
    workspace: WorkspaceSpec | None = None
    """Limits of points of the arm, for joint positions."""
    units: tuple[str, ...] = ()
    """Unit of each action (m), from `UNITS`; empty if they are not given: then positions."""
    hold: str | tuple[str, ...] = ''
    """How the robot holds: by its `last` command again or by `zero`; or one of these for each
    action. Empty follows from the units: positions repeat, everything else goes to zero."""
    following_limit: Array = field(default_factory=lambda: np.zeros(0))
    """Largest distance between a command and its measurement while the robot moves, and of a
    measurement from the limits, shape (m,); empty: `FOLLOWING_PERIODS` largest steps. Infinite for
    increments and efforts."""
    start_limit: Array = field(default_factory=lambda: np.zeros(0))
    """Largest distance of an episode's first command from the measurement, shape (m,); empty:
    `START_PERIODS` largest steps. Infinite for all but positions."""
    orientations: tuple[tuple[int, ...], ...] = ()
    """The actions of each orientation that is commanded, by their places: x, y, z of a rotation
    vector [rad], -1 for one that stays zero, or x, y, z, w of a quaternion."""
    grippers: tuple[int, ...] = ()
    """The actions that command a gripper, by their places: one that holds something stays away from
    its command."""
    kind: str = CONTINUOUS
    """One of `KINDS`."""
    hold_action: str = ''
    """The discrete action with which the robot holds; empty repeats the last one."""
    self_collision: SelfCollisionSpec | None = None
    """Limits of the distance between links of the arm, for joint positions."""
    goes_to_zero: Mask = field(init=False, repr=False, compare=False)
    """Actions that hold by zero, shape (m,)."""

    def __post_init__(self) -> None:
        """Check sizes and signs."""
        check_names('action', self.names)
        self._check_kind()
        self._check_units()
        if self.measured_by and len(self.measured_by) != self.size:
            raise ConfigError(
                f'action measured_by has {len(self.measured_by)} names, expected {self.size} or 0'
            )
        for label, joints in self._arms():
            if len(joints) != self.size:
                raise ConfigError(
                    f'{label} joints are {list(joints)}, expected one for each of '
                    f'{", ".join(self.names)}'
                )
        for label, _ in self._arms():
            if not self.measured_by:
                raise ConfigError(
                    f'{label} needs measured_by: limits begin where the robot really is'
                )
        for label in ('lower', 'upper', 'max_step', 'following_limit', 'start_limit'):
            value = np.array(getattr(self, label), dtype=np.float64)
            if label.endswith('_limit') and not value.size:
                steps = FOLLOWING_PERIODS if label == 'following_limit' else START_PERIODS
                value = steps * self.max_step
            if value.shape != (self.size,):
                raise ConfigError(
                    f'action {label} has {value.size} values, expected {self.size} (one per name)'
                )
            if np.isnan(value).any():
                raise ConfigError(f'action {label} holds NaN: {value.tolist()}')
            if (large := np.isfinite(value) & (np.abs(value) > MAX_LIMIT)).any():
                raise ConfigError(
                    f'action {label} is {value[large][0]:g}, expected at most {MAX_LIMIT:g}'
                )
            object.__setattr__(self, label, value)
        # A velocity starts at rest.
        moves_on = [unit in RATES or unit in EFFORTS for unit in self.units]
        self.start_limit[np.flatnonzero(moves_on)] = np.inf
        self.following_limit[~self.is_tracked] = np.inf
        for index, name in enumerate(self.names):
            low, high = self.lower[index], self.upper[index]
            if not low < high:
                raise ConfigError(f'action {name!r}: lower {low} is not below upper {high}')
            for label, meaning in {
                'max_step': 'slew limit',
                'following_limit': 'following_limit',
                'start_limit': 'start_limit',
            }.items():
                value = getattr(self, label)[index]
                if not value > 0.0:
                    raise ConfigError(f'action {name!r}: {meaning} {value} is not positive')
            if self._is_quaternion(index) and not (low <= -1.0 and high >= 1.0):
                raise ConfigError(
                    f'action {name!r}, of a quaternion, has lower {low} and upper {high}, expected '
                    '-1 and 1: its negative is the same orientation; to limit orientations, '
                    'command them by rotation_vector'
                )
            if self.goes_to_zero[index] and not low <= 0.0 <= high:
                raise ConfigError(
                    f'action {name!r} holds by zero, which is outside of lower {low}, upper {high}'
                )
            if self.goes_to_zero[index] and not np.isfinite([low, high]).all():
                raise ConfigError(
                    f'action {name!r} [{self.units[index]}] has lower {low} and upper {high}, '
                    'expected finite limits: a robot must be able to slow down'
                )

    @classmethod
    def discrete(cls, names: Sequence[str], hold_action: str = '') -> ActionSpec:
        """Return discrete actions: any of them may follow any other, and none is measured.

        Args:
            names: one for each action.
            hold_action: with which the robot holds; empty repeats the last one.
        """
        one, free = np.ones(len(names)), np.full(len(names), np.inf)
        return cls(
            names=tuple(names),
            lower=np.zeros(len(names)),
            upper=one,
            max_step=one,
            following_limit=free,
            start_limit=free,
            kind=DISCRETE,
            hold_action=hold_action,
        )

    @classmethod
    def recorded(cls, names: Sequence[str], discrete: bool = False) -> ActionSpec:
        """Return actions without limits: what was recorded has been executed.

        Args:
            names: one for each action.
            discrete: they are discrete actions.
        """
        if discrete:
            return cls.discrete(names)
        free = np.full(len(names), np.inf)
        return cls(tuple(names), -free, free, free)

    def _is_quaternion(self, index: int) -> bool:
        """Return whether an action is of a quaternion."""
        return any(index in each and len(each) == 4 for each in self.orientations)

    def _check_kind(self) -> None:
        """Refuse what discrete actions cannot have, and a hold action that is none of them."""
        if self.kind not in KINDS:
            raise ConfigError(f'action kind is {shown(self.kind)}, expected {" or ".join(KINDS)}')
        if not self.is_discrete:
            if self.hold_action:
                raise ConfigError(
                    f'hold_action is {self.hold_action!r}, but the actions are continuous: remove '
                    'it, or set kind to discrete'
                )
            return
        if self.hold_action and self.hold_action not in self.names:
            raise ConfigError(
                f'hold_action is {shown(self.hold_action)}, expected one of {", ".join(self.names)}'
            )
        for label in ('measured_by', 'workspace', 'self_collision', 'units', 'hold'):
            if getattr(self, label) not in (None, (), '', 'last'):
                raise ConfigError(f'{label} is given, but discrete actions have none; remove it')
        for label, wanted in (('lower', 0.0), ('upper', 1.0)):
            values = np.asarray(getattr(self, label))
            if (values != wanted).any():
                raise ConfigError(
                    f'{label} of discrete actions is {values.tolist()}, expected {wanted:g} for '
                    'each (commands are one-hot vectors); remove it'
                )

    def _check_units(self) -> None:
        """Check units and hold, and keep what each action does to hold."""
        if self.units and len(self.units) != self.size:
            raise ConfigError(
                f'action units are {list(self.units)}, expected one for each of '
                f'{", ".join(self.names)}'
            )
        for unit in self.units:
            if unit not in UNITS:
                raise ConfigError(f'action unit is {unit!r}, expected one of {UNITS}')
        holds = (self.hold,) * self.size if isinstance(self.hold, str) else self.hold
        if len(holds) != self.size or not set(holds) <= {'', 'last', 'zero'}:
            raise ConfigError(f'hold is {self.hold!r}, expected last, zero or nothing')
        goes_to_zero = np.zeros(self.size, dtype=bool)
        for index, (unit, hold) in enumerate(zip(self.units, holds, strict=False)):
            moves_on = unit in RATES or unit in EFFORTS
            if moves_on and hold == 'last':
                raise ConfigError(
                    f'hold last would go on with {self.names[index]!r} [{unit}]: leave hold out, '
                    'or set it to zero'
                )
            if unit == '1' and hold not in ('last', 'zero'):
                raise ConfigError(
                    f"unit '1' of {self.names[index]!r} does not say how to hold: set hold to last "
                    '(positions) or zero (velocities, increments, efforts)'
                )
            if unit in POSITIONS and hold == 'zero':
                raise ConfigError(
                    f'hold zero would move {self.names[index]!r} [{unit}] to zero: leave hold out, '
                    'or set it to last'
                )
            goes_to_zero[index] = moves_on or (unit == '1' and hold == 'zero')
        if 'zero' in holds and not self.units:
            raise ConfigError(
                'hold zero would move a robot whose actions have no units: set units, or hold last'
            )
        each = tuple('zero' if zero else 'last' for zero in goes_to_zero)
        object.__setattr__(self, 'hold', each if len({*each}) > 1 else each[0])
        object.__setattr__(self, 'goes_to_zero', goes_to_zero)
        for label, arm in self._arms():
            of_joints = zip(arm, self.units, strict=False)
            if any(joint and unit not in POSITIONS for joint, unit in of_joints):
                raise ConfigError(
                    f'{label} is for joint positions, action units are {list(self.units)}: command '
                    f'positions, or remove {label}'
                )

    def _arms(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield what limits an arm, and the joint of each action."""
        if self.workspace is not None:
            yield 'workspace', self.workspace.joints
        if self.self_collision is not None:
            yield 'self_collision', self.self_collision.urdf.joints

    @property
    def is_tracked(self) -> Mask:
        """Whether the robot brings what is measured to what is commanded, shape (m,).

        It does with positions and velocities. What is measured of an increment or an effort is
        another thing, whatever its unit.
        """
        untracked = (*INCREMENTS, *EFFORTS)
        return np.array([unit not in untracked for unit in self.units or ('1',) * self.size])

    @property
    def moves_arm(self) -> Mask:
        """Whether each action moves a joint of an arm whose body has limits, shape (m,)."""
        moves = np.zeros(self.size, dtype=bool)
        for _, joints in self._arms():
            moves |= np.array(joints) != ''
        return moves

    @property
    def size(self) -> int:
        """Number of action dimensions m."""
        return len(self.names)

    @property
    def is_discrete(self) -> bool:
        """Whether a command is a one-hot vector."""
        return self.kind == DISCRETE

    @property
    def hold_command(self) -> Array | None:
        """The command with which the robot holds, shape (m,), if it is always the same."""
        if not self.hold_action:
            return None
        command = np.zeros(self.size)
        command[self.names.index(self.hold_action)] = 1.0
        return command
