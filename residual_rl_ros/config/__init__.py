# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The YAML files of a run as checked dataclasses: preset and run.

May import `algorithms`, `control` and below. Open `run` first.
"""

from pathlib import Path

from residual_rl_ros.resources import find_file

DEFAULT_PRESET = 'self_scaling'
ROBOT_SCALE = 0.05
"""Lambda on a robot of which neither its user nor an actor says more."""


def find_preset(name: str) -> Path:
    """Return the file of a preset: a path, or the name of a shipped one.

    `preset` reads it, and imports torch for that, which takes seconds.

    Raises:
        ResourceError: no shipped preset has the name.
    """
    return find_file('preset', ('config', 'presets'), name, '.yaml')
