# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is done between two episodes: the pose in which a robot begins, and the reset of a scene."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.action_spec import EFFORTS, RATES, ActionSpec
from residual_rl_ros.schema import parameter, written_otherwise

Array = npt.NDArray[np.float64]
WHEN = BETWEEN_EPISODES, ON_REQUEST, NEVER = ('between_episodes', 'on_request', 'never')
"""When a robot goes home."""
SERVICE_TYPES = TRIGGER, EMPTY = ('std_srvs/srv/Trigger', 'std_srvs/srv/Empty')
"""Types of a service that resets a scene."""
TOLERANCE_S = 0.05
"""A robot is at home if it would be there within this time at its largest velocity."""

UNIT_LENGTH = 0.01
"""A quaternion whose length differs from 1 by more is a mistake."""


@dataclass(frozen=True, kw_only=True)
class HomeKeys:
    """Of `robot.home`."""

    positions: dict[str, Any] = parameter(  # noqa: RUF009 - a field, as all others.
        MISSING, 'where each action goes, by its name; an action that is not named stays'
    )
    when: str = parameter(
        BETWEEN_EPISODES,
        'after each episode and before the first, only when `~/go_home` is called, or never',
        choices=WHEN,
    )
    velocity_share: float = parameter(
        0.25, 'largest share of max_velocity on the way', above=0.0, maximum=1.0
    )
    acceleration_s: float = parameter(
        0.5, 'time from rest to that velocity, and from it to rest [s]', 0.0, 60.0
    )
    tolerance: tuple[float, ...] = parameter(
        (),
        'largest distance at which it has arrived: one value, or one per action; default: '
        f'max_velocity x {TOLERANCE_S:g} s',
        above=0.0,
    )
    timeout_s: float = parameter(
        5.0, 'later than planned by more than this is a fault [s]', maximum=3600.0, above=0.0
    )


@dataclass(frozen=True, kw_only=True)
class ResetSpec:
    """How the scene is reset after each episode: `robot.reset`."""

    service: str = parameter('', 'service that resets the scene', ros_name=True)
    service_type: str = parameter(TRIGGER, 'its type', choices=SERVICE_TYPES)
    command: tuple[str, ...] = parameter(
        (), 'instead: program that does, with its arguments; no shell reads them'
    )
    timeout_s: float = parameter(
        60.0, 'a reset that takes longer has failed [s]', maximum=86_400.0, above=0.0
    )
    settle_s: float = parameter(0.0, 'wait before the next episode [s]', 0.0, 86_400.0)

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        if self.service and self.command:
            yield 'command is given beside service: give one'
        if not (self.service or self.command or self.settle_s):
            yield 'service, command and settle_s are missing: give one, or remove robot.reset'


@dataclass(frozen=True)
class HomeSpec:
    """The pose in which a robot begins, and how it gets there; shapes (m,), command units."""

    when: str
    """One of `WHEN`."""
    goal: Array
    """Positions; NaN for an action that stays where it is."""
    max_step: Array
    """Largest changes in a control step on the way."""
    tolerance: Array
    acceleration_s: float
    """From rest to the largest velocity [s]."""
    timeout_s: float
    """How much later than planned it may arrive [s]."""

    def pose(self, action: ActionSpec) -> Array:
        """Return where the robot begins, shape (m,); what stays is in the middle of its range.

        Args:
            action: the actions.
        """
        middle = 0.5 * (action.lower + action.upper)
        return np.where(np.isnan(self.goal), middle, self.goal)


def home_of(keys: HomeKeys, action: ActionSpec, period_s: float) -> HomeSpec:
    """Return where a robot begins.

    Args:
        keys: what its description says.
        action: its actions.
        period_s: control period [s].

    Raises:
        ConfigError: it has no such position, or cannot know where it is.
    """
    if action.is_discrete or not action.measured_by:
        raise ConfigError(
            'home needs actions that are positions, and action.measured_by: the way home begins '
            'where the robot is; add it, or remove home'
        )
    goal = np.full(action.size, np.nan)
    for name, position in _flat(keys.positions):
        index = _index(name, action)
        if not np.isnan(goal[index]):
            raise ConfigError(f'home.positions.{name} is given twice: remove one of them')
        low, high = action.lower[index], action.upper[index]
        number = isinstance(position, (int, float)) and not isinstance(position, bool)
        if not number or not low <= position <= high:
            raise ConfigError(
                f'home.positions.{name} is {position!r}, expected a number from {low:g} to '
                f'{high:g} (action.lower, action.upper){written_otherwise(position)}'
            )
        goal[index] = position
    if np.isnan(goal).all():
        raise ConfigError('home.positions is empty, expected a position by action name')
    for each in action.orientations:
        _check_orientation(goal, [index for index in each if index >= 0], action)
    if len(keys.tolerance) not in (0, 1, action.size):
        raise ConfigError(
            f'home.tolerance is {list(keys.tolerance)}, expected one value, or one for each of '
            f'{", ".join(action.names)}'
        )
    given = np.array(keys.tolerance or action.max_step / period_s * TOLERANCE_S)
    return HomeSpec(
        when=keys.when,
        goal=goal,
        max_step=keys.velocity_share * action.max_step,
        tolerance=np.broadcast_to(given, goal.shape),
        acceleration_s=keys.acceleration_s,
        timeout_s=keys.timeout_s,
    )


def _index(name: str, action: ActionSpec) -> int:
    """Return which action has a name; one that is no position has no home."""
    if name not in action.names:
        near = difflib.get_close_matches(name, action.names, 1)
        hint = f'did you mean {near[0]}?' if near else f'actions are {", ".join(action.names)}'
        raise ConfigError(f'home.positions.{name} is no action; {hint}')
    index = action.names.index(name)
    unit = action.units[index] if action.units else ''
    if unit in RATES or unit in EFFORTS or action.goes_to_zero[index]:
        raise ConfigError(
            f'home.positions.{name} is commanded in {unit}, expected an action that is commanded '
            'in positions; remove it'
        )
    return index


def _check_orientation(goal: Array, places: list[int], action: ActionSpec) -> None:
    """Refuse half of an orientation, and a quaternion that is none."""
    given, names = goal[places], ', '.join(action.names[index] for index in places)
    if np.isnan(given).any() and not np.isnan(given).all():
        raise ConfigError(f'home.positions has some of {names}: they are one orientation, give all')
    length = float(np.linalg.norm(given))
    if len(places) == 4 and abs(length - 1.0) > UNIT_LENGTH:
        raise ConfigError(
            f'home.positions of {names} has length {length:.4g}, expected a quaternion of length 1'
        )


def _flat(positions: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield positions by action name: in ROS parameters a dot of a name opens a map."""
    for key, value in positions.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f'{prefix}{key}.')
        else:
            yield prefix + str(key), value
