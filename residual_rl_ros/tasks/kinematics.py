# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Poses, and the inverse kinematics of the arm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pose:
    """A gravity-aligned frame: z points up, x points along `yaw` about the vertical.

    The tool's frame in this sense is the tool centre point with the heading of the tool's x axis.
    The small tilt of the wrist is left out, as by a camera that levels with its accelerometer.
    """

    position: NDArray[np.float64]
    """Origin, shape (3,), [m], in the frame the pose is expressed in."""
    yaw: float
    """Rotation about the vertical, [rad]."""

    def relative_to(self, frame: Pose) -> Pose:
        """Express this pose in `frame`, both given in the same parent frame.

        Args:
            frame: The new frame of reference.

        Returns:
            The same pose seen from `frame`, its yaw wrapped to [-pi, pi].
        """
        cosine, sine = math.cos(frame.yaw), math.sin(frame.yaw)
        x, y, z = self.position - frame.position
        position = np.array([cosine * x + sine * y, cosine * y - sine * x, z])
        return Pose(position, wrap_angle(self.yaw - frame.yaw))

    def locate(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """Express a point given in this frame, shape (3,), [m], in the parent frame."""
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        x, y, z = point
        turned: NDArray[np.float64] = np.array([cosine * x - sine * y, sine * x + cosine * y, z])
        return turned + self.position


def wrap_angle(angle: float) -> float:
    """Wrap an angle [rad] to [-pi, pi]."""
    return math.remainder(angle, math.tau)


JOINT_NAMES = tuple(f'joint{number}' for number in range(1, 8))
REST_JOINTS = np.array([0.0, 0.6, 0.0, -1.6, 0.0, math.pi - 2.2, 0.0])
"""Posture the redundant elbow is drawn to, [rad]: elbow up, tool straight down, yaw zero."""

_DAMPING = 1e-2
_POSTURE_GAIN = 0.1
_MAX_ITERATIONS = 20
_POSITION_TOLERANCE_M = 1e-5
_ROTATION_TOLERANCE_RAD = 1e-4


class ArmKinematics:
    """Kinematics of the seven arm joints, with scratch data of its own."""

    def __init__(self, model: mujoco.MjModel) -> None:
        """Find the arm in a scene.

        Args:
            model: A scene with the joints `JOINT_NAMES` and the site `tool`.
        """
        self._model = model
        self._data = mujoco.MjData(model)
        joints = [model.joint(name) for name in JOINT_NAMES]
        self._positions = np.array([joint.qposadr[0] for joint in joints])
        self._dofs = np.array([joint.dofadr[0] for joint in joints])
        self._lower, self._upper = np.array([joint.range for joint in joints]).T
        self._site = model.site('tool').id
        self._jacobian = np.zeros((6, model.nv))

    def forward(self, joints: NDArray[np.float64]) -> Pose:
        """Compute the tool pose in the base frame.

        Args:
            joints: Joint positions, shape (7,), [rad].

        Returns:
            The tool centre point and its heading.
        """
        self._data.qpos[self._positions] = joints
        mujoco.mj_kinematics(self._model, self._data)
        return tool_pose(self._data, self._site)

    def inverse(self, target: Pose, start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Find joint positions that put the tool at `target`, pointing straight down.

        Damped least squares (Wampler 1986); the null space draws the elbow to `REST_JOINTS`.

        Args:
            target: Tool pose in the base frame.
            start: Joint positions to start from, shape (7,), [rad].

        Returns:
            Joint positions within the joint limits, shape (7,), [rad]; the closest ones found when
            the target is out of reach.
        """
        joints = np.clip(start, self._lower, self._upper)
        rotation = _pointing_down(target.yaw)
        for _ in range(_MAX_ITERATIONS):
            error = self._error(joints, target.position, rotation)
            if (
                np.abs(error[:3]).max() < _POSITION_TOLERANCE_M
                and np.abs(error[3:]).max() < _ROTATION_TOLERANCE_RAD
            ):
                break
            joints = np.clip(joints + self._step(joints, error), self._lower, self._upper)
        return joints

    def _error(
        self,
        joints: NDArray[np.float64],
        position: NDArray[np.float64],
        rotation: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Compute the twist, shape (6,), [m, rad], from the tool at `joints` to the target."""
        self._data.qpos[self._positions] = joints
        mujoco.mj_kinematics(self._model, self._data)
        error, quaternion = np.empty(6), np.empty(4)
        current = self._data.site_xmat[self._site].reshape(3, 3)
        mujoco.mju_mat2Quat(quaternion, (rotation @ current.T).ravel())
        mujoco.mju_quat2Vel(error[3:], quaternion, 1.0)
        error[:3] = position - self._data.site_xpos[self._site]
        return error

    def _step(self, joints: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute one joint step, shape (7,), [rad], at the posture last passed to `_error`."""
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(
            self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site
        )
        jacobian = self._jacobian[:, self._dofs]
        posture = _POSTURE_GAIN * (REST_JOINTS - joints)
        # One solve does both: dq = posture + J# (e - J posture), J# the damped pseudo-inverse.
        damped = jacobian @ jacobian.T + _DAMPING**2 * np.eye(6)
        step: NDArray[np.float64] = posture + jacobian.T @ np.linalg.solve(
            damped, error - jacobian @ posture
        )
        return step


def tool_pose(data: mujoco.MjData, site: int) -> Pose:
    """Read the levelled tool pose, in the base frame, from up-to-date kinematics."""
    rotation = data.site_xmat[site]
    return Pose(data.site_xpos[site].copy(), math.atan2(rotation[3], rotation[0]))


def _pointing_down(yaw: float) -> NDArray[np.float64]:
    """Build the rotation, shape (3, 3), of a tool with z pointing down and x along `yaw`."""
    cosine, sine = math.cos(yaw), math.sin(yaw)
    return np.array([[cosine, sine, 0.0], [sine, -cosine, 0.0], [0.0, 0.0, -1.0]])
