# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read `robot.action` of a robot YAML, and what `robot.robot_description` adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.action_spec import (
    DISCRETE,
    EFFORTS,
    FOLLOWING_PERIODS,
    FOLLOWING_S,
    INCREMENTS,
    POSITIONS,
    RATES,
    STANDS_STILL,
    START_PERIODS,
    START_S,
    ActionSpec,
)
from residual_rl_ros.robot.body_section import BodySection
from residual_rl_ros.robot.command_section import CommandSection
from residual_rl_ros.robot.keys import ActionKeys, DiscreteActionKeys
from residual_rl_ros.robot.topics import JOINT_STATE, Channel
from residual_rl_ros.robot.urdf import TOPIC, JointLimits, Urdf, UrdfKeys, UrdfModel, read_urdf
from residual_rl_ros.schema import read_section

LIMITS = ('lower', 'upper', 'max_velocity')
"""Keys that a URDF fills."""
ROUNDED = 1e-6
"""So much wider than the URDF's a limit may be: files round."""


@dataclass
class ActionSection:
    """What `robot.action` says, and what is wrong with it."""

    problems: list[str]
    """Get what is wrong."""
    keys: ActionKeys | DiscreteActionKeys | None = None
    urdf: Urdf | None = None
    """The robot's URDF, if it has one."""
    filled: tuple[str, ...] = ()
    """Limits that come from it."""
    _description: UrdfKeys | None = None
    _body: BodySection | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the actions."""
        return () if self.keys is None else self.keys.names

    def read(self, mapping: Mapping[str, Any], description: Any, heard: bool = False) -> None:
        """Read the section.

        Args:
            mapping: `robot.action`.
            description: `robot.robot_description`, None without.
            heard: the URDF of the topic is known.
        """
        action = dict(mapping)
        if description is not None:
            self._description = read_section(
                UrdfKeys, description, 'robot.robot_description', self.problems
            )
        if action.get('kind') == DISCRETE:
            self.keys = read_section(DiscreteActionKeys, action, 'robot.action', self.problems)
            if description is not None:
                self.problems.append(
                    'robot.robot_description is given, but discrete actions move no joints; '
                    'remove it'
                )
            return
        self._body = BodySection(self.problems)
        self._body.read(action, description is not None)
        self.keys = keys = read_section(ActionKeys, action, 'robot.action', self.problems)
        if keys is not None:
            self._check(keys, description is not None, heard)

    def _check(self, keys: ActionKeys, described: bool, heard: bool) -> None:
        """Refuse limits that neither the keys nor a URDF say."""
        awaited = self._description is not None and self._description.urdf == TOPIC
        if described and (heard or not awaited):
            return
        reason = (
            ', which robot_description gives from a file alone: `check-robot --live` says what the '
            'topic has'
        )
        self.problems += [
            f'robot.action.{key} is missing, expected a list of numbers{reason * awaited}'
            for key in LIMITS
            if not getattr(keys, key)
        ]

    def spec(
        self,
        command: CommandSection,
        units: tuple[str, ...],
        channels: Sequence[Channel],
        period_s: float,
        heard: str = '',
    ) -> ActionSpec:
        """Return the actions; their velocities become steps of a control period.

        Args:
            command: what carries them.
            units: of each.
            channels: of the observation.
            period_s: control period [s].
            heard: URDF of the topic; empty if nobody listens.

        Raises:
            ConfigError: something does not fit.
        """
        keys = self.keys
        if isinstance(keys, DiscreteActionKeys):
            return ActionSpec.discrete(keys.names, keys.hold_action)
        assert keys is not None
        assert self._body is not None
        if self._description is not None:
            self.urdf = urdf = self._open(self._description, keys, channels, heard)
            if urdf.text:
                keys = self._limited(keys, units, command, period_s, UrdfModel(urdf).limits())
        velocity = np.array(keys.max_velocity)
        following = velocity * max(FOLLOWING_S, FOLLOWING_PERIODS * period_s)
        if units:
            # Of a velocity: a wheel slips, odometry is filtered; but one that stands still lags.
            fastest = np.maximum(np.abs(keys.lower), np.abs(keys.upper))
            moves_on = ~np.isin(units, POSITIONS)
            most = np.minimum(2.0 * following, STANDS_STILL * fastest)
            following = np.where(moves_on, most, following)
        start = velocity * max(START_S, START_PERIODS * period_s)
        holds = tuple(command.holds)
        return ActionSpec(
            names=keys.names,
            lower=np.array(keys.lower),
            upper=np.array(keys.upper),
            max_step=velocity * period_s,
            measured_by=keys.measured_by,
            workspace=self._body.workspace(self.urdf),
            self_collision=self._body.self_collision(self.urdf),
            units=units,
            hold=holds if len(set(holds)) > 1 else holds[0],
            orientations=command.orientations,
            grippers=command.grippers,
            following_limit=np.array(keys.following_limit or following),
            start_limit=np.array(keys.start_limit or start),
        )

    def _open(
        self, given: UrdfKeys, keys: ActionKeys, channels: Sequence[Channel], heard: str
    ) -> Urdf:
        """Return the URDF, with the joint of each action."""
        measured = {
            f'{channel.name}.{field}.{joint}': joint
            for channel in channels
            if channel.type == JOINT_STATE
            for field in channel.fields
            for joint in channel.joints
        }
        joints = given.joints or tuple(measured.get(name, '') for name in keys.measured_by)
        if len(joints) != len(keys.names) or not any(joints):
            raise ConfigError(
                f'robot_description.joints is {list(joints)}, expected one for each of '
                f'{", ".join(keys.names)}; by default the joints of measured_by'
            )
        if given.urdf == TOPIC:
            return Urdf(TOPIC, heard, joints)
        return Urdf(*read_urdf(given.urdf), joints)

    def _limited(
        self,
        keys: ActionKeys,
        units: tuple[str, ...],
        command: CommandSection,
        period_s: float,
        limits: JointLimits,
    ) -> ActionKeys:
        """Return the keys with limits that the URDF fills; refuse those that it does not allow."""
        assert self._description is not None
        goals = [
            index
            for each in command.commands
            if each.is_action
            for index in each.indices or range(len(keys.names))
        ]
        widest = _widest(limits, units, period_s, 1.0)
        # What gets goals moves to them at a speed of its own.
        widest['max_velocity'][goals] = np.nan
        self.filled = tuple(key for key in LIMITS if not getattr(keys, key))
        given = {key: getattr(keys, key) for key in LIMITS if key not in self.filled}
        for key, values in given.items():
            self._compare(key, values, widest[key], keys.names)
        fill = _widest(limits, units, period_s, self._description.velocity_share)
        fill['max_velocity'][goals] = (limits.upper - limits.lower)[goals] / period_s
        for key in self.filled:
            unknown = [keys.names[index] for index in np.flatnonzero(np.isnan(fill[key]))]
            if unknown:
                self.problems.append(
                    f'robot.action.{key} is missing, and robot_description has none for '
                    f'{", ".join(unknown)}: write it, for all actions'
                )
        self._check_filled(keys, fill)
        if self.problems:
            raise ConfigError('robot_description', self.problems)
        filled: dict[str, Any] = {key: tuple(fill[key].tolist()) for key in self.filled}
        return replace(keys, **filled)

    def _check_filled(self, keys: ActionKeys, fill: Mapping[str, Array]) -> None:
        """Refuse limits of the URDF with which nothing can move."""
        low, high, velocity = (
            fill[key] if key in self.filled else np.array(getattr(keys, key)) for key in LIMITS
        )
        for index, name in enumerate(keys.names):
            empty = len(low) == len(high) and low[index] >= high[index]
            if empty and {'lower', 'upper'} & {*self.filled}:
                self.problems.append(
                    f'robot.action.lower and upper of {name!r} are {low[index]:g} and '
                    f'{high[index]:g}, of which robot_description gives '
                    f'{" and ".join(key for key in self.filled if key != "max_velocity")}: change '
                    'the URDF, or write both'
                )
            if 'max_velocity' in self.filled and velocity[index] <= 0.0:
                self.problems.append(
                    f'robot.action.max_velocity of {name!r} is {velocity[index]:g} by '
                    'robot_description, expected more than 0: change the URDF, or write it'
                )

    def _compare(
        self, key: str, values: Sequence[float], widest: Array, names: Sequence[str]
    ) -> None:
        """Refuse limits that are wider than those of the URDF, where it has any."""
        if len(values) != len(names):
            return  # Refused with the other sizes.
        sign = -1.0 if key == 'lower' else 1.0
        slack = ROUNDED * np.maximum(1.0, np.abs(widest))
        self.problems += [
            f'robot.action.{key} of {names[index]!r} is {values[index]:g}, beyond '
            f'{widest[index]:g} of robot_description: narrow it, or change the URDF'
            for index in np.flatnonzero(sign * (np.array(values) - widest) > slack).tolist()
        ]


def _widest(
    limits: JointLimits, units: Sequence[str], period_s: float, share: float
) -> dict[str, Array]:
    """Return what a URDF says of `LIMITS`, shape (m,) each; NaN where it says nothing.

    Args:
        limits: of the joints.
        units: of the actions; none are positions.
        period_s: control period, in which an increment is made [s].
        share: of the velocities.
    """
    kinds = np.array(units or (POSITIONS[0],) * len(limits.lower))
    is_position = np.isin(kinds, POSITIONS)
    velocity = share * limits.velocity
    rate = np.where(np.isin(kinds, INCREMENTS), velocity * period_s, velocity)
    moving = np.where(np.isin(kinds, RATES), rate, np.nan)
    largest = np.where(np.isin(kinds, EFFORTS), limits.effort, moving)
    return {
        'lower': np.where(is_position, limits.lower, -largest),
        'upper': np.where(is_position, limits.upper, largest),
        'max_velocity': np.where(is_position, velocity, np.nan),
    }
