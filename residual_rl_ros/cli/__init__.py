# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The command line, one file a group of commands.

May import everything. Open `main` first.
"""
