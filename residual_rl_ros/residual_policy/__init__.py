# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The policy that is learned, as torch trains it and as the robot runs it.

`robot_policy` holds the protocol and the registry of what a robot can run; `numpy_actor` (kind
`gaussian`) and `candidate_selection` (kind `best_of_n`) are the kinds. Beside them: architectures,
weight messages, the mailbox of the policy node, exploration. May import `transitions` and below.
Only `torch_networks` imports torch: the robot does without. Open `robot_policy` first.
"""

from residual_rl_ros.residual_policy import candidate_selection, numpy_actor

__all__ = ['candidate_selection', 'numpy_actor']
