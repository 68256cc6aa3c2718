# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The only place that imports rclpy: nodes, messages, QoS, bring-up. No learning code."""
