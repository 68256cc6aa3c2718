# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Record, read, learn from and replay rosbag2 files; nothing here needs ROS."""
