# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The policy that is learned, as torch trains it and as the robot runs it.

`robot_policy` holds the protocol and the registry of what a robot can run. The kinds are
`numpy_actor` (kind `gaussian`), `candidate_selection` (`best_of_n`), `choose_and_edit`,
`categorical`, `prior_gaussian`, `q_remix` and `mppi_planner` (`mppi`, with `mppi` and `dynamics`).
Beside them: architectures, weight messages, the mailbox of the policy node, exploration. May import
`rewards`, `transitions` and below. Only the modules whose names begin with `torch` import it: the
robot does without. Open `robot_policy` first.
"""

from residual_rl_ros.residual_policy import (
    candidate_selection,
    categorical,
    choose_and_edit,
    mppi_planner,
    numpy_actor,
    prior_gaussian,
    q_remix,
)

__all__ = [
    'candidate_selection',
    'categorical',
    'choose_and_edit',
    'mppi_planner',
    'numpy_actor',
    'prior_gaussian',
    'q_remix',
]
