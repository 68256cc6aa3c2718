# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is done between two episodes: the pose in which a robot begins, and the reset of a scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.action_spec import VELOCITIES, ActionSpec
from residual_rl_ros.robot.topics import Channel
from residual_rl_ros.robot.transforms import NO_TRANSFORM
from residual_rl_ros.schema import did_you_mean, dotted, parameter, written_otherwise

WHEN = BETWEEN_EPISODES, ON_REQUEST, NEVER = ('between_episodes', 'on_request', 'never')
"""When a robot goes home."""
SERVICE_TYPES = TRIGGER, EMPTY = ('std_srvs/srv/Trigger', 'std_srvs/srv/Empty')
"""Types of a service that resets a scene."""
FARTHEST = 1000.0
"""No joint has its home further from 0 [rad or m]; of velocities no limit says how far it goes."""
TOLERANCE_S = 0.05
"""A robot is at home if it would be there within this time at its largest velocity."""

UNIT_LENGTH = 0.01
"""A quaternion whose length differs from 1 by more is a mistake."""


@dataclass(frozen=True, kw_only=True)
class HomeKeys:
    """Of `robot.home`."""

    positions: dict[str, Any] = parameter(
        MISSING, 'where each action goes, by its name; an action that is not named stays'
    )
    when: str = parameter(
        BETWEEN_EPISODES,
        'after each episode and before the first, only when `~/go_home` is called, or never',
        choices=WHEN,
    )
    velocity_share: float = parameter(
        0.25, 'largest share of the largest velocity on the way', above=0.0, maximum=1.0
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
    """Largest changes of position in a control step on the way."""
    tolerance: Array
    acceleration_s: float
    """From rest to the largest velocity [s]."""
    timeout_s: float
    """How much later than planned it may arrive [s]."""
    measured_by: tuple[str, ...] = ()
    """Of a robot that is commanded in velocities: observation name of the position of each action,
    empty for one that stays. Empty of all others."""

    def pose(self, action: ActionSpec) -> Array:
        """Return where the robot begins, shape (m,); what stays is in the middle of its range.

        Args:
            action: the actions.
        """
        middle = 0.5 * (action.lower + action.upper)
        return np.where(np.isnan(self.goal), middle, self.goal)


def home_of(
    keys: HomeKeys, action: ActionSpec, period_s: float, channels: Sequence[Channel] = ()
) -> HomeSpec:
    """Return where a robot begins.

    Args:
        keys: what its description says.
        action: its actions.
        period_s: control period [s].
        channels: of its observation, which measure positions of joints in velocity.

    Raises:
        ConfigError: it has no such position, or cannot know where it is.
    """
    if action.is_discrete or not action.measured_by:
        raise ConfigError(
            'home needs actions that are positions, or velocities of joints, and '
            'action.measured_by: the way home begins where the robot is; add it, or remove home'
        )
    goal, positions = np.full(action.size, np.nan), [''] * action.size
    for name, position in dotted(keys.positions):
        index = _index(name, action)
        if not np.isnan(goal[index]):
            raise ConfigError(f'home.positions.{name} is given twice: remove one of them')
        low, high, limits = action.lower[index], action.upper[index], 'action.lower, action.upper'
        if action.goes_to_zero[index]:
            positions[index] = _position_name(name, index, action, channels)
            low, high, limits = -FARTHEST, FARTHEST, 'rad or m'
        number = isinstance(position, (int, float)) and not isinstance(position, bool)
        if not number or not low <= position <= high:
            raise ConfigError(
                f'home.positions.{name} is {position!r}, expected a number from {low:g} to '
                f'{high:g} ({limits}){written_otherwise(position)}'
            )
        goal[index] = position
    led = ~np.isnan(goal)
    if not led.any():
        raise ConfigError('home.positions is empty, expected a position by action name')
    if any(positions) and not action.goes_to_zero[led].all():
        raise ConfigError(
            'home.positions has actions that are commanded in positions and such that are in '
            'velocities, expected one kind: leave out the others, which stay as they are'
        )
    for each in action.orientations:
        _check_orientation(goal, [index for index in each if index >= 0], action)
    if len(keys.tolerance) not in (0, 1, action.size):
        raise ConfigError(
            f'home.tolerance is {list(keys.tolerance)}, expected one value, or one for each of '
            f'{", ".join(action.names)}'
        )
    velocity = action.max_step / period_s
    if any(positions):
        velocity = np.where(led, np.minimum(-action.lower, action.upper), velocity)
    given = np.array(keys.tolerance or velocity * TOLERANCE_S)
    return HomeSpec(
        when=keys.when,
        goal=goal,
        max_step=keys.velocity_share * velocity * period_s,
        tolerance=np.broadcast_to(given, goal.shape),
        acceleration_s=keys.acceleration_s,
        timeout_s=keys.timeout_s,
        measured_by=tuple(positions) if any(positions) else (),
    )


def _index(name: str, action: ActionSpec) -> int:
    """Return which action has a name; an increment or an effort has no home."""
    if name not in action.names:
        hint = did_you_mean(name, action.names) or f'actions are {", ".join(action.names)}'
        raise ConfigError(f'home.positions.{name} is no action; {hint}')
    index = action.names.index(name)
    unit = action.units[index] if action.units else ''
    if action.goes_to_zero[index] and unit not in VELOCITIES:
        raise ConfigError(
            f'home.positions.{name} is commanded in {unit}, expected an action that is commanded '
            'in positions, or in velocities of a joint; remove it'
        )
    return index


def _position_name(name: str, index: int, action: ActionSpec, channels: Sequence[Channel]) -> str:
    """Return the observation name of the position of a joint that is commanded in velocity."""
    measured = action.measured_by[index]
    for channel in channels:
        for joint in channel.joints:
            position = f'{channel.name}.position.{joint}'
            known = {measured, position} <= set(channel.observation_names)
            ours = measured == f'{channel.name}.velocity.{joint}'
            if known and ours and channel.transform == NO_TRANSFORM:
                return position
    raise ConfigError(
        f'home.positions.{name} is commanded in {action.units[index]} and measured by '
        f'{measured!r}, expected the velocity of a joint in a JointState channel without transform '
        'that has its position too; a base that drives has no home: remove it'
    )


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
