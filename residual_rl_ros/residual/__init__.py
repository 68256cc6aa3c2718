# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The residual actor, its composition with the base action, and the safety filter."""
