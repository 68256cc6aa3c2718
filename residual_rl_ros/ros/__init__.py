# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The only room that imports rclpy and message packages; it holds no learning code.

`nodes` are the executables, `common` is what they share, `bringup` starts and watches processes,
`tools` are what an operator runs. May import everything but `bench` and `cli`.
"""
