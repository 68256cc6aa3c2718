# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One run in one process, without ROS.

May import `pretraining`, `evaluation`, `learner` and below. Open `train` first.
"""
