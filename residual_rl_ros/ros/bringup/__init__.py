# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which processes a run consists of, and how they are started, watched and stopped.

Open `topology` first.
"""
