# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read the limits of an arm's body in a robot YAML: the boxes of its points, and its own links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.body_spec import SelfCollisionSpec, WorkspaceSpec
from residual_rl_ros.robot.urdf import Urdf
from residual_rl_ros.schema import parameter, read_section

WORKSPACE, SELF_COLLISION = 'robot.action.workspace', 'robot.action.self_collision'


@dataclass(frozen=True, kw_only=True)
class KinematicsKeys:
    """Of `robot.action.workspace` with `boxes`."""

    model: str = parameter(
        '', 'kinematic model: a path, or a shipped one; default: `robot_description`'
    )
    joints: tuple[str, ...] = parameter(
        (), "with `model`: joint of each action, '' for one that moves none"
    )
    frame: str = parameter(
        '', 'link whose frame the coordinates are in; default: the base of the model'
    )


@dataclass(frozen=True, kw_only=True)
class BoxKeys:
    """Of each of `robot.action.workspace.boxes`."""

    point: str = parameter(MISSING, 'site or body (URDF: link) of the model', filled=True)
    lower: tuple[float, ...] = parameter(MISSING, 'smallest coordinates x, y, z [m]')
    upper: tuple[float, ...] = parameter(MISSING, 'largest coordinates x, y, z [m]')


@dataclass(frozen=True, kw_only=True)
class WorkspaceKeys(BoxKeys, KinematicsKeys):
    """Of `robot.action.workspace` with one box."""


@dataclass(frozen=True, kw_only=True)
class SelfCollisionKeys:
    """Of `robot.action.self_collision`."""

    distance: float = parameter(
        MISSING, 'smallest distance between links of `robot_description` [m]', 0.0, 1.0
    )
    ignore: tuple[str, ...] = parameter(
        (), 'pairs of links that may be nearer, each as `one other`'
    )


@dataclass
class BodySection:
    """What `workspace` and `self_collision` of `robot.action` say, and what is wrong with them."""

    problems: list[str]
    """Get what is wrong."""
    _kinematics: KinematicsKeys | None = None
    _boxes: tuple[BoxKeys, ...] = ()
    _collision: SelfCollisionKeys | None = None

    def read(self, action: dict[str, Any], described: bool) -> None:
        """Take the sections out of `robot.action`.

        Args:
            action: `robot.action`.
            described: the robot has a URDF.
        """
        workspace, collision = action.pop('workspace', None), action.pop('self_collision', None)
        if workspace is not None:
            self._read_workspace(workspace)
        if self._kinematics is not None:
            self._check_model(self._kinematics, described)
        if collision is not None:
            self._collision = read_section(
                SelfCollisionKeys, collision, SELF_COLLISION, self.problems
            )
        if collision is not None and not described:
            self.problems.append(f'{SELF_COLLISION} needs robot.robot_description')

    def _read_workspace(self, given: Any) -> None:
        """Read one box, or `boxes` and a map for each."""
        if not isinstance(given, Mapping) or 'boxes' not in given:
            one = read_section(WorkspaceKeys, given, WORKSPACE, self.problems)
            if one is not None:
                self._kinematics, self._boxes = one, (one,)
            return
        values = dict(given)
        boxes = values.pop('boxes')
        if not isinstance(boxes, Mapping) or not boxes:
            self.problems.append(
                f'{WORKSPACE}.boxes is {boxes!r}, expected a map with a map for each'
            )
            return
        self._kinematics = read_section(KinematicsKeys, values, WORKSPACE, self.problems)
        read = (
            read_section(BoxKeys, box, f'{WORKSPACE}.boxes.{name}', self.problems)
            for name, box in boxes.items()
        )
        self._boxes = tuple(box for box in read if box is not None)

    def _check_model(self, given: KinematicsKeys, described: bool) -> None:
        """Refuse a box whose points nothing leads to, or two things."""
        if bool(given.model) is not bool(given.joints):
            self.problems.append(
                f'{WORKSPACE}.model is {given.model!r} with joints {list(given.joints)}, expected '
                'both or, with robot_description, none of them'
            )
        elif given.model and given.frame:
            self.problems.append(
                f'{WORKSPACE}.frame is {given.frame!r}, but coordinates are those of the base of '
                f'model {given.model!r}: remove one of them'
            )
        elif not given.model and not described:
            self.problems.append(
                f'{WORKSPACE}.model is missing: name one, or give robot.robot_description'
            )

    def workspace(self, urdf: Urdf | None) -> WorkspaceSpec | None:
        """Return the boxes, None without.

        Args:
            urdf: of the robot.

        Raises:
            ConfigError: a box is none.
        """
        given = self._kinematics
        if given is None:
            return None
        for box in self._boxes:
            if (len(box.lower), len(box.upper)) != (3, 3):
                raise ConfigError(
                    f'workspace of {box.point!r} is {list(box.lower)} to {list(box.upper)}, '
                    'expected 3 numbers x, y, z [m] each'
                )
        own = None if given.model else urdf
        return WorkspaceSpec(
            given.model,
            tuple(box.point for box in self._boxes),
            given.joints if own is None else own.joints,
            np.array([box.lower for box in self._boxes]),
            np.array([box.upper for box in self._boxes]),
            own,
            given.frame,
        )

    def self_collision(self, urdf: Urdf | None) -> SelfCollisionSpec | None:
        """Return the distance between links, None without.

        Args:
            urdf: of the robot.

        Raises:
            ConfigError: what is to be ignored is no pair.
        """
        given = self._collision
        if given is None or urdf is None:
            return None
        pairs = []
        for text in given.ignore:
            one, _, other = text.partition(' ')
            if not one or not other or ' ' in other or one == other:
                raise ConfigError(
                    f'self_collision.ignore holds {text!r}, expected two links with a space '
                    'between them'
                )
            pairs.append((one, other))
        return SelfCollisionSpec(urdf, given.distance, tuple(pairs))
