# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checks before a robot moves: its description and its base policy, compared with each other.

May import `control`, `base_policy`, `robot` and below. Open `robot` first.
"""
