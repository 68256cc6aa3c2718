# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the learner tells its guard of episodes, and what it does on an alarm."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from actor_builders import assert_same_actor
from learner_builders import small_config
from transition_builders import make_layout, make_transition

from residual_rl_ros.config.preset import load_preset
from residual_rl_ros.config.run import load_run
from residual_rl_ros.evaluation.episode import Episode
from residual_rl_ros.learner.guard import (
    DOUBT,
    TRIAL_SHARE,
    GuardConfig,
)
from residual_rl_ros.learner.learner import Learner, Phase
from residual_rl_ros.residual_policy.mailbox import ActorMailbox
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.tasks.hosting import make_environment
from residual_rl_ros.training.in_process import InProcessRun
from residual_rl_ros.transitions.transition import Source, Success

CONFIG = GuardConfig(drop=0.3, false_alarm_episodes=100_000.0)
LAYOUT = make_layout()


def evidence(learner: Learner) -> float:
    """Return how much the guard holds against the residual."""
    return float(learner.judge.guard.state_dict()['trial']['evidence'])


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
    while not learner.judge.rollbacks:
        end(learner, False, Source.RESIDUAL)
        episodes += 1
        assert episodes < 40
        after = learner.rule.state_dict()
    assert learner.judge.rollbacks[0].episode == 40 + episodes
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
    while not learner.judge.rollbacks:
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
    while not learner.judge.rollbacks:
        end(learner, False, Source.RESIDUAL)
    revoked, counted = learner.sequence, learner.judge.guard.state_dict()['base']
    for index in range(20):
        start = make_transition(LAYOUT, episode=index, step=0, policy_sequence=revoked)
        learner.ingest(start, 'other')
        end(learner, False, Source.RESIDUAL, policy_sequence=revoked)
        end(learner, True, Source.BASE, policy_sequence=revoked)
        swapped = make_transition(
            LAYOUT, episode=index, policy_sequence=10**6, truncated=True, success=Success.FAILURE
        )
        learner.ingest(swapped, 'other')  # The new actor came in the middle of the episode.
    assert (learner.judge.guard.statistic, learner.episodes.success_rate) == (0.0, None)
    assert learner.judge.guard.state_dict()['base'] == counted + [True] * 20
    restored = Learner(learner.config, LAYOUT, seed=0)
    restored.load_state_dict(json.loads(json.dumps(learner.state_dict())))
    for each in (learner, restored):
        end(each, False, Source.RESIDUAL, policy_sequence=revoked)
        assert each.episodes.success_rate is None
        end(each, False, Source.RESIDUAL, policy_sequence=revoked + 1)
        assert each.judge.guard.statistic > 0.0
        assert each.episodes.success_rate == 0.0
    assert restored.state_dict()['episodes'] == learner.state_dict()['episodes']


def test_a_share_of_zero_turns_the_guard_off() -> None:
    off = warm_learner(utd=0.02, guard_share=0.0)
    for _ in range(60):
        end(off, False, Source.RESIDUAL)
    assert off.judge.rollbacks == []


def taken_over(learner: Learner, first: Source, episode: int) -> None:
    """Let an episode begin with one source, and an operator end it with a success."""
    start = make_transition(LAYOUT, episode=episode, source=first, policy_sequence=learner.sequence)
    learner.ingest(start)
    end(learner, True, Source.TAKEOVER, episode=episode)


def test_an_episode_that_an_operator_took_over_is_no_success_of_the_residual() -> None:
    learner, episode = warm_learner(utd=0.02), 0
    while not learner.judge.rollbacks:
        taken_over(learner, Source.RESIDUAL, episode)
        episode += 1
        assert episode < 40
    assert 'succeeded in 0 of' in learner.judge.rollbacks[0].reason


def test_nor_of_the_base_and_one_that_he_began_is_nobodys() -> None:
    learner = warm_learner(utd=0.02)
    before = learner.judge.guard.state_dict()['base']
    taken_over(learner, Source.BASE, 0)
    assert learner.judge.guard.state_dict()['base'] == [*before, False]
    untouched = learner.judge.guard.state_dict()
    for episode in range(1, 60):
        taken_over(learner, Source.TAKEOVER, episode)
    assert learner.judge.guard.state_dict() == untouched


