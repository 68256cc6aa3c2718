# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Peg insertion: put a square peg into a square hole with about a millimetre to spare."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.tasks.arm_env import ArmEnv
from residual_rl_ros.tasks.kinematics import Pose
from residual_rl_ros.tasks.parameters import Range, TaskParameters

HOLE_HALF_WIDTH_M = 0.01125
"""Half the distance between facing walls in `peg_insert.xml`, [m]."""


@dataclass(frozen=True)
class PegInsertParameters(TaskParameters):
    """Parameters of `PegInsert`."""

    randomisation: tuple[Range, ...] = (
        Range('hole.x', 0.51, 0.59),
        Range('hole.y', -0.04, 0.04),
        Range('hole.yaw', -math.radians(15.0), math.radians(15.0)),
        Range('tool.x', 0.53, 0.57),
        Range('tool.y', -0.02, 0.02),
        Range('tool.z', 0.09, 0.11),
    )
    clearance_m: float = 0.0008
    """Gap between peg and wall on each side when the peg is centred, [m]."""
    success_depth_m: float = 0.015
    """How far below the rim the tip of the peg has to be, [m]."""

    def __post_init__(self) -> None:
        """Refuse a peg that cannot exist or a depth the hole does not have."""
        super().__post_init__()
        if not 0.0 < self.clearance_m < HOLE_HALF_WIDTH_M:
            raise ConfigError(
                f'clearance_m is {self.clearance_m}, expected within (0, {HOLE_HALF_WIDTH_M}); '
                'set PegInsertParameters.clearance_m'
            )
        if not 0.0 < self.success_depth_m < 0.04:
            raise ConfigError(
                f'success_depth_m is {self.success_depth_m}, expected within (0, 0.04); '
                'set PegInsertParameters.success_depth_m'
            )


class PegInsert(ArmEnv):
    """Insert the peg welded to the flange; solved when its tip is deep enough inside the hole."""

    task_name = 'peg_insert'
    object_names = (
        'hole.position.x',
        'hole.position.y',
        'hole.position.z',
        'hole.orientation.z',
        'hole.orientation.w',
    )
    parameters: PegInsertParameters

    def __init__(
        self, parameters: PegInsertParameters | None = None, render_mode: str | None = None
    ) -> None:
        """Load the scene and cut the peg to size."""
        super().__init__(parameters or PegInsertParameters(), render_mode)

    def hole_pose(self) -> Pose:
        """Return the true centre of the opening in the base frame (privileged)."""
        return Pose(
            self.data.mocap_pos[0].copy(),
            2.0 * math.atan2(self.data.mocap_quat[0, 3], self.data.mocap_quat[0, 0]),
        )

    def insertion_depth(self) -> float:
        """Return how far the tip is below the rim, [m], negative above it or beside the hole."""
        tip = self.tool_pose().relative_to(self.hole_pose()).position
        inside = np.abs(tip[:2]).max() <= HOLE_HALF_WIDTH_M
        return float(-tip[2]) if inside else -abs(float(tip[2]))

    def _edit_scene(self, spec: mujoco.MjSpec) -> None:
        """Cut the peg to the clearance."""
        half_width = HOLE_HALF_WIDTH_M - self.parameters.clearance_m
        peg = spec.geom('tool')
        peg.size = [half_width, half_width, peg.size[2]]

    def _reset_task(self, draw: dict[str, float]) -> Pose:
        """Place the hole on the table and the peg above it."""
        self.data.mocap_pos[0, :2] = draw['hole.x'], draw['hole.y']
        half_yaw = draw['hole.yaw'] / 2.0
        self.data.mocap_quat[0] = math.cos(half_yaw), 0.0, 0.0, math.sin(half_yaw)
        return Pose(np.array([draw['tool.x'], draw['tool.y'], draw['tool.z']]), 0.0)

    def _object_channels(self, tool: Pose) -> list[float]:
        """Measure the hole."""
        hole = self._measure(self.hole_pose(), tool)
        return [*hole.position, math.sin(hole.yaw / 2.0), math.cos(hole.yaw / 2.0)]

    def _succeeded(self) -> bool:
        """Return whether the tip is deep enough inside the hole."""
        return self.insertion_depth() >= self.parameters.success_depth_m
