# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keep a point of an arm inside a box, whatever joint positions are commanded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.resources import find_file
from residual_rl_ros.spec import SpecificationError, WorkspaceSpec

Array = npt.NDArray[np.float64]
BISECTIONS = 10
"""The last command that is still inside is found to a thousandth of the step."""


class Workspace:
    """The end-effector limits of an arm that is commanded in joint positions.

    Args:
        spec: kinematic model, point and box.

    Raises:
        ResourceError: no shipped model has the name.
        SpecificationError: the model cannot be read, or has no such joint or point.
    """

    def __init__(self, spec: WorkspaceSpec) -> None:
        import mujoco  # Here, for a robot without workspace limits needs no MuJoCo.

        self._spec = spec
        self._forward = mujoco.mj_kinematics
        given = Path(spec.model)
        path = given if given.suffix else find_file('arm model', ('sim',), spec.model, '.xml')
        self._model = _kinematic_model(path)
        self._data = mujoco.MjData(self._model)
        try:
            joints = [self._model.joint(name) for name in spec.joints]
            self._addresses = np.array([joint.qposadr[0] for joint in joints])
            sites = [self._model.site(index).name for index in range(self._model.nsite)]
            if spec.point in sites:
                self._position = self._data.site(spec.point).xpos
            else:
                self._position = self._data.body(spec.point).xpos
        except KeyError as error:
            raise SpecificationError(f'arm model {spec.model!r}: {error.args[0]}') from error

    def position(self, joints: Array) -> Array:
        """Return where the point is, shape (3,), base frame of the model [m].

        Args:
            joints: joint positions in the order of the actions, shape (m,) [rad or m].
        """
        self._data.qpos[self._addresses] = joints
        self._forward(self._model, self._data)
        position: Array = self._position.copy()
        return position

    def allows(self, joints: Array, excess: Array) -> bool:
        """Return whether the point is inside the box or, in no coordinate, further out than that.

        Args:
            joints: joint positions, shape (m,).
            excess: how far outside is allowed, shape (3,) [m]: from outside, where a robot can be
                put by hand, the way may only lead back.
        """
        return bool((self.excess(joints) <= excess).all())

    def last_allowed(self, start: Array, end: Array, excess: Array) -> Array:
        """Return the last joint positions on the way from an allowed start to an end that is not.

        Args:
            start: allowed joint positions, shape (m,).
            end: joint positions that are not, shape (m,).
            excess: how far outside is allowed, shape (3,) [m].
        """
        inside, outside = 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = 0.5 * (inside + outside)
            if self.allows(start + middle * (end - start), excess):
                inside = middle
            else:
                outside = middle
        return start + inside * (end - start)

    def contains(self, joints: Array) -> bool:
        """Return whether the point is inside the box."""
        return not self.excess(joints).any()

    def excess(self, joints: Array) -> Array:
        """Return how far each coordinate is outside, shape (3,) [m]."""
        position = self.position(joints)
        beyond: Array = np.maximum(self._spec.lower - position, position - self._spec.upper)
        return np.maximum(beyond, np.zeros(3))


def _kinematic_model(path: Path) -> Any:
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
        raise SpecificationError(f'cannot read arm model {str(path)!r}: {reason}') from error
