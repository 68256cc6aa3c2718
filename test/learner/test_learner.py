# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Phases and pacing follow the count of transitions, so that a run can be repeated exactly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from actor_builders import assert_same_actor
from learner_builders import learned_bytes, small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transition_builders import make_layout, make_transition, random_transitions

from residual_rl_ros.learner.episodes import RECENT_EPISODES
from residual_rl_ros.learner.guard import Alarm
from residual_rl_ros.learner.learner import Learner, Phase
from residual_rl_ros.learner.metrics_log import MetricsLog
from residual_rl_ros.learner.updates import MEASURE_EVERY
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.transitions.transition import Source, Success

LAYOUT = make_layout()
STREAM = random_transitions(LAYOUT, 400)
WARMUP, INTERVAL = 10, 5


def make_learner(seed: int = 0, **overrides: Any) -> Learner:
    return Learner(small_config(**overrides), LAYOUT, seed)


FITTED = ('normalizer', 'episode_decisions')
"""Names of what the end of the warm-up decides without a gradient step."""


def test_no_gradient_step_is_taken_during_warm_up() -> None:
    learner = make_learner()
    all_before, before = learned_bytes(learner), learned_bytes(learner, without=FITTED)
    for transition in STREAM[: WARMUP - 1]:
        assert learner.ingest(transition) is None
    assert learner.phase is Phase.WARMUP
    assert learned_bytes(learner) == all_before
    assert learner.ingest(STREAM[WARMUP - 1]) is not None
    assert learner.phase is Phase.ONLINE
    assert learner.updates.online == 0
    assert learned_bytes(learner, without=FITTED) == before
    learner.ingest(STREAM[WARMUP])
    assert learner.updates.online == 1
    assert learned_bytes(learner, without=FITTED) != before


def test_the_warm_up_lasts_as_many_episodes_and_the_ramp_is_measured_in_them() -> None:
    by_episodes: dict[str, Any] = {'bound_ramp_transitions': 0, 'full_bound_cost': 0.0}
    by_episodes |= {'warmup_episodes': 4, 'bound_ramp_episodes': 10.0}
    learner = make_learner(**by_episodes)
    messages = [learner.ingest(t) for t in random_transitions(LAYOUT, 45, episode_decisions=7)]
    # Looked at after 10 transitions and then every 5; four episodes of 7 are over after 28.
    published = [index + 1 for index, message in enumerate(messages) if message is not None]
    assert published == [10, 15, 20, 25, 30, 35, 40, 45]
    headers = [decode_weights(messages[at - 1])[0] for at in published]
    probabilities = [header.exploration.residual_probability for header in headers]
    assert probabilities == [0.0] * 4 + [1.0] * 4
    assert headers[3].next_effective_from == 30
    length = 30 / 5  # Four whole ones, and one in progress.
    scales = [header.exploration.wide_bound_scale for header in headers[4:]]
    assert scales == pytest.approx([n / (10 * length) for n in (0, 5, 10, 15)])
    assert learner.derived() == {'bound_ramp_transitions': 60.0}
    resumed = make_learner(**by_episodes)
    resumed.rule.load_state_dict(learner.rule.state_dict())
    resumed.load_state_dict(learner.state_dict())
    assert resumed.exploration() == learner.exploration()


def fitted_on(learner: Learner) -> int:
    """Return on how many transitions of the stream the normaliser was fitted."""
    normalizer = learner.rule.actor.normalizer
    for count in range(2, learner.transitions + 1):
        seen = np.array([transition.observation for transition in STREAM[:count]])
        if np.allclose(normalizer.mean, seen.mean(0), rtol=1e-5, atol=1e-6):
            np.testing.assert_allclose(normalizer.std, seen.std(0, ddof=1), rtol=1e-5)
            return count
    raise AssertionError(f'the mean {normalizer.mean} is of no number of transitions')


@pytest.mark.parametrize(
    ('refit', 'expected'),
    [(True, {10: 10, 11: 10, 19: 10, 20: 20, 30: 20, 40: 40, 79: 40, 80: 80}), (False, {80: 10})],
)
@pytest.mark.parametrize('learn', [True, False])
def test_the_normaliser_is_fitted_on_the_warm_up_and_at_every_doubling(
    refit: bool, expected: dict[int, int], learn: bool
) -> None:
    learner, fits = make_learner(refit_normalizer=refit), {}
    for transition in STREAM[:80]:
        learner.ingest(transition, learn=learn)
        if learner.transitions in expected:
            fits[learner.transitions] = fitted_on(learner)
    assert fits == expected
    assert torch.equal(learner.rule.mean_actor.normalizer.mean, learner.rule.actor.normalizer.mean)


