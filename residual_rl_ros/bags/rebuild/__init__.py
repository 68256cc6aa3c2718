# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Transitions from a raw bag, through the loops of the live policy node.

Open `rebuild` first.
"""
