# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an operator runs beside the nodes: console, live check, bag player, benchmark.

Open `operator` first.
"""
