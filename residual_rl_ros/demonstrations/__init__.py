# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded demonstrations of any origin, as transitions of the learner.

A module for each format, LeRobot's in `frames`, and `shadow`, which runs the frozen base policy
along what was demonstrated. May import `bags`, `learner` and below. Open `source` first.
"""
