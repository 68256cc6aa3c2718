# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What `/diagnostics` tells of a policy, and which concern each value belongs to."""

from __future__ import annotations

from typing import Any

from residual_rl_ros.control.lockstep_loop import LockstepLoop
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.ros.common.concerns import Concern

POLICY_CONCERNS = (
    Concern(
        'motion',
        (
            'active',
            'episode',
            'in_episode',
            'held',
            'stops',
            'waits_to_start',
            'refused_starts',
            'preparing',
            'ticks',
            'holds',
            'overruns',
            'missed_periods',
            'clamped',
            'slew_limited',
            'workspace_limited',
            'self_collision_limited',
            'robot_minutes',
            '*_goals',
            '*_goals_refused',
            '*_goals_unsent',
            'account_*',
            'command_*',
            'reaction_*',
            'tick_*',
        ),
        (
            'refused_starts',
            'overruns',
            'missed_periods',
            '*_goals_refused',
            '*_goals_unsent',
        ),
    ),
    Concern(
        'observations',
        ('refused_observations', 'refused_feedback'),
        ('refused_observations', 'refused_feedback'),
    ),
    Concern(
        'inference',
        ('first_chunk_holds', 'late_chunks', 'prefetch_steps', 'chunks_*', 'inference_*'),
        ('late_chunks', 'chunks_refused_*'),
    ),
    Concern(
        'residual',
        (
            'residual_on',
            'residual_switch',
            'epoch',
            'sequence',
            'residuals_refused',
            'proposals_chosen',
            'residuals_not_finite',
            'plans_late',
            'add_on',
            'add_on_*',
            'actor_*',
            'plan_*',
        ),
        ('residuals_not_finite', 'plans_late', 'add_on_failures'),
    ),
    Concern(
        'learner_link',
        ('transitions', 'refused_transitions', 'weights_accepted', 'weights_refused_*'),
        # Stale and superseded ones are everyday.
        ('refused_transitions', 'weights_refused_[!s]*', 'weights_refused_shape'),
    ),
    Concern(
        'operator',
        ('takeover', 'takeovers', 'operator_ticks', 'operator_minutes', 'refused_takeovers'),
        ('refused_takeovers',),
    ),
)
"""The statuses below that of a policy node."""


def policy_values(loop: LockstepLoop | RealTimeLoop, control_rate_hz: float) -> dict[str, Any]:
    """Return the values of a report.

    Args:
        loop: what runs.
        control_rate_hz: of the robot, for the minutes.
    """
    controller = loop.controller
    mailbox, safety = controller.mailbox, controller.limiter.safety
    header = mailbox.header

    def minutes(ticks: str) -> float:
        """Return the time of the control steps that a counter has counted [min]."""
        return round(loop.counts[ticks] / control_rate_hz / 60.0, 2)

    return {
        'episode': loop.episode,
        'epoch': header.epoch if header else 0,
        'sequence': header.sequence if header else -1,
        'residual_on': mailbox.enabled and controller.residual.enabled,
        'residual_switch': controller.residual.enabled,
        'takeover': loop.taken_over,
        'add_on': controller.customisation.text,
        'add_on_weight': controller.customisation.weight,
        'add_on_reward': controller.customisation.reward,
        'add_on_failures': controller.customisation.failures,
        'weights_accepted': mailbox.accepted,
        **{f'weights_refused_{reason}': n for reason, n in mailbox.refused.items()},
        **loop.counts,
        'robot_minutes': minutes('ticks'),
        'operator_minutes': minutes('operator_ticks'),
        'first_chunk_holds': controller.first_chunk_holds,
        'late_chunks': controller.late_chunks,
        'prefetch_steps': controller.queue.prefetch_steps,
        **{f'chunks_{what}': n for what, n in controller.queue.counts.items()},
        'residuals_not_finite': controller.residual.not_finite,
        'residuals_refused': controller.residual.refused,
        'proposals_chosen': controller.residual.proposals_chosen,
        'plans_late': controller.residual.plans.late,
        'clamped': safety.clamped,
        'slew_limited': safety.slew_limited,
        'workspace_limited': safety.workspace_limited,
        'self_collision_limited': safety.self_collision_limited,
        **loop.report(),
    }