def success_only_learner(**overrides: object) -> Learner:
    """Return a learner after a warm-up in which nobody labelled the failures, a third."""
    learner = Learner(small_config(warmup_transitions=60, **overrides), LAYOUT, seed=0)
    for index in range(60):
        time_out(learner, Source.BASE) if index % 3 == 0 else end(learner, True, Source.BASE)
    assert learner.phase is Phase.ONLINE
    return learner


def time_out(learner: Learner, source: Source) -> None:
    """Let a time limit end an episode without a label."""
    label = Success.UNLABELLED
    learner.ingest(
        make_transition(
            LAYOUT,
            truncated=True,
            success=label,
            source=source,
            policy_sequence=learner.sequence,
        )
    )


@pytest.mark.parametrize('rule', ['auto', 'failure', 'ignored'])
def test_where_only_success_is_labelled_an_end_by_time_limit_is_a_failure(rule: str) -> None:
    learner = success_only_learner(utd=0.02, guard_unlabelled=rule)
    base = learner.judge.guard.base_success
    assert base == pytest.approx(1.0 if rule == 'ignored' else 2.0 / 3.0, abs=0.02)
    for _ in range(40):
        time_out(learner, Source.RESIDUAL)
    assert bool(learner.judge.rollbacks) == (rule != 'ignored')


def test_where_failures_are_labelled_an_end_without_a_label_stays_out() -> None:
    learner = warm_learner(utd=0.02)
    known = learner.judge.guard.state_dict()
    for _ in range(60):
        time_out(learner, Source.RESIDUAL)
    assert learner.judge.guard.state_dict() == known
    told = warm_learner(utd=0.02, guard_unlabelled='failure')
    for _ in range(40):
        time_out(told, Source.RESIDUAL)
    assert told.judge.rollbacks


def unlabelled_learner(**overrides: object) -> Learner:
    """Return a learner after a warm-up whose task tells returns alone, from 0 to 9."""
    config = small_config(warmup_transitions=40, utd=0.02, **overrides)
    learner = Learner(config, LAYOUT, seed=0)
    for index in range(40):
        earn(learner, index % 10, Source.BASE)
    assert learner.phase is Phase.ONLINE
    return learner


def earn(learner: Learner, value: float, source: Source, **changes: Any) -> None:
    """Let an episode of two decisions end without a label, with a return."""
    episode = len(learner.episodes.history)
    for reward, truncated in ((value - 1.0, False), (1.0, True)):
        changes = {'policy_sequence': learner.sequence, 'source': source, **changes}
        learner.ingest(
            make_transition(
                LAYOUT,
                episode=episode,
                reward=reward,
                truncated=truncated,
                success=Success.UNLABELLED,
                **changes,
            )
        )


def test_where_nothing_is_labelled_returns_are_watched_and_a_fall_is_rolled_back() -> None:
    learner = unlabelled_learner()
    assert learner.judge.watches == learner.state_dict()['guard_watches'] == 'return'
    assert [record.basic_return for record in learner.episodes.history] == [*range(10)] * 4
    for index in range(60):
        earn(learner, index % 10, Source.RESIDUAL)
    assert learner.judge.rollbacks == []
    while not learner.judge.rollbacks:
        earn(learner, -3.0, Source.RESIDUAL)
        assert len(learner.episodes.history) < 160
    assert 'had a mean return of -3 (grade 0.00) in the last' in learner.judge.rollbacks[0].reason
    assert learner.episodes.success_rate is None


def test_returns_that_rise_confirm_networks() -> None:
    learner = unlabelled_learner()
    for _ in range(60):
        earn(learner, 9.5, Source.RESIDUAL)
    assert learner.judge.best.confirmed


@pytest.mark.parametrize(
    ('overrides', 'watched'),
    [
        ({'guard_unlabelled': 'ignored'}, 'success'),
        ({'guard_unlabelled': 'failure'}, 'success'),
        ({'guard_share': 0.0}, 'nothing'),
    ],
)
def test_returns_are_not_watched_where_the_preset_says_otherwise(
    overrides: dict[str, object], watched: str
) -> None:
    learner = unlabelled_learner(**overrides)
    assert learner.judge.watches == watched
    assert learner.judge.guard.state_dict().get('base_returns') is None


