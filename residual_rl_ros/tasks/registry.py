# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The tasks by name, with their objects measured or seen by a camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.tasks.arm_env import ArmEnv, make_renderer
from residual_rl_ros.tasks.parameters import TaskParameters, override_ranges
from residual_rl_ros.tasks.peg_insert import PegInsert, PegInsertParameters
from residual_rl_ros.tasks.push_to_goal import PushToGoal, PushToGoalParameters

_TASKS: dict[str, tuple[Callable[..., ArmEnv], type[TaskParameters]]] = {
    PegInsert.task_name: (PegInsert, PegInsertParameters),
    PushToGoal.task_name: (PushToGoal, PushToGoalParameters),
}
TASK_NAMES = tuple(_TASKS)


def make_task(name: str, *, render_mode: str | None = None, **overrides: Any) -> ArmEnv:
    """Build a task.

    Args:
        name: One of `TASK_NAMES`.
        render_mode: `rgb_array` to allow `render()`, or None.
        **overrides: Fields of the task's parameters, for example `clearance_m=0.001`, or
            `randomisation={'hole.x': (0.5, 0.6)}`, which replaces ranges by name.

    Raises:
        ConfigError: If the task, a parameter or a range is unknown, or a value out of bounds.
    """
    if name not in _TASKS:
        raise ConfigError(f'unknown task {name!r}, expected one of {list(TASK_NAMES)}; correct it')
    task, parameters = _TASKS[name]
    known = [entry.name for entry in fields(parameters)]
    for override in overrides:
        if override not in known:
            raise ConfigError(
                f'task {name!r} has no parameter {override!r}, expected one of {known}; '
                'rename or remove it'
            )
    if 'randomisation' in overrides:
        defaults = parameters().randomisation
        overrides['randomisation'] = override_ranges(defaults, overrides['randomisation'])
    return task(parameters(**overrides), render_mode)


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
