# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The robot leaves its base policy further with time, and less far with evidence against it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from learner_builders import small_config
from transition_builders import make_layout, make_transition, random_transitions

from residual_rl_ros.learner.exploration_schedule import FULL_DOUBT, UNKNOWN_BASE_EPISODES
from residual_rl_ros.learner.guard import MIN_BASE_EPISODES
from residual_rl_ros.learner.learner import Learner, Log, Phase
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.transitions.transition import Source, Success

LAYOUT = make_layout()
STREAM = random_transitions(LAYOUT, 40)
WARMUP = 10


def make_learner(**overrides: Any) -> Learner:
    return Learner(small_config(**overrides), LAYOUT, seed=0)


def test_the_bound_grows_in_training_and_in_deployment_alike() -> None:
    learner = make_learner(bound_ramp_transitions=20, full_bound_cost=0.0)
    for transition in STREAM[: WARMUP + 5]:
        message = learner.ingest(transition)
    assert message is not None
    ratios = [
        decode_weights(sent)[0].exploration.bound_scale
        for sent in (message, learner.current_message())
    ]
    assert ratios == [0.25, 0.25]
    for transition in STREAM[WARMUP + 5 : WARMUP + 25]:
        learner.ingest(transition)
    assert learner.exploration().bound_scale == 1.0


def test_the_bound_is_whole_at_a_falling_cost_in_training_and_in_deployment_alike() -> None:
    learner = make_learner(bound_ramp_transitions=20, full_bound_cost=8.0)
    for transition in STREAM[:WARMUP]:
        learner.ingest(transition)
    assert learner.exploration().bound_scale == 0.0
    for received, cost in ((5, 24.0), (10, 8.0), (20, 0.0), (30, 0.0)):
        message = None
        for transition in STREAM[learner.transitions : WARMUP + received]:
            message = learner.ingest(transition) or message
        assert message is not None
        for sent in (message, learner.current_message()):
            exploration = decode_weights(sent)[0].exploration
            assert exploration.bound_scale == 1.0
            assert exploration.full_bound_cost == pytest.approx(cost)


def test_the_share_of_decisions_with_a_residual_grows() -> None:
    learner = make_learner(progressive_transitions=10, bound_ramp_transitions=0)
    assert learner.exploration().residual_probability == 0.0
    shares = []
    for transition in STREAM[: WARMUP + 12]:
        learner.ingest(transition)
        shares.append(learner.exploration().residual_probability)
    assert shares[:WARMUP] == [0.0] * WARMUP
    assert shares[WARMUP:] == pytest.approx([*np.arange(0.1, 1.05, 0.1), 1.0, 1.0])


@pytest.mark.parametrize(('share', 'first'), [(0.1, 0.5), (0.7, 0.7), (0.0, 0.0)])
def test_half_of_the_episodes_show_the_base_until_the_guard_knows_it(
    share: float, first: float
) -> None:
    learner = make_learner(guard_share=share)
    learner.phase = Phase.ONLINE
    for _ in range(MIN_BASE_EPISODES):
        assert learner.exploration().base_only_share == first
        learner.judge.guard.record_outcome(True, residual=False)
    assert learner.exploration().base_only_share == share


def test_where_outcomes_are_not_labelled_the_base_does_not_run_half_of_the_episodes() -> None:
    learner = make_learner(guard_share=0.1)
    learner.phase = Phase.ONLINE
    while len(learner.episodes.history) < UNKNOWN_BASE_EPISODES:
        assert learner.exploration().base_only_share == 0.5
        learner.ingest(make_transition(LAYOUT, truncated=True, success=Success.UNLABELLED))
    assert learner.judge.guard.base_success is None
    assert learner.exploration().base_only_share == 0.1


def test_random_episodes_are_a_share_of_the_failures() -> None:
    learner = make_learner(
        full_bound_cost=0.0, random_exploration_share=0.5, random_exploration_decisions=7
    )
    assert learner.exploration().random_share == 0.0
    learner.phase = Phase.ONLINE
    assert learner.exploration().random_share == 0.0
    shares = []
    for success in (Success.SUCCESS, Success.FAILURE, Success.FAILURE):
        learner.ingest(
            make_transition(LAYOUT, truncated=True, success=success, source=Source.RESIDUAL)
        )
        shares.append(learner.exploration().random_share)
    # Where an operator takes over, he shows the way.
    learner.ingest(make_transition(LAYOUT, episode=9, source=Source.RESIDUAL))
    learner.ingest(make_transition(LAYOUT, episode=9, truncated=True, source=Source.TAKEOVER))
    shares.append(learner.exploration().random_share)
    assert shares == pytest.approx([0.0, 0.25, 1 / 3, 0.25])
    assert learner.episodes.success_rate == 0.25
    assert learner.exploration().random_decisions == 7
    resumed = make_learner(
        full_bound_cost=0.0, random_exploration_share=0.5, random_exploration_decisions=7
    )
    resumed.load_state_dict(json.loads(json.dumps(learner.state_dict())))
    assert resumed.exploration() == learner.exploration()
    assert decode_weights(learner.current_message())[0].exploration.random_share == 0.0


@pytest.mark.parametrize('share', [0.5, 0.0])
def test_a_user_is_told_of_random_episodes_when_the_warm_up_ends(share: float) -> None:
    said: list[str] = []
    config = small_config(full_bound_cost=0.0, random_exploration_share=share)
    learner = Learner(config, LAYOUT, seed=0, log=Log(inform=said.append))
    for transition in STREAM[:WARMUP]:
        learner.ingest(transition)
    told = [text for text in said if 'a random residual acts in some' in text]
    assert len(told) == (share > 0.0)


def test_careful_episodes_shrink_with_the_evidence_and_come_back() -> None:
    learner = make_learner(guard_share=0.1, guard_bound_floor=0.25, bound_ramp_transitions=0)
    learner.phase = Phase.ONLINE
    assert learner.exploration().bound_scale == 1.0
    learner.judge.guard.statistic = FULL_DOUBT / 2.0
    assert learner.exploration().bound_scale == pytest.approx(0.625)
    for statistic in (FULL_DOUBT, 1.8 * FULL_DOUBT):
        learner.judge.guard.statistic = statistic
        assert learner.exploration().bound_scale == pytest.approx(0.25)
    learner.judge.guard.reset()
    assert learner.exploration().bound_scale == 1.0
