# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes, alone (`episode`) and paired of base and base + residual; intervals and figures.

May import `tasks`, `learner` and below. Open `paired` first.
"""
