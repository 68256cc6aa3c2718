# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a result comes from: versions, the commit, digests of files."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from residual_rl_ros import __version__


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    names = ('torch', 'mujoco', 'numpy', 'onnxruntime', 'gymnasium', 'ros-rclpy')
    found = {'residual_rl_ros': __version__, 'python': platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = 'from the system'
    return found


def git_commit() -> str | None:
    """Return the commit of the source tree, marked if it is changed; None outside of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / 'package.xml').is_file():  # Installed; a repository around it is another's.
        return None
    command = ['git', '-C', str(root), 'describe', '--always', '--dirty', '--abbrev=12']
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
