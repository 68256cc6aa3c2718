# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Add-on rewards by name: what a robot is to do besides its task.

An add-on is a pure function of observation, action and next observation, vectorised in NumPy. One
object serves simulation, learner and robot: live and replayed rewards are equal. `add_on` says what
an add-on is and finds it, `composition` weighs several and sums them over a decision, `shipped`
holds those of this package. May import `transitions` and below. Open `composition` first.
"""

from residual_rl_ros.rewards import shipped

__all__ = ['shipped']
