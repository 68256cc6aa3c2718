# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Update rules, one a file, readable top to bottom.

May import `residual_policy`, `transitions` and below; knows no learner. Open `sac` first.
"""
