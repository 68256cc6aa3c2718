# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What `/diagnostics` tells of a learner."""

from __future__ import annotations

from typing import Any

from residual_rl_ros.learner.episodes import RECENT_EPISODES
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.ros.common.concerns import Concern

LEARNER_CONCERNS = (
    Concern(
        'learning',
        (
            'active',
            'paused',
            'phase',
            'epoch',
            'sequence',
            'updates',
            'pretraining_updates',
            'dropped_updates',
            'updates_per_s',
            'add_on',
            'add_on_weight',
        ),
    ),
    Concern(
        'robot_link',
        (
            'queue',
            'malformed',
            'missing',
            'other_learners',
            'transitions',
            'transitions_per_s',
            'control_steps',
            '*/*',
        ),
        ('malformed', 'missing', 'other_learners'),
    ),
    Concern(
        'episodes',
        (
            'episodes',
            'residual_episodes',
            'residual_outcomes',
            'success_recent',
            'takeovers',
            'operator_steps',
        ),
    ),
    Concern('guard', ('rollbacks', 'recoveries', 'guard_*'), ('rollbacks', 'recoveries')),
    Concern('networks', ('*',)),
)
"""The statuses below that of a learner; what the networks' updates say comes last."""


class LearnerValues:
    """Reads a learner's counts, and how fast they have grown since the last report.

    Args:
        now: of a steady clock [s].
    """

    def __init__(self, now: float) -> None:
        self._last = (now, 0, 0)

    def of(self, learner: Learner, now: float) -> dict[str, Any]:
        """Return the values of a report at a time [s]."""
        then, transitions, updates = self._last
        self._last = (now, learner.transitions, learner.updates.online)
        rate = learner.episodes.success_rate
        rated = [record for record in learner.episodes.history if record.rates_residual]
        latest = ''.join('01'[bool(record.outcome())] for record in rated[-RECENT_EPISODES:])
        add_on, weight = learner.add_on.asked
        return {
            'transitions': learner.transitions,
            'phase': learner.phase.value,
            'epoch': learner.epoch,
            'sequence': learner.sequence,
            'control_steps': learner.control_steps,
            'episodes': len(learner.episodes.history),
            'success_recent': -1.0 if rate is None else rate,
            'residual_episodes': len(rated),
            'residual_outcomes': latest,
            'takeovers': learner.episodes.takeovers,
            'add_on': add_on,
            'add_on_weight': weight,
            'operator_steps': learner.episodes.operator_steps,
            'updates': learner.updates.online,
            'pretraining_updates': learner.updates.pretraining,
            'dropped_updates': learner.updates.dropped,
            'rollbacks': len(learner.judge.rollbacks),
            'guard_watches': learner.judge.watches,
            'recoveries': learner.updates.finite.recoveries,
            'transitions_per_s': (learner.transitions - transitions) / (now - then),
            'updates_per_s': (learner.updates.online - updates) / (now - then),
            **learner.updates.metrics,
        }
