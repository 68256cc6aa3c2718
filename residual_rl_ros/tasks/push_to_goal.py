# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pushing: bring a block to a goal on the table with a round pusher."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.tasks.arm_env import ArmEnv
from residual_rl_ros.tasks.kinematics import Pose
from residual_rl_ros.tasks.parameters import Range, TaskParameters


@dataclass(frozen=True)
class PushToGoalParameters(TaskParameters):
    """Parameters of `PushToGoal`."""

    randomisation: tuple[Range, ...] = (
        Range('block.x', 0.50, 0.54),
        Range('block.y', -0.03, 0.03),
        Range('block.yaw', -math.radians(20.0), math.radians(20.0)),
        Range('goal.distance', 0.10, 0.16),
        Range('goal.direction', -math.radians(30.0), math.radians(30.0)),
        Range('tool.x', 0.43, 0.44),
        Range('tool.y', -0.02, 0.02),
        Range('tool.z', 0.015, 0.025),
    )
    goal_tolerance_m: float = 0.02
    """How close to the goal the centre of the block has to be, [m]."""

    def __post_init__(self) -> None:
        """Refuse a tolerance nothing can meet."""
        super().__post_init__()
        if not self.goal_tolerance_m > 0.0:
            raise ConfigError(
                f'goal_tolerance_m is {self.goal_tolerance_m}, expected > 0; '
                'set PushToGoalParameters.goal_tolerance_m'
            )


class PushToGoal(ArmEnv):
    """Push the block; solved when its centre is close enough to the goal."""

    task_name = 'push_to_goal'
    object_names = (
        'block.position.x',
        'block.position.y',
        'block.orientation.z',
        'block.orientation.w',
        'goal.position.x',
        'goal.position.y',
    )
    cameras = ('camera',)
    parameters: PushToGoalParameters

    def __init__(
        self, parameters: PushToGoalParameters | None = None, render_mode: str | None = None
    ) -> None:
        """Load the scene and draw the goal as large as its tolerance."""
        super().__init__(parameters or PushToGoalParameters(), render_mode)
        self._block = self.model.joint('block').qposadr[0]

    def block_pose(self) -> Pose:
        """Return the true pose of the block's base in the base frame (privileged)."""
        x, y, z, qw, qx, qy, qz = self.data.qpos[self._block : self._block + 7]
        yaw = math.atan2(2.0 * (qw * qz + qx * qy), 1.0 - 2.0 * (qy * qy + qz * qz))
        return Pose(np.array([x, y, z]), yaw)

    def goal_position(self) -> NDArray[np.float64]:
        """Return the goal in the base frame, shape (3,), [m] (privileged)."""
        position: NDArray[np.float64] = self.data.mocap_pos[0].copy()
        return position

    def goal_distance(self) -> float:
        """Return the distance from the centre of the block to the goal, [m] (privileged)."""
        return math.dist(self.block_pose().position[:2], self.goal_position()[:2])

    def _edit_scene(self, spec: mujoco.MjSpec) -> None:
        """Draw the goal as large as its tolerance."""
        disc = spec.geom('goal')
        disc.size = [self.parameters.goal_tolerance_m, disc.size[1], 0.0]

    def _reset_task(self, draw: dict[str, float]) -> Pose:
        """Place the block, the goal ahead of it, and the pusher behind it."""
        x, y = draw['block.x'], draw['block.y']
        half_yaw = draw['block.yaw'] / 2.0
        self.data.qpos[self._block : self._block + 7] = (
            *(x, y, 0.0),
            *(math.cos(half_yaw), 0.0, 0.0, math.sin(half_yaw)),
        )
        distance, direction = draw['goal.distance'], draw['goal.direction']
        self.data.mocap_pos[0, :2] = (
            x + distance * math.cos(direction),
            y + distance * math.sin(direction),
        )
        return Pose(np.array([draw['tool.x'], draw['tool.y'], draw['tool.z']]), 0.0)

    def _object_channels(self, tool: Pose) -> list[float]:
        """Measure the block, then the goal."""
        block = self._measure(self.block_pose(), tool)
        goal = self._measure(Pose(self.goal_position(), 0.0), tool)
        return [
            *block.position[:2],
            math.sin(block.yaw / 2.0),
            math.cos(block.yaw / 2.0),
            *goal.position[:2],
        ]

    def _succeeded(self) -> bool:
        """Return whether the block is close enough to the goal."""
        return self.goal_distance() <= self.parameters.goal_tolerance_m
