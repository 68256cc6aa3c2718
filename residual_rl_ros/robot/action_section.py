# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read `robot.action` of a robot YAML, and what `robot.robot_description` adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.action_spec import (
    DISCRETE,
    EFFORTS,
    INCREMENTS,
    POSITIONS,
    RATES,
    ActionSpec,
    SelfCollisionSpec,
    WorkspaceSpec,
)
from residual_rl_ros.robot.command_section import CommandSection
from residual_rl_ros.robot.keys import (
    FOLLOWING_PERIODS,
    FOLLOWING_S,
    START_PERIODS,
    START_S,
    ActionKeys,
    BoxKeys,
    DiscreteActionKeys,
    KinematicsKeys,
    SelfCollisionKeys,
    UrdfKeys,
    WorkspaceKeys,
)
from residual_rl_ros.robot.topics import JOINT_STATE, Channel
from residual_rl_ros.robot.urdf import TOPIC, JointLimits, Urdf, UrdfModel, read_urdf
from residual_rl_ros.schema import from_mapping

Array = npt.NDArray[np.float64]
Keys = TypeVar('Keys')
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
    _kinematics: KinematicsKeys | None = None
    _boxes: tuple[BoxKeys, ...] = ()
    _collision: SelfCollisionKeys | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the actions."""
        return () if self.keys is None else self.keys.names

    def read(self, mapping: Mapping[str, Any], description: Any) -> None:
        """Read the section.

        Args:
            mapping: `robot.action`.
            description: `robot.robot_description`, None without.
        """
        action = dict(mapping)
        if description is not None:
            self._description = self._read(UrdfKeys, description, 'robot.robot_description')
        if action.get('kind') == DISCRETE:
            self.keys = self._read(DiscreteActionKeys, action, 'robot.action')
            if description is not None:
                self.problems.append(
                    'robot.robot_description is given, but discrete actions move no joints; '
                    'remove it'
                )
            return
        workspace, collision = action.pop('workspace', None), action.pop('self_collision', None)
        if workspace is not None:
            self._read_workspace(workspace)
        if collision is not None:
            self._collision = self._read(
                SelfCollisionKeys, collision, 'robot.action.self_collision'
            )
        self.keys = keys = self._read(ActionKeys, action, 'robot.action')
        if keys is not None:
            self._check(keys, description is not None)

    def _read(self, kind: type[Keys], values: Any, path: str) -> Keys | None:
        """Return the keys of a section, None if they are wrong."""
        try:
            return from_mapping(kind, values, path)
        except ConfigError as error:
            self.problems += [f'{path}.{problem}' for problem in error.problems]
            return None

    def _read_workspace(self, given: Any) -> None:
        """Read one box, or `boxes` and a map for each."""
        path = 'robot.action.workspace'
        if not isinstance(given, Mapping) or 'boxes' not in given:
            one = self._read(WorkspaceKeys, given, path)
            if one is not None:
                self._kinematics, self._boxes = one, (one,)
            return
        values = dict(given)
        boxes = values.pop('boxes')
        if not isinstance(boxes, Mapping) or not boxes:
            self.problems.append(f'{path}.boxes is {boxes!r}, expected a map with a map for each')
            return
        self._kinematics = self._read(KinematicsKeys, values, path)
        read = [self._read(BoxKeys, box, f'{path}.boxes.{name}') for name, box in boxes.items()]
        self._boxes = tuple(box for box in read if box is not None)

    def _check(self, keys: ActionKeys, described: bool) -> None:
        """Refuse what needs a URDF without one."""
        heard = self._description is not None and self._description.urdf == TOPIC
        if heard or not described:
            reason = ', which robot_description gives from a file alone' * heard
            self.problems += [
                f'robot.action.{key} is missing, expected a list of numbers{reason}'
                for key in LIMITS
                if not getattr(keys, key)
            ]
        if not described and self._collision is not None:
            self.problems.append('robot.action.self_collision needs robot.robot_description')
        model = self._kinematics
        if model is not None and bool(model.model) is not bool(model.joints):
            self.problems.append(
                f'robot.action.workspace.model is {model.model!r} with joints '
                f'{list(model.joints)}, expected both or, with robot_description, none of them'
            )
        elif model is not None and model.model and model.frame:
            self.problems.append(
                f'robot.action.workspace.frame is {model.frame!r}, but coordinates are those of '
                f'the base of model {model.model!r}: remove one of them'
            )
        elif model is not None and not model.model and not described:
            self.problems.append(
                'robot.action.workspace.model is missing: name one, or give robot.robot_description'
            )

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
        if self._description is not None:
            self.urdf = urdf = self._open(self._description, keys, channels, heard)
            if urdf.text:
                keys = self._limited(keys, units, command, period_s, UrdfModel(urdf).limits())
        velocity = np.array(keys.max_velocity)
        following = velocity * max(FOLLOWING_S, FOLLOWING_PERIODS * period_s)
        if not set(units) <= set(POSITIONS):
            following *= 2.0  # Of a velocity: a wheel slips, odometry is filtered.
        start = velocity * max(START_S, START_PERIODS * period_s)
        holds = tuple(command.holds)
        return ActionSpec(
            names=keys.names,
            lower=np.array(keys.lower),
            upper=np.array(keys.upper),
            max_step=velocity * period_s,
            measured_by=keys.measured_by,
            workspace=self._workspace(),
            self_collision=self._self_collision(),
            units=units,
            hold=holds if len(set(holds)) > 1 else holds[0],
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
        if self.problems:
            raise ConfigError('robot_description', self.problems)
        filled: dict[str, Any] = {key: tuple(fill[key].tolist()) for key in self.filled}
        return replace(keys, **filled)

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

    def _workspace(self) -> WorkspaceSpec | None:
        given = self._kinematics
        if given is None:
            return None
        for box in self._boxes:
            if (len(box.lower), len(box.upper)) != (3, 3):
                raise ConfigError(
                    f'workspace of {box.point!r} is {list(box.lower)} to {list(box.upper)}, '
                    'expected 3 numbers x, y, z [m] each'
                )
        return WorkspaceSpec(
            given.model,
            tuple(box.point for box in self._boxes),
            given.joints or (self.urdf.joints if self.urdf else ()),
            np.array([box.lower for box in self._boxes]),
            np.array([box.upper for box in self._boxes]),
            None if given.model else self.urdf,
            given.frame,
        )

    def _self_collision(self) -> SelfCollisionSpec | None:
        given = self._collision
        if given is None:
            return None
        assert self.urdf is not None
        pairs = [tuple(pair.split()) for pair in given.ignore]
        for pair in pairs:
            if len(set(pair)) != 2 or len(pair) != 2:
                raise ConfigError(
                    f'self_collision.ignore holds {" ".join(pair)!r}, expected two links with a '
                    'space between them'
                )
        return SelfCollisionSpec(self.urdf, given.distance, tuple((a, b) for a, b in pairs))


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