def test_a_replay_that_is_full_keeps_the_normaliser() -> None:
    learner = make_learner(refit_normalizer=True, replay_capacity=35)
    for transition in STREAM:
        learner.ingest(transition, learn=False)
    assert fitted_on(learner) == 20


def test_a_rollback_restores_the_normaliser_that_the_networks_were_rated_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = make_learner(refit_normalizer=True, guard_share=0.1)
    for transition in STREAM[: 2 * WARMUP - 1]:
        learner.ingest(transition)
    monkeypatch.setattr(learner.judge.guard, 'record_outcome', lambda *_: Alarm(0.6, 10, 0))
    outcome = {'success': Success.FAILURE, 'source': Source.RESIDUAL, 'policy_sequence': 99}
    learner.ingest(make_transition(LAYOUT, truncated=True, **outcome))  # The doubling.
    assert len(learner.judge.rollbacks) == 1
    assert fitted_on(learner) == WARMUP
    assert learner.rule.memory.normalizer_transitions == 2 * WARMUP


@pytest.mark.parametrize(('utd', 'interval'), [(0.25, 8), (0.5, 4), (1.0, 5), (1.5, 4), (3.0, 5)])
def test_updates_are_exactly_the_ratio_times_the_transitions_after_warm_up(
    utd: float, interval: int
) -> None:
    learner = make_learner(utd=utd, publish_interval=interval)
    for count, transition in enumerate(STREAM[:50], start=1):
        learner.ingest(transition)
        assert learner.updates.online == math.floor(utd * max(0, count - WARMUP))
    assert learner.transitions == 50
    assert learner.control_steps == 50 * LAYOUT.decision_steps


def test_a_ratio_that_is_no_binary_fraction_is_paced_exactly_too() -> None:
    learner = make_learner(utd=0.1, publish_interval=100)
    for transition in STREAM[: WARMUP + 10]:
        learner.ingest(transition)
    assert learner.updates.online == 1


def test_a_publication_needs_no_update_of_its_own_transition() -> None:
    learner = make_learner(utd=0.25, publish_interval=INTERVAL)
    for transition in STREAM[: WARMUP + INTERVAL]:
        message = learner.ingest(transition)
    assert message is not None


def test_the_same_transitions_give_the_same_weights_bit_for_bit() -> None:
    learners = [make_learner(seed) for seed in (1, 1, 2)]
    for learner in learners:
        torch.manual_seed(id(learner) % 1000)  # The global generator must not matter.
        for transition in STREAM[:40]:
            learner.ingest(transition)
    assert learned_bytes(learners[0]) == learned_bytes(learners[1])
    assert learned_bytes(learners[0]) != learned_bytes(learners[2])


def test_learning_does_not_consume_the_global_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    learner = make_learner()
    for transition in STREAM[:20]:
        learner.ingest(transition)
    assert torch.equal(torch.rand(4), expected)


def test_messages_come_at_the_end_of_warm_up_and_then_at_every_interval() -> None:
    learner = make_learner()
    header, _ = decode_weights(learner.first_message())
    assert (header.version, header.enabled) == ((1, 0), False)
    published = {}
    for count, transition in enumerate(STREAM[:31], start=1):
        message = learner.ingest(transition)
        if message is not None:
            header, actor = decode_weights(message)
            assert header.enabled
            published[count] = header.version
            assert_same_actor(actor, learner.rule.robot_policy())
    assert published == {10: (1, 1), 15: (1, 2), 20: (1, 3), 25: (1, 4), 30: (1, 5)}


def test_metrics_are_measured_at_a_publication_and_again_after_fifty_transitions() -> None:
    learner = make_learner()
    assert learner.updates.metrics == {}
    measured = []
    for count, transition in enumerate(STREAM[: WARMUP + 70], start=1):
        before = learner.updates.metrics
        learner.ingest(transition)
        if learner.updates.metrics is not before:
            measured.append(count)
    assert measured == [WARMUP + INTERVAL, WARMUP + INTERVAL + MEASURE_EVERY]
    assert all(math.isfinite(value) for value in learner.updates.metrics.values())


def test_metrics_do_not_wait_for_a_certain_publication() -> None:
    learner = make_learner()
    for count, transition in enumerate(STREAM[: WARMUP + 63], start=1):
        learner.ingest(transition, learn=count in (WARMUP + 3, WARMUP + 8, WARMUP + 63))
        if count == WARMUP + 8:
            first = learner.updates.metrics
    assert first
    assert learner.updates.metrics is not first


