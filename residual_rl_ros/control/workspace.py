# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The boxes in which points of an arm stay that is commanded in joint positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Array
from residual_rl_ros.resources import find_file
from residual_rl_ros.robot.body_section import WORKSPACE
from residual_rl_ros.robot.body_spec import WorkspaceSpec
from residual_rl_ros.robot.urdf import UrdfModel


class Workspace:
    """The boxes of named points.

    Args:
        spec: kinematic model, points and boxes.

    Raises:
        ResourceError: no shipped model has the name.
        ConfigError: the model cannot be read, or has no such joint or point.
    """

    def __init__(self, spec: WorkspaceSpec) -> None:
        self.spec = spec
        """Boxes, points and joints."""
        self.positions: Callable[[Array], Array]
        """Returns where the points are, shape (points, 3), base frame of the model [m], at joint
        positions in the order of the actions, shape (m,) [rad or m]."""
        self.positions = _urdf_points(spec) if spec.urdf else _mujoco_points(spec)

    def contains(self, joints: Array) -> bool:
        """Return whether each point is inside its box."""
        return not self.excess(joints).any()

    def problem(self, joints: Array) -> str:
        """Return which point positions bring out of its box, and where; empty if none."""
        outside = self.excess(joints).reshape(-1, 3).any(1)
        if not outside.any():
            return ''
        index = int(np.argmax(outside))
        lower, upper = (each[index].tolist() for each in (self.spec.lower, self.spec.upper))
        return (
            f'bring {self.spec.points[index]} to '
            f'{np.round(self.positions(joints)[index], 3).tolist()}, outside of '
            f'robot.action.workspace {lower} to {upper}'
        )

    def excess(self, joints: Array) -> Array:
        """Return how far each coordinate of each point is outside, shape (3 points,) [m]."""
        positions = self.positions(joints)
        beyond: Array = np.maximum(self.spec.lower - positions, positions - self.spec.upper)
        return np.maximum(beyond, 0.0).ravel()


def _urdf_points(spec: WorkspaceSpec) -> Callable[[Array], Array]:
    """Return the kinematics of links of the robot's URDF."""
    assert spec.urdf is not None
    chain = UrdfModel(spec.urdf)
    pin, model, data = chain.library, chain.model, chain.data
    frames = [chain.frame(point, f'{WORKSPACE}: point') for point in spec.points]
    origin = chain.frame(spec.frame, f'{WORKSPACE}.frame') if spec.frame else None

    def positions(joints: Array) -> Array:
        pin.forwardKinematics(model, data, chain.configuration(joints))
        found = np.array([pin.updateFramePlacement(model, data, f).translation for f in frames])
        if origin is None:
            return found
        base = pin.updateFramePlacement(model, data, origin)
        rotated: Array = (found - base.translation) @ base.rotation
        return rotated

    return positions


def _mujoco_points(spec: WorkspaceSpec) -> Callable[[Array], Array]:
    """Return the kinematics of sites and bodies of an MJCF or URDF file."""
    import mujoco  # Here, for a robot without workspace limits needs no MuJoCo.

    given = Path(spec.model)
    path = given if given.suffix else find_file('arm model', ('sim',), spec.model, '.xml')
    model = _mujoco_model(path)
    data = mujoco.MjData(model)
    try:
        joints = [model.joint(name) for name in spec.joints if name]
        for joint in joints:
            if joint.type[0] not in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
                raise ConfigError(
                    f'arm model {spec.model!r}: {joint.name!r} is no joint of one position; '
                    'name hinges and slides in robot.action.workspace.joints'
                )
        sites = {model.site(index).name for index in range(model.nsite)}
        places = [
            data.site(point).xpos if point in sites else data.body(point).xpos
            for point in spec.points
        ]
    except KeyError as error:
        raise ConfigError(f'arm model {spec.model!r}: {error.args[0]}') from error
    addresses = np.array([joint.qposadr[0] for joint in joints])
    moved = np.array([bool(name) for name in spec.joints])

    def positions(joints: Array) -> Array:
        data.qpos[addresses] = joints[moved]
        mujoco.mj_kinematics(model, data)
        return np.array(places)

    return positions


def _mujoco_model(path: Path) -> Any:
    """Load joints and frames of an MJCF or URDF file; its meshes need not be there."""
    import mujoco

    try:
        spec = mujoco.MjSpec.from_file(str(path))
        for geometry in spec.geoms:
            spec.delete(geometry)
        for mesh in spec.meshes:
            spec.delete(mesh)
        spec.compiler.fusestatic = False  # Links without a joint are points too.
        spec.compiler.boundmass = spec.compiler.boundinertia = 1e-3
        return spec.compile()
    except (ValueError, OSError) as error:
        reason = ' '.join(str(error).split())
        raise ConfigError(f'cannot read arm model {str(path)!r}: {reason}') from error