def test_the_first_label_ends_the_watch_of_returns() -> None:
    learner = unlabelled_learner()
    for _ in range(60):
        earn(learner, 9.5, Source.RESIDUAL)
    end(learner, True, Source.RESIDUAL)
    assert learner.judge.watches == 'success'
    assert not learner.judge.best.confirmed
    assert learner.judge.guard.base_success is None


def test_an_operators_help_is_the_worst_return_and_his_own_episode_none() -> None:
    learner = unlabelled_learner()
    known = learner.judge.guard.base_outcomes
    start = {'episode': 900, 'policy_sequence': learner.sequence, 'reward': 99.0}
    learner.ingest(make_transition(LAYOUT, source=Source.BASE, **start))
    unlabelled = {'truncated': True, 'success': Success.UNLABELLED, **start}
    learner.ingest(make_transition(LAYOUT, source=Source.TAKEOVER, **unlabelled))
    assert learner.judge.guard.base_outcomes == [*known, 0.0][-100:]
    learner.ingest(make_transition(LAYOUT, source=Source.TAKEOVER, **unlabelled))
    assert learner.judge.guard.base_outcomes == [*known, 0.0][-100:]


def test_an_add_on_of_the_transitions_makes_no_doubt() -> None:
    layout = make_layout(customisable=True)
    learner = Learner(small_config(warmup_transitions=40, utd=0.02), layout, seed=0)
    for index in range(120):
        source = Source.BASE if index < 40 else Source.RESIDUAL
        learner.ingest(
            make_transition(
                layout,
                episode=index,
                reward=index % 10,
                truncated=True,
                success=Success.UNLABELLED,
                source=source,
                policy_sequence=learner.sequence,
                add_on=np.array([-1000.0 * (source is Source.RESIDUAL), 1.0]),
            )
        )
    assert learner.judge.guard.statistic < DOUBT
    assert learner.judge.rollbacks == []


def test_an_episode_counts_with_the_share_of_the_message_that_it_began_under() -> None:
    learner = warm_learner(utd=0.02)
    while not learner.judge.guard.in_trial:
        before = learner.sequence
        end(learner, False, Source.RESIDUAL)
    while learner.sequence == before:
        learner.ingest(make_transition(LAYOUT, episode=7, policy_sequence=before))
    assert decode_weights(learner.current_message())[0].exploration.base_only_share == 0.0
    assert decode_weights(learner.first_message())[0].exploration.base_only_share == TRIAL_SHARE
    gains = []
    for sequence in (before, learner.sequence):
        resumed = Learner(learner.config, LAYOUT, seed=0)
        resumed.load_state_dict(json.loads(json.dumps(learner.state_dict())))
        assert resumed.state_dict() == learner.state_dict()
        known = evidence(resumed)
        end(resumed, True, Source.BASE, policy_sequence=sequence)
        gains.append(evidence(resumed) - known)
    assert gains[0] > 5.0 * gains[1] > 0.0  # Rare base episodes say more.


def test_random_episodes_count_neither_for_nor_against_the_actor() -> None:
    learner = warm_learner()
    end(learner, True, Source.RESIDUAL)
    judged, rate = learner.judge.state_dict(), learner.episodes.success_rate
    for _ in range(60):
        end(learner, False, Source.RANDOM)
    assert learner.judge.state_dict() == judged
    assert learner.episodes.success_rate == rate
    latest = learner.episodes.history[-1]
    assert latest.random
    assert not any((latest.rates_base, latest.rates_residual, latest.acts))
    resumed = Learner(learner.config, LAYOUT, seed=0)
    resumed.load_state_dict(json.loads(json.dumps(learner.state_dict())))
    assert resumed.episodes.history == learner.episodes.history


def test_a_sabotaged_actor_is_found_and_rolled_back_in_a_real_run() -> None:
    config = load_run('peg_insert')
    resolved = config.resolve()
    policy, robot = resolved.policy, resolved.robot
    controller = config.controller_config(5, explore=True, scheduled=True).build(
        policy, robot.action
    )
    preset = load_preset(
        'best_of_n',
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
    while not learner.judge.rollbacks and run.steps < 20_000:
        budget += 400
        run.run(budget, sabotage)
    controller.queue.close()
    assert sabotaged_at
    (rollback,) = learner.judge.rollbacks
    since = learner.episodes.history[sabotaged_at : rollback.episode]
    assert sum(episode.residual for episode in since) <= 40
    assert float(learner.rule.mean_actor.heads.bias.max()) < 3.0
