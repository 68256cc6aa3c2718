# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The guard must find a ruined actor soon, and leave a sound one alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from builders import assert_same_actor, make_layout, make_transition, small_config

from residual_rl_ros.config.preset import load_preset
from residual_rl_ros.config.run import load_run
from residual_rl_ros.evaluation.paired import Episode
from residual_rl_ros.learner.guard import MIN_BASE_EPISODES, Guard, GuardConfig
from residual_rl_ros.learner.learner import Learner, Phase
from residual_rl_ros.residual_policy.mailbox import ActorMailbox
from residual_rl_ros.tasks.hosting import make_environment
from residual_rl_ros.training.in_process import InProcessRun
from residual_rl_ros.transitions.transition import Source, Success

CONFIG = GuardConfig(drop=0.3, false_alarm_episodes=3000.0)
LAYOUT = make_layout()


def episodes_to_alarm(
    base: float, residual: float, seed: int, episodes: int = 2000, share: float = 0.1
) -> int | None:
    """Return the residual episodes until an alarm in a simulated run, None if there is none."""
    rng = np.random.default_rng(seed)
    guard = Guard(CONFIG)
    for _ in range(200):
        assert guard.record_outcome(bool(rng.random() < base), residual=False) is None
    count = 0
    for _ in range(episodes):
        alone = bool(rng.random() < share)
        count += not alone
        success = bool(rng.random() < (base if alone else residual))
        if guard.record_outcome(success, residual=not alone):
            return count
    return None


@pytest.mark.parametrize(('base', 'limit'), [(0.4, 45), (0.6, 30), (0.8, 20)])
def test_a_residual_that_never_succeeds_is_found_within_a_stated_number_of_episodes(
    base: float, limit: int
) -> None:
    delays = [episodes_to_alarm(base, 0.0, seed) for seed in range(50)]
    assert all(delay is not None and delay <= limit for delay in delays)


def test_a_residual_that_lost_a_third_of_the_success_is_found() -> None:
    delays = [episodes_to_alarm(0.6, 0.3, seed) for seed in range(50)]
    assert all(delay is not None and delay <= 400 for delay in delays)


def test_twenty_runs_that_get_better_give_no_alarm() -> None:
    assert [episodes_to_alarm(0.6, 0.75, seed) for seed in range(20)] == [None] * 20


def test_at_equal_success_false_alarms_are_rare() -> None:
    alarms = [episodes_to_alarm(0.6, 0.6, seed, episodes=500) for seed in range(100)]
    assert sum(alarm is not None for alarm in alarms) <= 25


def test_nothing_is_concluded_without_base_episodes() -> None:
    guard = Guard(CONFIG)
    for _ in range(MIN_BASE_EPISODES - 1):
        guard.record_outcome(True, residual=False)
    assert guard.base_success is None
    assert all(guard.record_outcome(False, residual=True) is None for _ in range(100))


def test_an_alarm_says_what_was_compared_and_starts_again() -> None:
    guard = Guard(CONFIG)
    for index in range(50):
        guard.record_outcome(index % 2 == 0, residual=False)
    alarms = [alarm for _ in range(50) if (alarm := guard.record_outcome(False, residual=True))]
    assert len(alarms) == 2
    assert (alarms[0].base_success, alarms[0].successes) == (0.5, 0)
    assert 'the base alone in 50%' in str(alarms[0])


def test_the_guard_survives_a_checkpoint() -> None:
    guard, restored = Guard(CONFIG), Guard(CONFIG)
    rng = np.random.default_rng(0)
    for _ in range(60):
        guard.record_outcome(bool(rng.random() < 0.5), residual=bool(rng.random() < 0.5))
    restored.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert restored.state_dict() == guard.state_dict()
    for _ in range(30):
        assert guard.record_outcome(False, True) == restored.record_outcome(False, True)


# --- in the learner


def end(learner: Learner, success: bool, source: Source, **changes: Any) -> None:
    outcome = Success.SUCCESS if success else Success.FAILURE
    changes = {'policy_sequence': learner.sequence, **changes}
    learner.ingest(
        make_transition(LAYOUT, truncated=True, success=outcome, source=source, **changes)
    )


def warm_learner(**overrides: object) -> Learner:
    learner = Learner(small_config(warmup_transitions=40, **overrides), LAYOUT, seed=0)
    for index in range(40):
        end(learner, index % 3 > 0, Source.BASE)
    assert learner.phase is Phase.ONLINE
    return learner


def test_an_alarm_restores_the_networks_and_keeps_the_data() -> None:
    learner = warm_learner()
    before = {name: value.clone() for name, value in learner.rule.state_dict().items()}
    stored = len(learner.rule.memory.replay)
    episodes = 0
    while not learner.rollbacks:
        end(learner, False, Source.RESIDUAL)
        episodes += 1
        assert episodes < 40
        after = learner.rule.state_dict()
    assert learner.rollbacks[0].episode == 40 + episodes
    assert len(learner.rule.memory.replay) == stored + episodes
    # One update of the last transition came after the rollback.
    drift = (after['actor.heads.bias'] - before['actor.heads.bias']).abs().max()
    assert float(drift) <= 2e-4


