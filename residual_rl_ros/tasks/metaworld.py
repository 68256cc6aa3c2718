# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Meta-World v3 with sparse success: `metaworld:` and the name of a task."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from residual_rl_ros.config.success import SUCCESS
from residual_rl_ros.errors import ConfigError

PREFIX = 'metaworld:'
"""What the names of its tasks begin with here, for example `metaworld:drawer-open-v3`."""
TIME_LIMIT = 200
"""Control steps of an episode, 2.5 s: its experts need 50 to 100; its own limit is 500."""

Float64 = npt.NDArray[np.float64]


def import_metaworld() -> Any:
    """Return the package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import metaworld.env_dict
        import metaworld.policies
    except ImportError as error:
        raise ConfigError(
            f'tasks that begin with {PREFIX!r} need Meta-World ({error}); install it with '
            'pip install --no-deps metaworld==3.1.1 (its pin of an older MuJoCo is not needed)'
        ) from error
    return metaworld


def task_of(name: str) -> str:
    """Return Meta-World's own name of `metaworld:TASK`.

    Raises:
        ConfigError: the package is missing, or has no such task.
    """
    known = import_metaworld().env_dict.ALL_V3_ENVIRONMENTS
    task = name.removeprefix(PREFIX)
    if task not in known:
        raise ConfigError(f'Meta-World has no task {task!r}, expected one of {", ".join(known)}')
    return task


class MetaWorld(gymnasium.Env[Float64, npt.NDArray[np.float32]]):
    """A task of Meta-World (arXiv 1910.10897), its goal observed and its scene set by the seed.

    Observations have 39 numbers: hand position, gripper opening, positions and quaternions of up to
    two objects, the same of the step before, and the goal [m]. Actions are a displacement of the
    hand, in units of 1 cm, and the effort of the gripper, each in [-1, 1]. The control rate is
    80 Hz. The reward is 1 at success, which ends the episode, and otherwise 0.

    Args:
        name: `metaworld:TASK`.
        render_mode: `rgb_array` to draw images, or None.

    Raises:
        ConfigError: the package is missing, or has no such task.
    """

    # gymnasium declares it as a variable of the instance.
    metadata = {'render_modes': ['rgb_array'], 'render_fps': 80}  # noqa: RUF012

    def __init__(self, name: str, render_mode: str | None = None) -> None:
        self.task_name = name
        self.render_mode = render_mode
        task = import_metaworld().env_dict.ALL_V3_ENVIRONMENTS[task_of(name)]
        self._task = task(render_mode=render_mode)
        # A task of its benchmarks would set these, from one of fifty frozen scenes and with the
        # goal hidden; the scene is drawn from the seed instead. The space is cached with the goal
        # bounded by zero, to which steps would clip it.
        self._task._set_task_called = True
        self._task._freeze_rand_vec = False
        self._task.seeded_rand_vec = True
        self._task._partially_observable = False
        self._task.__dict__.pop('sawyer_observation_space', None)
        self.observation_space = self._task.sawyer_observation_space
        self.action_space = self._task.action_space
        self._steps = 0
        self.seen: Float64 = np.zeros(self.observation_space.shape or (0,))
        """The latest observation, shape (39,), for the expert."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float64, dict[str, Any]]:
        """Begin an episode; the seed alone decides the scene."""
        super().reset(seed=seed, options=options)
        # It ignores a seed of `reset`, and takes no None; without one, our generator goes on.
        self._task.seed(int(self.np_random.integers(2**32)))
        self._steps = 0
        self.seen, info = self._task.reset()
        return self.seen, info

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[Float64, float, bool, bool, dict[str, Any]]:
        """Execute a command."""
        self.seen, _, _, _, info = self._task.step(action)
        self._steps += 1
        success = bool(info[SUCCESS])
        info = {**info, SUCCESS: success}
        return self.seen, float(success), success, self._steps >= TIME_LIMIT, info

    def render(self) -> npt.NDArray[np.uint8]:
        """Return an image, shape (height, width, 3)."""
        image: npt.NDArray[np.uint8] = self._task.render()
        return image

    def close(self) -> None:
        """Free the renderer."""
        self._task.close()
