# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pick and place: put a cube on a disc with a two-finger gripper; only cameras see both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.tasks.parameters import Range, TaskParameters
from residual_rl_ros.tasks.scene_env import Observation, SceneEnv

AXES = ('x', 'y', 'z', 'gripper')
CUBE_HALF_WIDTH_M = 0.018
OPEN_M = 0.065
"""Distance between the fingers at the start, [m]."""
RELEASED_M = 0.045
"""Distance between the fingers from which they hold nothing, [m]."""
_LYING_M = 0.003
"""How far above the table a cube may be that lies on it, [m]."""
_MOST_M, _MOST_M_S = 1.0, 5.0


@dataclass(frozen=True)
class PickPlaceParameters(TaskParameters):
    """Parameters of `PickPlace`."""

    randomisation: tuple[Range, ...] = (
        Range('cube.x', -0.05, 0.05),
        Range('cube.y', -0.11, -0.05),
        Range('cube.yaw', -math.radians(15.0), math.radians(15.0)),
        Range('goal.x', -0.05, 0.05),
        Range('goal.y', 0.05, 0.11),
        Range('tool.x', -0.02, 0.02),
        Range('tool.y', -0.02, 0.02),
        Range('tool.z', 0.11, 0.13),
    )
    goal_tolerance_m: float = 0.006
    """How close to the centre of the disc that of the released cube has to be, [m]."""

    def __post_init__(self) -> None:
        """Refuse a tolerance nothing can meet."""
        super().__post_init__()
        if not self.goal_tolerance_m > 0.0:
            raise ConfigError(
                f'goal_tolerance_m is {self.goal_tolerance_m}, expected > 0; '
                'set PickPlaceParameters.goal_tolerance_m'
            )


class PickPlace(SceneEnv):
    """Put the cube on the disc; solved when it lies there, released.

    The robot is a gantry. Observations are measured coordinates of the tool centre point and the
    opening of the gripper [m], and their velocities [m/s]; of cube and disc they tell nothing.
    Actions are targets of the same [m].
    """

    task_name = 'pick_place'
    actuator_names: ClassVar[tuple[str, ...]] = AXES
    action_names: ClassVar[tuple[str, ...]] = tuple(f'{name}.position' for name in AXES)
    object_names: ClassVar[tuple[str, ...]] = ()
    cameras: ClassVar[tuple[str, ...]] = ('front', 'wrist')
    parameters: PickPlaceParameters

    def __init__(
        self, parameters: PickPlaceParameters | None = None, render_mode: str | None = None
    ) -> None:
        """Load the scene."""
        super().__init__(parameters or PickPlaceParameters(), render_mode)
        self._axes = [self.model.joint(name).qposadr[0] for name in AXES[:3]]
        self._axis_dofs = [self.model.joint(name).dofadr[0] for name in AXES[:3]]
        fingers = [self.model.joint(f'finger_{side}') for side in ('left', 'right')]
        self._fingers = [finger.qposadr[0] for finger in fingers]
        self._finger_dofs = [finger.dofadr[0] for finger in fingers]
        self._cube = self.model.joint('cube').qposadr[0]
        self.observation_names = (
            *(f'gantry.position.{name}' for name in AXES),
            *(f'gantry.velocity.{name}' for name in AXES),
        )
        bound = np.repeat([_MOST_M, _MOST_M_S], len(AXES)).astype(np.float32)
        self.observation_space = gymnasium.spaces.Box(-bound, bound, dtype=np.float32)

    def positions(self) -> NDArray[np.float64]:
        """Return the true tool centre point and opening, shape (4,), [m] (privileged)."""
        return np.array([*self.data.qpos[self._axes], self.data.qpos[self._fingers].sum()])

    def cube_position(self) -> NDArray[np.float64]:
        """Return the true centre of the cube, shape (3,), [m] (privileged)."""
        position: NDArray[np.float64] = self.data.qpos[self._cube : self._cube + 3].copy()
        return position

    def goal_position(self) -> NDArray[np.float64]:
        """Return the centre of the disc, shape (3,), [m] (privileged)."""
        position: NDArray[np.float64] = self.data.mocap_pos[0].copy()
        return position

    def _edit_scene(self, spec: mujoco.MjSpec) -> None:
        """Leave it as it is: a cube on the disc covers most of it, whatever is tolerated."""

    def _place(self, draw: dict[str, float]) -> NDArray[np.float64]:
        """Place cube, disc and the open gripper above them."""
        half_yaw = draw['cube.yaw'] / 2.0
        self.data.qpos[self._cube : self._cube + 7] = (
            *(draw['cube.x'], draw['cube.y'], CUBE_HALF_WIDTH_M),
            *(math.cos(half_yaw), 0.0, 0.0, math.sin(half_yaw)),
        )
        self.data.mocap_pos[0, :2] = draw['goal.x'], draw['goal.y']
        start = np.array([draw['tool.x'], draw['tool.y'], draw['tool.z'], OPEN_M])
        self.data.qpos[self._axes] = start[:3]
        self.data.qpos[self._fingers] = OPEN_M / 2.0
        return start

    def _observe(self) -> Observation:
        """Measure everything once."""
        white = self.np_random.standard_normal((2, len(AXES)))
        noise = self.parameters.noise
        velocity = [
            *self.data.qvel[self._axis_dofs],
            self.data.qvel[self._finger_dofs].sum(),
        ]
        observation = np.concatenate(
            [
                self.positions() + noise.joint_position_std_rad * white[0],
                velocity + noise.joint_velocity_std_rad_s * white[1],
            ],
            dtype=np.float32,
        )
        space = self.observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        return np.clip(observation, space.low, space.high, out=observation)

    def _succeeded(self) -> bool:
        """Return whether the cube lies on the disc, released."""
        cube = self.cube_position()
        near = math.dist(cube[:2], self.goal_position()[:2]) <= self.parameters.goal_tolerance_m
        return bool(
            near and cube[2] <= CUBE_HALF_WIDTH_M + _LYING_M and self.positions()[3] >= RELEASED_M
        )
