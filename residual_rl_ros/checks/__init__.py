# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Look before it moves: a base policy and a robot description, held against each other.

May import `control`, `base_policy`, `robot` and below. Open `robot` first.
"""
