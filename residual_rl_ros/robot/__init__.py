# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a robot is and what its messages say.

Holds the robot description (YAML), the action contract, the observation assembler and decoders of
ROS messages (duck-typed: no message package is imported). May import the root modules. Open
`description` first.
"""
