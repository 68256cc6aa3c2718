# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The last filter before the robot: finite, position limits, slew limits, workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.control.rotation import OrientationLimit
from residual_rl_ros.errors import ConfigError, UnsafeCommandError
from residual_rl_ros.numerics import all_finite, clamp, is_one_hot
from residual_rl_ros.resources import find_file
from residual_rl_ros.robot.action_spec import ActionSpec, WorkspaceSpec

Array = npt.NDArray[np.float64]
BISECTIONS = 10
"""The last command that is still inside is found to a thousandth of the step."""


class Workspace:
    """The end-effector limits of an arm that is commanded in joint positions.

    Args:
        spec: kinematic model, point and box.

    Raises:
        ResourceError: no shipped model has the name.
        ConfigError: the model cannot be read, or has no such joint or point.
    """

    def __init__(self, spec: WorkspaceSpec) -> None:
        import mujoco  # Here, for a robot without workspace limits needs no MuJoCo.

        self.spec = spec
        """Box, point and joints."""
        self._forward = mujoco.mj_kinematics
        given = Path(spec.model)
        path = given if given.suffix else find_file('arm model', ('sim',), spec.model, '.xml')
        self._model = _kinematic_model(path)
        self._data = mujoco.MjData(self._model)
        try:
            joints = [self._model.joint(name) for name in spec.joints if name]
            for joint in joints:
                if joint.type[0] not in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
                    raise ConfigError(
                        f'arm model {spec.model!r}: {joint.name!r} is no joint of one position; '
                        'name hinges and slides in robot.action.workspace.joints'
                    )
            self._addresses = np.array([joint.qposadr[0] for joint in joints])
            self._moved = np.array([bool(name) for name in spec.joints])
            sites = [self._model.site(index).name for index in range(self._model.nsite)]
            if spec.point in sites:
                self._position = self._data.site(spec.point).xpos
            else:
                self._position = self._data.body(spec.point).xpos
        except KeyError as error:
            raise ConfigError(f'arm model {spec.model!r}: {error.args[0]}') from error

    def position(self, joints: Array) -> Array:
        """Return where the point is, shape (3,), base frame of the model [m].

        Args:
            joints: positions in the order of the actions, shape (m,) [rad or m].
        """
        self._data.qpos[self._addresses] = joints[self._moved]
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
        beyond: Array = np.maximum(self.spec.lower - position, position - self.spec.upper)
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
        raise ConfigError(f'cannot read arm model {str(path)!r}: {reason}') from error


class SafetyFilter:
    """Clamps commands to the limits of an action: slew, workspace and, outermost, position.

    A command inside all limits passes unchanged, bit for bit. Outside of the position limits there
    is no command, wherever the robot stands: one that stands outside is led to its limit. Of an
    orientation the angle is limited by which it turns (`control/rotation.py`). Of discrete actions
    exactly one is chosen: nothing is between them that could be clamped to.

    Args:
        action: names and limits of the command.

    Raises:
        ConfigError: the kinematic model of the workspace cannot be used.
    """

    def __init__(self, action: ActionSpec) -> None:
        self.action = action
        self._shape = (action.size,)
        self.workspace = Workspace(action.workspace) if action.workspace else None
        """Limits of the end effector, None without."""
        self.orientations = [OrientationLimit(action, each) for each in action.orientations]
        """Limits of the orientations that are commanded."""
        self.clamped = 0
        """Commands outside of the position limits since the start."""
        self.slew_limited = 0
        """Commands changed by the slew limit since the start."""
        self.workspace_limited = 0
        """Commands cut short at the border of the workspace since the start."""

    def apply(
        self,
        command: npt.ArrayLike,
        previous: Array | None,
        base: Array | None = None,
        passed: bool = False,
    ) -> Array:
        """Return the safe command, shape (m,).

        At the border of the workspace the residual gives way, and the base only if it must: the
        result is never further than `command - base` from the base command that position and slew
        limits leave or, where that one leaves the workspace too, from what is left of it.

        Args:
            command: wanted command, shape (m,).
            previous: where the step begins, the last command or the measured positions; None skips
                slew limit and workspace.
            base: the base action in it; None limits the command as a whole.
            passed: `previous` has passed this filter, so that it is inside of the limits.

        Raises:
            UnsafeCommandError: a command is not finite or of the wrong size, or chooses not exactly
                one of discrete actions; nothing may be sent.
        """
        wanted = np.asarray(command, dtype=np.float64)
        self._check('command', wanted)
        if self.action.is_discrete:
            if not is_one_hot(wanted):
                raise UnsafeCommandError(f'command {illegal_choice(self.action, wanted)}; holding')
            return wanted
        lower, upper = self.action.lower, self.action.upper
        wanted = self._in_other_numbers(wanted)
        safe = clamp(wanted, lower, upper)
        self.clamped += _differ(safe, wanted)
        if previous is None:
            return safe
        if not passed:
            self._check('previous command', previous)
        reach = self.action.max_step
        low, high = previous - reach, previous + reach
        limited = clamp(safe, low, high)
        for orientation in self.orientations:
            orientation.put(limited, orientation.step(safe, previous))
        if not passed:
            limited = clamp(limited, lower, upper)
        self.slew_limited += _differ(limited, safe)
        if self.workspace is None:
            return limited
        # Where the robot stands outside of its position limits, the way begins at the limit.
        start = clamp(previous, lower, upper)
        allowed = np.maximum(self.workspace.excess(previous), self.workspace.excess(start))
        if self.workspace.allows(limited, allowed):
            return limited
        self.workspace_limited += 1
        if base is not None:
            base = clamp(clamp(base, low, high), lower, upper)
            if self.workspace.allows(base, allowed):
                start = base
            else:
                limited = base
        return self.workspace.last_allowed(start, limited, allowed)

    def excess(self, values: Array) -> Array:
        """Return how far each value is outside of the position limits, shape (m,).

        Args:
            values: measured where commands go, shape (m,).
        """
        values = self._in_other_numbers(values)
        return np.maximum(self.action.lower - values, values - self.action.upper)

    def difference(self, one: Array, other: Array) -> Array:
        """Return how far one command, or measurement, is from another, shape (m,)."""
        difference = one - other
        for orientation in self.orientations:
            orientation.put(difference, orientation.difference(one, other))
        return difference

    def _in_other_numbers(self, command: Array) -> Array:
        """Return a command whose orientations are inside of the limits, if any numbers are."""
        if self.orientations:
            command = command.copy()
            for orientation in self.orientations:
                orientation.bring_inside(command)
        return command

    def _check(self, name: str, command: Array) -> None:
        """Refuse a command of the wrong size or with a value that is not finite."""
        if command.shape != self._shape:
            raise UnsafeCommandError(
                f'{name} has shape {command.shape}, expected {self._shape}; holding'
            )
        if not all_finite(command):
            index = int(np.flatnonzero(~np.isfinite(command))[0])
            raise UnsafeCommandError(
                f'{name} for {self.action.names[index]!r} is {command[index]}; holding'
            )


def illegal_choice(action: ActionSpec, command: Array) -> str:
    """Return what is wrong with a command of discrete actions that is not one-hot.

    Args:
        action: the actions.
        command: shape (m,).
    """
    return (
        f'is {command[:8].tolist()}, expected 1 for one of {", ".join(action.names)}, and 0 for '
        'the others'
    )


def _differ(one: Array, other: Array) -> bool:
    """Return whether two commands differ in a bit; `!=` and `any` take ten times as long."""
    return one.tobytes() != other.tobytes()
