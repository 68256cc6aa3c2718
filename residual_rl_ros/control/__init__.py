# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From observations to safe commands, without middleware.

Holds the controller (one control step), composition, safety, and the loops in lockstep and in real
time. May import `residual_policy`, `base_policy` and below. Open `controller` first.
"""
