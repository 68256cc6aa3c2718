# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One run in one process, without ROS.

`train` is the run of a learner, `options` what the command line chooses of it, `identity` what
makes two runs the same, and `in_process` what is refused and what runs. May import `pretraining`,
`evaluation`, `learner` and below. Open `train` first.
"""
