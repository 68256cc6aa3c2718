# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Update rules, one a file, each readable top to bottom: losses as functions, then one `update`.

`rule` says what a rule is to the learner and holds the registry; `actor_critic` and `replay_memory`
are what off-policy rules share. May import `residual_policy`, `transitions` and below; a rule knows
no learner. Open `sac` first.
"""

from residual_rl_ros.algorithms import (
    cal_ql,
    choose_and_edit,
    q_remix,
    residual_ppo,
    residual_sac,
    residual_soft_q,
    sac,
    supervised,
    td3,
)

__all__ = [
    'cal_ql',
    'choose_and_edit',
    'q_remix',
    'residual_ppo',
    'residual_sac',
    'residual_soft_q',
    'sac',
    'supervised',
    'td3',
]
