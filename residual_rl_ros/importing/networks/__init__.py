# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Networks that several formats share, as torch modules that trace without data-dependent flow.

Names of their parameters are those of the checkpoints where a format has published some, so that
weights are loaded by name.
"""
