# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Offscreen pictures on machines with and without a display."""

from __future__ import annotations

import atexit
import os
import sys

import mujoco
from mujoco import gl_context

from residual_rl_ros.errors import ConfigError


def make_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """Return a renderer.

    MuJoCo chooses OpenGL by `MUJOCO_GL` when it is imported and takes GLFW, which needs a display,
    when nothing is set. Where there is no display this takes EGL, and only when a picture is
    wanted, so that tasks without a camera run on machines without any OpenGL.

    Args:
        model: the scene.
        height: of the pictures [px].
        width: of the pictures [px].

    Raises:
        ConfigError: no OpenGL is available.
    """
    headless = sys.platform == 'linux' and not os.environ.get('DISPLAY')
    try:
        if headless and not os.environ.get('MUJOCO_GL'):
            from mujoco import egl

            gl_context.GLContext = egl.GLContext
        renderer = mujoco.Renderer(model, height, width)
    except Exception as error:  # OpenGL fails in as many ways as there are drivers.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f'no OpenGL to draw with: {reason}; install EGL or OSMesa and set MUJOCO_GL=egl or '
            'MUJOCO_GL=osmesa'
        ) from error
    # Left to the end of the interpreter, closing fails with a traceback of the driver's.
    atexit.register(renderer.close)
    return renderer
