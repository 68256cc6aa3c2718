# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobotDataset v3.0: read and write.

Open `format` first.
"""