def test_the_log_of_metrics_skips_those_that_it_has(tmp_path: Path) -> None:
    learner = make_learner()
    log = MetricsLog(tmp_path, pytest.fail)
    for transition in STREAM[: WARMUP + 70]:
        if learner.ingest(transition) is not None:
            log.write(learner, {'basic': 3.0, 'add_on': -1.0, 'total': 2.0})
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    returns = [f'run/return_{name}' for name in ('basic', 'add_on', 'total')]
    assert [events.Scalars(name)[-1].value for name in returns] == [3.0, -1.0, 2.0]
    steps = [event.step for event in events.Scalars('learner/q_base')]
    expected = [WARMUP + INTERVAL, WARMUP + INTERVAL + MEASURE_EVERY]
    assert steps == [LAYOUT.decision_steps * count for count in expected]


def test_the_current_message_can_be_used_at_once() -> None:
    learner = make_learner()
    assert not decode_weights(learner.current_message())[0].enabled
    for transition in STREAM[: WARMUP + 3]:
        learner.ingest(transition)
    header, actor = decode_weights(learner.current_message())
    assert header.enabled
    assert (header.effective_from, header.next_effective_from) == (0, 0)
    assert_same_actor(actor, learner.rule.robot_policy())


# --- episodes


def end(learner: Learner, success: Success, **changes: Any) -> None:
    learner.ingest(make_transition(LAYOUT, truncated=True, success=success, **changes))


def test_the_success_rate_is_that_of_the_latest_fifty_labelled_episodes() -> None:
    learner = make_learner(warmup_transitions=200)
    assert learner.episodes.success_rate is None
    end(learner, Success.UNLABELLED)
    assert learner.episodes.success_rate is None
    end(learner, Success.SUCCESS)
    end(learner, Success.FAILURE)
    end(learner, Success.UNLABELLED)
    assert learner.episodes.success_rate == 0.5
    for _ in range(RECENT_EPISODES - 1):
        end(learner, Success.SUCCESS)
    assert learner.episodes.success_rate == (RECENT_EPISODES - 1) / RECENT_EPISODES
    end(learner, Success.SUCCESS)
    assert learner.episodes.success_rate == 1.0
    assert RECENT_EPISODES == 50


def test_an_episode_that_an_operator_rescued_is_no_success_of_the_actor() -> None:
    learner = make_learner(warmup_transitions=3)
    end(learner, Success.FAILURE, source=Source.BASE)
    end(learner, Success.SUCCESS, source=Source.TAKEOVER)
    assert learner.episodes.success_rate == 0.0, 'nor of the base, which began none of it'
    learner.ingest(make_transition(LAYOUT, source=Source.BASE))
    for episode in range(2 * RECENT_EPISODES):
        learner.ingest(make_transition(LAYOUT, episode=episode, source=Source.RESIDUAL))
        end(learner, Success.SUCCESS, episode=episode, source=Source.TAKEOVER)
    assert learner.episodes.success_rate == 0.0
    assert learner.episodes.takeovers == 1 + 2 * RECENT_EPISODES
    assert learner.episodes.operator_steps == LAYOUT.decision_steps * learner.episodes.takeovers
    assert learner.episodes.history[-1].operator_steps == learner.episodes.operator_steps
    learner.roll_back('test')
    for _ in range(RECENT_EPISODES):
        end(learner, Success.FAILURE, source=Source.RESIDUAL, policy_sequence=10**6)
    assert learner.episodes.success_rate == 0.0


def test_the_history_has_an_entry_for_every_finished_episode() -> None:
    learner = make_learner()
    learner.ingest(make_transition(LAYOUT))
    end(learner, Success.SUCCESS, source=Source.RESIDUAL)
    learner.ingest(make_transition(LAYOUT, terminated=True, source=Source.BASE))
    found = [
        (record.control_steps, record.success, record.residual)
        for record in learner.episodes.history
    ]
    assert found == [(4, True, True), (6, None, False)]


def test_a_burst_is_stored_at_once_and_learned_from_later() -> None:
    learner = make_learner(utd=1.0)
    for transition in STREAM[:WARMUP]:
        learner.ingest(transition)
    for transition in STREAM[WARMUP : WARMUP + 30]:
        assert learner.ingest(transition, learn=False) is None
    assert (learner.transitions, len(learner.rule.memory.replay)) == (WARMUP + 30, WARMUP + 30)
    assert (learner.updates.online, learner.updates.dropped) == (0, 0)
    learner.ingest(STREAM[WARMUP + 30])
    assert learner.updates.online == 31


def test_a_publication_that_fell_into_a_burst_is_made_up_for() -> None:
    """Under steady overload hardly a transition that is learned from lies on the boundary."""
    learner = make_learner()
    published = [
        count
        for count, transition in enumerate(STREAM[:60], start=1)
        if learner.ingest(transition, learn=count % INTERVAL == 2) is not None
    ]
    assert published == [WARMUP, *range(WARMUP + INTERVAL + 2, 60, INTERVAL)]


