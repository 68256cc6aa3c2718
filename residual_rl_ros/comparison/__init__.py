# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Presets against each other over tasks and seeds.

May import `training` and below. Open `compare` first.
"""
