# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Policies of LeRobot: `folder` reads a checkpoint, one module each rebuilds an architecture."""