def test_a_publication_that_is_due_survives_a_checkpoint() -> None:
    learner, restored = make_learner(), make_learner()
    for transition in STREAM[: WARMUP + INTERVAL]:
        learner.ingest(transition, learn=False)
    restored.load_state_dict(learner.state_dict())
    assert learner.ingest(STREAM[WARMUP + INTERVAL]) is not None
    for transition in STREAM[: WARMUP + INTERVAL]:
        restored.rule.observe(transition)
    assert restored.ingest(STREAM[WARMUP + INTERVAL]) is not None


def test_what_is_owed_for_a_burst_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('residual_rl_ros.learner.updates.MAX_OWED_UPDATES', 4)
    learner = make_learner(utd=1.0)
    for transition in STREAM[:WARMUP]:
        learner.ingest(transition)
    for transition in STREAM[WARMUP : WARMUP + 30]:
        learner.ingest(transition, learn=False)
    assert learner.updates.dropped == 26
    learner.ingest(STREAM[WARMUP + 30])
    assert learner.updates.online == 5
    restored = make_learner()
    restored.load_state_dict(learner.state_dict())
    assert restored.updates.dropped == 26
    for transition in STREAM[WARMUP + 31 : WARMUP + 41]:
        learner.ingest(transition)
    assert learner.updates.online == 15


@pytest.mark.parametrize(('share', 'shared'), [(0.5, 4), (0.25, 2)])
def test_a_fixed_share_of_every_batch_is_demonstrations_and_takeovers(
    share: float, shared: int
) -> None:
    learner = Learner(small_config('resfit', demonstration_share=share), LAYOUT, 0)
    kinds = {'robot': 0.0, 'takeover': 1.0, 'demonstration': 2.0}

    def observed(kind: str, source: Source) -> Any:
        marked = np.full(LAYOUT.observation_size, kinds[kind])
        return make_transition(LAYOUT, observation=marked, source=source)

    learner.ingest(observed('robot', Source.BASE))
    assert (learner.rule.memory.sample().observation[:, 0] == 0.0).all(), 'no demonstrations yet'
    learner.ingest(observed('takeover', Source.TAKEOVER))
    learner.rule.memory.add_demonstration(observed('demonstration', Source.TAKEOVER))
    drawn = torch.stack([learner.rule.memory.sample().observation[:, 0] for _ in range(100)])
    assert drawn.shape == (100, 8)
    assert set(drawn[:, : 8 - shared].unique().tolist()) == {0.0, 1.0}
    assert set(drawn[:, 8 - shared :].unique().tolist()) == {1.0, 2.0}
    for _ in range(20):
        learner.ingest(observed('robot', Source.BASE))
    assert learner.updates.metrics['demonstrations'] == 2.0


class InterruptionError(Exception):
    """Raised by a pulse."""


def test_interrupted_pre_training_begins_again_with_the_next_transition() -> None:
    learner = Learner(small_config('resfit', critic_only_updates=20), LAYOUT, 0)
    pulses = 0

    def pulse() -> None:
        nonlocal pulses
        pulses += 1
        if pulses == 8:
            raise InterruptionError

    for transition in STREAM[: WARMUP - 1]:
        learner.ingest(transition, pulse=pulse)
    assert pulses == 0
    with pytest.raises(InterruptionError):
        learner.ingest(STREAM[WARMUP - 1], pulse=pulse)
    assert (learner.updates.pretraining, learner.phase) == (7, Phase.WARMUP)
    header, _ = decode_weights(learner.first_message())
    assert header.next_effective_from == 1, 'a resumed lockstep run would wait for ever'
    assert learner.ingest(STREAM[WARMUP], pulse=pulse) is not None
    assert (learner.updates.pretraining, learner.phase) == (27, Phase.ONLINE)


def test_critics_are_trained_alone_on_offline_data_before_it_is_dropped() -> None:
    learner = Learner(small_config('wsrl', offline_updates=3, critic_only_updates=4), LAYOUT, 0)
    for transition in STREAM[:WARMUP]:
        learner.ingest(transition)
    assert (learner.updates.pretraining, len(learner.rule.memory.replay)) == (7, 0)


def test_an_episode_without_an_end_says_nothing_of_the_next() -> None:
    learner = Learner(small_config(), LAYOUT, seed=0)
    learner.ingest(make_transition(LAYOUT, episode=0, source=Source.TAKEOVER))
    learner.ingest(make_transition(LAYOUT, episode=0, source=Source.RESIDUAL), 'other')
    end = make_transition(
        LAYOUT, episode=1, source=Source.BASE, terminated=True, success=Success.SUCCESS
    )
    learner.ingest(end)
    record = learner.episodes.history[-1]
    assert (record.residual, record.takeover, record.robot) == (False, False, '')
