# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Transitions in, weight messages out; no middleware, no thread, no clock.

Holds phases and publications (`learner`), the pace of updates (`updates`), what episodes say of the
actors (`judge`), the add-on that is learned for (`add_on`), exploration over time and checkpoints.
May import `config`, `algorithms` and below. Open `learner` first.
"""
