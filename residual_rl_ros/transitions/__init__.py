# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What travels from the robot to the learner.

Holds the transition and its layout, tables and buffers of transitions, their bytes, and the count
of those lost on the way. May import `robot` and the root modules. Open `transition` first, then
`layout`.
"""
