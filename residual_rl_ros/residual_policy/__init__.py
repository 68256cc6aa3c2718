# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The policy that is learned, as torch trains it and as the robot runs it.

`robot_policy` holds the protocol and the registry of what a robot can run. The kinds are
`numpy_actor` (kind `gaussian`), `candidate_selection` (`best_of_n`), `choose_and_edit`,
`perceptron` (`categorical` and `prior_gaussian`), `q_remix` and `mppi` (with `dynamics`).
Beside them: exploration, architectures, weight messages, the mailbox of the policy node. May import
`rewards`, `transitions` and below. Only the modules whose names begin with `torch` import it: the
robot does without. Open `robot_policy` first.
"""

from residual_rl_ros.residual_policy import (
    candidate_selection,
    choose_and_edit,
    mppi,
    numpy_actor,
    perceptron,
    q_remix,
)

__all__ = ['candidate_selection', 'choose_and_edit', 'mppi', 'numpy_actor', 'perceptron', 'q_remix']
