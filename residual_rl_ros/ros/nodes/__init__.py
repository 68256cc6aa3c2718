# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The nodes: parameters in, messages converted, the core called.

Open `policy_node` first.
"""
