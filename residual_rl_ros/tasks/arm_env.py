# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The arm of most tasks, with its measurements."""

from __future__ import annotations

import abc
from typing import ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from residual_rl_ros.tasks.kinematics import (
    JOINT_NAMES,
    REST_JOINTS,
    ArmKinematics,
    Pose,
    tool_pose,
)
from residual_rl_ros.tasks.parameters import TaskParameters
from residual_rl_ros.tasks.scene_env import Observation, SceneEnv

_JOINT_MARGIN_RAD = 0.1
_MAX_VELOCITY_RAD_S = 20.0
_MAX_DISTANCE_M = 2.0


class ArmEnv(SceneEnv):
    """A 7-axis cobot at a table, commanded with joint positions.

    Observations are measured joint positions [rad] and velocities [rad/s], the tool centre point in
    the base frame [m] from the measured joints, and the task's objects relative to the levelled
    tool frame (`Pose`), as a camera at the wrist reports them. Actions are joint position targets
    [rad].
    """

    actuator_names: ClassVar[tuple[str, ...]] = JOINT_NAMES
    action_names: ClassVar[tuple[str, ...]] = tuple(f'{name}.position' for name in JOINT_NAMES)

    def __init__(self, parameters: TaskParameters, render_mode: str | None = None) -> None:
        """Load the scene; see `SceneEnv`."""
        super().__init__(parameters, render_mode)
        self.kinematics = ArmKinematics(self.model)
        self._positions = [self.model.joint(name).qposadr[0] for name in JOINT_NAMES]
        self._velocities = [self.model.joint(name).dofadr[0] for name in JOINT_NAMES]
        self._tool_site = self.model.site('tool').id
        limits = np.array([self.model.actuator(name).ctrlrange for name in JOINT_NAMES])
        self.observation_names = (
            *(f'arm.position.{name}' for name in JOINT_NAMES),
            *(f'arm.velocity.{name}' for name in JOINT_NAMES),
            *(f'tool.position.{axis}' for axis in 'xyz'),
            *self.object_names,
        )
        low, high = limits.T + _JOINT_MARGIN_RAD * np.array([[-1.0], [1.0]])
        bound = np.array(
            [_MAX_VELOCITY_RAD_S] * len(JOINT_NAMES)
            + [_MAX_DISTANCE_M] * 3
            + [_MAX_DISTANCE_M if '.position.' in name else 1.0 for name in self.object_names]
        )
        self._lowest = np.concatenate([low, -bound], dtype=np.float32)
        self._highest = np.concatenate([high, bound], dtype=np.float32)
        self.observation_space = gymnasium.spaces.Box(self._lowest, self._highest, dtype=np.float32)

    def joint_positions(self) -> NDArray[np.float64]:
        """Return the true joint positions, shape (7,), [rad] (privileged)."""
        positions: NDArray[np.float64] = self.data.qpos[self._positions]
        return positions

    def tool_pose(self) -> Pose:
        """Return the true tool pose in the base frame (privileged)."""
        return tool_pose(self.data, self._tool_site)

    def _place(self, draw: dict[str, float]) -> NDArray[np.float64]:
        """Place the task's objects, and the arm near the start of its tool."""
        start = self.kinematics.inverse(self._reset_task(draw), REST_JOINTS)
        start += self.parameters.initial_joint_std_rad * self.np_random.standard_normal(len(start))
        self.data.qpos[self._positions] = start
        return start

    @abc.abstractmethod
    def _reset_task(self, draw: dict[str, float]) -> Pose:
        """Place the task's objects and return where the tool starts, in the base frame.

        Args:
            draw: Drawn values by name of their range.
        """

    @abc.abstractmethod
    def _object_channels(self, tool: Pose) -> list[float]:
        """Return noisy values in the order of `object_names`, relative to the true tool pose."""

    def _measure(self, pose: Pose, tool: Pose) -> Pose:
        """Return a noisy measurement of an object's pose relative to the tool."""
        noise = self.parameters.noise
        white = self.np_random.standard_normal(4)
        exact = pose.relative_to(tool)
        return Pose(
            exact.position + noise.object_position_std_m * white[:3],
            exact.yaw + noise.object_yaw_std_rad * float(white[3]),
        )

    def _observe(self) -> Observation:
        """Measure everything once; sensors saturate at the bounds of the observation space."""
        noise = self.parameters.noise
        white = self.np_random.standard_normal((2, len(JOINT_NAMES)))
        joints = self.joint_positions() + noise.joint_position_std_rad * white[0]
        velocity = self.data.qvel[self._velocities] + noise.joint_velocity_std_rad_s * white[1]
        tool = self.kinematics.forward(joints).position
        observation = np.concatenate(
            [joints, velocity, tool, self._object_channels(self.tool_pose())], dtype=np.float32
        )
        return np.clip(observation, self._lowest, self._highest, out=observation)
