# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tasks whose objects are seen by a camera instead of being measured."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from residual_rl_ros.tasks.arm_env import ArmEnv, make_renderer
from residual_rl_ros.tasks.registry import make_task

CAMERA = 'camera'
"""Camera of the scene, and key of its images in the observation."""
STATE = 'state'
"""Key of everything else in the observation."""
IMAGE_SIZE = (64, 64)
"""Height and width, [px]."""
CAMERA_TASKS = {'push_to_goal_camera': 'push_to_goal'}
"""Tasks with a camera, and the task that each is otherwise."""


class CameraObservation(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Replaces the measured objects by an image.

    Observations are `{'state': float32 (n,), 'camera': uint8 (height, width, 3)}`, the state
    without the objects.
    """

    def __init__(self, env: ArmEnv) -> None:
        super().__init__(env)
        self._task = env
        self._kept = len(env.observation_names) - len(env.object_names)
        self.observation_names = env.observation_names[: self._kept]
        """Names of the state."""
        space = env.observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        self.observation_space = gymnasium.spaces.Dict(
            {
                STATE: gymnasium.spaces.Box(space.low[: self._kept], space.high[: self._kept]),
                CAMERA: gymnasium.spaces.Box(0, 255, (*IMAGE_SIZE, 3), np.uint8),
            }
        )
        self._renderer: mujoco.Renderer | None = None

    def observation(self, observation: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Take an image.

        Raises:
            ConfigError: no OpenGL is available.
        """
        return {STATE: observation[: self._kept], CAMERA: self.image()}

    def image(self) -> NDArray[np.uint8]:
        """Return what the camera sees now, shape (height, width, 3)."""
        if self._renderer is None:
            self._renderer = make_renderer(self._task.model, *IMAGE_SIZE)
            # A shadow costs ten times the rest of the image.
            self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._renderer.update_scene(self._task.data, camera=CAMERA)
        image: NDArray[np.uint8] = self._renderer.render()
        return image

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        super().close()


def make_camera_task(
    name: str, *, render_mode: str | None = None, **overrides: Any
) -> CameraObservation:
    """Build a task with a camera; see `make_task`."""
    return CameraObservation(make_task(CAMERA_TASKS[name], render_mode=render_mode, **overrides))
