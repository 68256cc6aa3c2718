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
from residual_rl_ros.tasks.parameters import TaskParameters, override_ranges
from residual_rl_ros.tasks.peg_insert import PegInsert, PegInsertParameters
from residual_rl_ros.tasks.pick_place import PickPlace, PickPlaceParameters
from residual_rl_ros.tasks.push_to_goal import PushToGoal, PushToGoalParameters
from residual_rl_ros.tasks.scene_env import SceneEnv, make_renderer

_TASKS: dict[str, tuple[Callable[..., SceneEnv], type[TaskParameters]]] = {
    PegInsert.task_name: (PegInsert, PegInsertParameters),
    PushToGoal.task_name: (PushToGoal, PushToGoalParameters),
    PickPlace.task_name: (PickPlace, PickPlaceParameters),
}
TASK_NAMES = (PegInsert.task_name, PushToGoal.task_name)
"""Tasks whose objects are measured."""


def make_task(name: str, *, render_mode: str | None = None, **overrides: Any) -> SceneEnv:
    """Build a task.

    Args:
        name: One of `TASK_NAMES`, or a task that one of `CAMERA_TASKS` is otherwise.
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


STATE = 'state'
"""Key of everything else in the observation."""
IMAGE_SIZE = (64, 64)
"""Height and width, [px]."""
CAMERA_TASKS = {
    'push_to_goal_camera': PushToGoal.task_name,
    'pick_place_camera': PickPlace.task_name,
}
"""Tasks with cameras, and the task that each is otherwise."""


class CameraObservation(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Replaces the measured objects by images.

    Observations are `{'state': float32 (n,), CAMERA: uint8 (height, width, 3)}` with a key for each
    of the task's `cameras`, the state without the objects.
    """

    def __init__(self, env: SceneEnv) -> None:
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
                **{
                    camera: gymnasium.spaces.Box(0, 255, (*IMAGE_SIZE, 3), np.uint8)
                    for camera in env.cameras
                },
            }
        )
        self._renderer: mujoco.Renderer | None = None

    def observation(self, observation: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Take the images.

        Raises:
            ConfigError: no OpenGL is available.
        """
        images = {camera: self.image(camera) for camera in self._task.cameras}
        return {STATE: observation[: self._kept], **images}

    def image(self, camera: str) -> NDArray[np.uint8]:
        """Return what a camera sees now, shape (height, width, 3)."""
        if self._renderer is None:
            self._renderer = make_renderer(self._task.model, *IMAGE_SIZE)
            # A shadow costs ten times the rest of the image.
            self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._renderer.update_scene(self._task.data, camera=camera)
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
    """Build a task with cameras; see `make_task`."""
    return CameraObservation(make_task(CAMERA_TASKS[name], render_mode=render_mode, **overrides))
