# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Transitions in bags: read, write, summarise.

Open `reader` first.
"""
