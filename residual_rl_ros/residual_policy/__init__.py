# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The policy that is learned, as torch trains it and as the robot runs it.

`robot_policy` holds the protocol and the registry of what a robot can run; `numpy_actor` (kind
`gaussian`), `candidate_selection` (kind `best_of_n`) and `mppi_planner` (kind `mppi`, with `mppi`
and `dynamics`) are the kinds. Beside them: architectures, weight messages, the mailbox of the
policy node, exploration. May import `rewards`, `transitions` and below.
Only `torch_networks` imports torch: the robot does without. Open `robot_policy` first.
"""

from residual_rl_ros.residual_policy import candidate_selection, mppi_planner, numpy_actor

__all__ = ['candidate_selection', 'mppi_planner', 'numpy_actor']