def test_the_restored_actor_is_the_next_one_of_the_schedule_and_the_robot_takes_it() -> None:
    learner = warm_learner(utd=0.01, publish_interval=10)
    mailbox = ActorMailbox(learner.layout, scheduled=True)
    mailbox.submit(learner.first_message())
    restored = learner.rule.robot_policy()
    with torch.no_grad():
        learner.rule.mean_actor.heads.bias.fill_(3.0)
    outcome = {'truncated': True, 'success': Success.FAILURE, 'source': Source.RESIDUAL}
    while not learner.rollbacks:
        transition = make_transition(LAYOUT, policy_sequence=learner.sequence, **outcome)
        message = learner.ingest(transition)
    while message is None:
        message = learner.ingest(make_transition(LAYOUT))
    header = mailbox.submit(message)
    assert (header.epoch, header.sequence, header.rollbacks) == (1, learner.sequence, 1)
    for _ in range(header.effective_from + 1):
        mailbox.begin_decision()
    assert mailbox.header == header
    assert mailbox.actor is not None
    assert_same_actor(mailbox.actor, restored)


def test_a_rollback_goes_on_with_the_random_numbers() -> None:
    """Else the noise that has led to it would be drawn again."""
    learner = warm_learner()
    before = learner.rule.state_dict()['generator']
    end(learner, True, Source.RESIDUAL)
    drawn = learner.rule.state_dict()['generator']
    assert not torch.equal(drawn, before)
    learner.roll_back('test')
    assert torch.equal(learner.rule.state_dict()['generator'], drawn)


def test_episodes_of_the_actor_that_was_rolled_back_do_not_count_against_the_restored_one() -> None:
    learner = warm_learner()
    while not learner.rollbacks:
        end(learner, False, Source.RESIDUAL)
    revoked, counted = learner.sequence, learner.guard.state_dict()['base']
    for index in range(20):
        start = make_transition(LAYOUT, episode=index, step=0, policy_sequence=revoked)
        learner.ingest(start, 'other')
        end(learner, False, Source.RESIDUAL, policy_sequence=revoked)
        end(learner, True, Source.BASE, policy_sequence=revoked)
        swapped = make_transition(
            LAYOUT, episode=index, policy_sequence=10**6, truncated=True, success=Success.FAILURE
        )
        learner.ingest(swapped, 'other')  # The new actor came in the middle of the episode.
    assert (learner.guard.statistic, learner.episodes.success_rate) == (0.0, None)
    assert learner.guard.state_dict()['base'] == counted + [True] * 20
    restored = Learner(learner.config, LAYOUT, seed=0)
    restored.load_state_dict(json.loads(json.dumps(learner.state_dict())))
    for each in (learner, restored):
        end(each, False, Source.RESIDUAL, policy_sequence=revoked)
        assert each.episodes.success_rate is None
        end(each, False, Source.RESIDUAL, policy_sequence=revoked + 1)
        assert each.guard.statistic > 0.0
        assert each.episodes.success_rate == 0.0
    assert restored.state_dict()['episodes'] == learner.state_dict()['episodes']


def test_takeovers_and_a_share_of_zero_keep_the_guard_out_of_it() -> None:
    helped = warm_learner()
    for _ in range(60):
        learner_transition = {'success': Success.FAILURE, 'source': Source.TAKEOVER}
        helped.ingest(make_transition(LAYOUT, truncated=True, **learner_transition))
    assert helped.rollbacks == []
    off = warm_learner(guard_share=0.0)
    for _ in range(60):
        end(off, False, Source.RESIDUAL)
    assert off.rollbacks == []


def test_a_sabotaged_actor_is_found_and_rolled_back_in_a_real_run() -> None:
    config = load_run('peg_insert')
    resolved = config.resolve()
    policy, robot = resolved.policy, resolved.robot
    controller = config.controller_config(5, explore=True, scheduled=True).build(
        policy, robot.action
    )
    preset = load_preset(
        'dawn',
        {
            'warmup_transitions': 600,
            'utd': 0.02,
            'batch_size': 32,
            'publish_interval': 10,
            'wide_exploration_share': 0.0,
            'residual_candidates': 0,  # Critics that choose would refuse most of what it does.
            'full_bound_cost': 0.0,
            'bound_ramp_transitions': 1500,
        },
    )
    learner = Learner(preset, controller.layout, seed=5)
    run = InProcessRun(make_environment(config.task), controller, learner, first_seed=31_000)
    sabotaged_at = 0

    def sabotage(episode: Episode) -> None:
        nonlocal sabotaged_at
        del episode
        if (
            learner.phase is Phase.ONLINE
            and not sabotaged_at
            and learner.episodes.success_rate is not None
        ):
            sabotaged_at = len(learner.episodes.history)
            for actor in (learner.rule.actor, learner.rule.mean_actor):
                with torch.no_grad():
                    actor.heads.bias[: actor.architecture.outputs] = 3.0

    budget = 600 * 4
    while not learner.rollbacks and run.steps < 12_000:
        budget += 400
        run.run(budget, sabotage)
    controller.queue.close()
    assert sabotaged_at
    (rollback,) = learner.rollbacks
    assert rollback.episode - sabotaged_at <= 40
    assert float(learner.rule.mean_actor.heads.bias.max()) < 3.0
