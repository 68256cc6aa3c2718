# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings (rosbag2): the files of a bag, their topics, and the recorder.

Three rooms use them: `transitions` (read and write), `rebuild` (from raw observations and commands)
and `lerobot` (datasets). May import `control` and below. Open `bag` first.
"""
