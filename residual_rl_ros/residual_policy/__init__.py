# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The policy that is learned, as torch trains it and as the robot runs it.

Holds architectures, networks, weight messages, the mailbox of the policy node, and exploration. May
import `transitions` and below. Only `torch_networks` imports torch: the robot does without. Open
`architecture` first.
"""
