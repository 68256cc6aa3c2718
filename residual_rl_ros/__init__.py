# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Residual reinforcement learning on top of a frozen robot policy, over ROS 2."""

from __future__ import annotations

__version__ = '0.2.0'
