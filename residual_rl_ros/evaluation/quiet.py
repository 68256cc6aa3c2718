# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Silence a worker process. Apart, because importing MuJoCo already fails without OpenGL."""

import os


def silence_stderr() -> None:
    """Send what drivers and destructors print to nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
