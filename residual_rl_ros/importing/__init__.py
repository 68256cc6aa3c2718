# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Base policies out of the checkpoints of other frameworks, without these frameworks."""
