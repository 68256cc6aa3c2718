# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How the shipped base policies and image encoders are made.

Holds scripted experts, demonstrations, imitation learning and model cards. May import `evaluation`,
`demonstrations`, `tasks` and below. Open `train_base` first.
"""
