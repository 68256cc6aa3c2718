# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Phases, pacing, presets and checkpoints of the learner."""
