# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the nodes share: lifecycle, parameters, QoS, encoders of messages, real time.

Open `managed_node` first.
"""
