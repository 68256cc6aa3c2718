# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A MuJoCo scene behind the gymnasium API, and the renderer of its images."""

from __future__ import annotations

import abc
import atexit
import os
import sys
from collections import deque
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
from mujoco import gl_context
from numpy.typing import NDArray

from residual_rl_ros.config.success import END, SUCCESS, SuccessCriterion
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import resource_path
from residual_rl_ros.tasks.parameters import TaskParameters


def make_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """Return a renderer.

    MuJoCo chooses OpenGL by `MUJOCO_GL` when it is imported and takes GLFW, which needs a display,
    when nothing is set. Where there is no display this takes EGL, and only when an image is
    wanted, so that tasks without a camera run on machines without any OpenGL.

    Args:
        model: the scene.
        height: of the images [px].
        width: of the images [px].

    Raises:
        ConfigError: no OpenGL is available.
    """
    headless = sys.platform == 'linux' and not os.environ.get('DISPLAY')
    try:
        if headless and not os.environ.get('MUJOCO_GL'):
            from mujoco import egl

            gl_context.GLContext = egl.GLContext
        renderer = mujoco.Renderer(model, height, width)
    except Exception as error:  # Each OpenGL driver raises errors of its own.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f'no OpenGL to draw with: {reason}; install EGL or OSMesa and set MUJOCO_GL=egl or '
            'MUJOCO_GL=osmesa'
        ) from error
    # Left to the end of the interpreter, closing fails with a traceback of the driver's.
    atexit.register(renderer.close)
    return renderer


Observation = NDArray[np.float32]
Action = NDArray[np.float32]


class SceneEnv(gymnasium.Env[Observation, Action], abc.ABC):
    """A robot whose actuators are commanded with position targets at 20 Hz.

    Actions are targets of `actuator_names`; they reach the actuators `action_delay_steps` later
    and are clipped there to their ranges. The reward is 1 on success, which ends the episode, and 0
    otherwise. `info['success']` is set at every step.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (declared so by gymnasium.Env)
        'render_modes': ['rgb_array'],
        'render_fps': 20,
    }
    task_name: ClassVar[str]
    """Name of the task and of its scene file."""
    actuator_names: ClassVar[tuple[str, ...]]
    """Actuators of the scene, all of them, in the order of the actions."""
    object_names: ClassVar[tuple[str, ...]]
    """Observation names of the task's objects; those that hold positions contain `.position.`."""
    cameras: ClassVar[tuple[str, ...]] = ()
    """Cameras of the scene that a policy may see."""
    observation_names: tuple[str, ...]
    """Names of the observation."""
    action_names: ClassVar[tuple[str, ...]]
    """Names of the actions."""
    control_rate_hz: ClassVar[float] = 20.0
    success_criterion: ClassVar[SuccessCriterion] = SuccessCriterion(SUCCESS, END)
    """How it tells success."""
    image_size: ClassVar[tuple[int, int]] = (360, 480)
    """Height and width of a rendered image, [px]."""

    def __init__(self, parameters: TaskParameters, render_mode: str | None = None) -> None:
        """Load the scene.

        Args:
            parameters: What can be set on the task.
            render_mode: `rgb_array` to allow `render()`, or None.

        Raises:
            ConfigError: If the render mode is unknown.
        """
        if render_mode not in (None, *self.metadata['render_modes']):
            raise ConfigError(
                f'render mode {render_mode!r} is unknown, expected one of '
                f'{self.metadata["render_modes"]} or None; set render_mode'
            )
        self.parameters = parameters
        self.render_mode = render_mode
        spec = mujoco.MjSpec.from_file(str(resource_path('sim', f'{self.task_name}.xml')))
        self._edit_scene(spec)
        self.model: mujoco.MjModel = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._substeps = round(1.0 / (self.control_rate_hz * self.model.opt.timestep))
        self._renderer: mujoco.Renderer | None = None
        self._delay_line: deque[NDArray[np.float64]] = deque()
        self._steps = 0
        limits = np.array([self.model.actuator(name).ctrlrange for name in self.actuator_names])
        self.action_space = gymnasium.spaces.Box(*limits.T.astype(np.float32), dtype=np.float32)

    @property
    def max_episode_steps(self) -> int:
        """Control steps after which an episode is truncated."""
        return self.parameters.max_episode_steps

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw a new scene and hold the robot still at its start.

        Args:
            seed: Seeds everything random in the episodes that follow.
            options: Unused.

        Returns:
            The first observation, and `{'success': False}`.
        """
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        draw = {entry.name: entry.sample(self.np_random) for entry in self.parameters.randomisation}
        start = self._place(draw)
        self.data.ctrl[:] = start
        mujoco.mj_forward(self.model, self.data)
        self._delay_line = deque([start] * self.parameters.action_delay_steps)
        self._steps = 0
        return self._observe(), {'success': False}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Command positions and simulate one control step.

        Args:
            action: Targets of the actuators, shape (m,), clipped to their ranges.

        Returns:
            Observation, reward, terminated, truncated and `{'success': bool}`.

        Raises:
            ConfigError: If the action has the wrong shape or is not finite.
        """
        self._delay_line.append(self._checked(action))
        self.data.ctrl[:] = self._delay_line.popleft()
        mujoco.mj_step(self.model, self.data, nstep=self._substeps)
        # mj_step leaves the frames one substep behind the joints.
        mujoco.mj_kinematics(self.model, self.data)
        self._steps += 1
        success = self._succeeded()
        truncated = not success and self._steps >= self.max_episode_steps
        return self._observe(), float(success), success, truncated, {'success': success}

    def render(self) -> NDArray[np.uint8] | None:
        """Draw the scene from the camera `overview`.

        Returns:
            An RGB image, shape (height, width, 3), or None without a render mode.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = make_renderer(self.model, *self.image_size)
        self._renderer.update_scene(self.data, camera='overview')
        image: NDArray[np.uint8] = self._renderer.render()
        return image

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    @abc.abstractmethod
    def _edit_scene(self, spec: mujoco.MjSpec) -> None:
        """Apply the parameters that change geometry, before the scene is compiled."""

    @abc.abstractmethod
    def _place(self, draw: dict[str, float]) -> NDArray[np.float64]:
        """Place the robot and the task's objects; return the command that holds it, shape (m,).

        Args:
            draw: Drawn values by name of their range.
        """

    @abc.abstractmethod
    def _observe(self) -> Observation:
        """Measure everything once."""

    @abc.abstractmethod
    def _succeeded(self) -> bool:
        """Return whether the task is solved, judged by the true geometry."""

    def _checked(self, action: Action) -> NDArray[np.float64]:
        """Return the action as float64, or raise naming the joint that is wrong."""
        target = np.asarray(action, dtype=np.float64)
        if target.shape != (len(self.action_names),):
            raise ConfigError(
                f'action has shape {target.shape}, expected ({len(self.action_names)},); '
                f'command {", ".join(self.action_names)}'
            )
        if not np.isfinite(target).all():
            index = int(np.flatnonzero(~np.isfinite(target))[0])
            raise ConfigError(
                f'action {self.action_names[index]} is {target[index]}, expected a finite '
                'position; check the policy that computed it'
            )
        return target
