# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the learner and of bags: `residual-rl bench`.

May import everything. Open `learner` first.
"""
