# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A rollout knows by which actor each decision was drawn, and never mixes robots or episodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transition_builders import make_layout, make_transition, random_transitions

from residual_rl_ros.algorithms.rollout_memory import CAPACITY_ROLLOUTS, RolloutMemory
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.transitions.transition import Source, Transition

LAYOUT = make_layout()


def memory(length: int = 8, sequences: int = 4) -> RolloutMemory:
    """Return a memory that knows the actors of so many sequences of epoch 1."""
    made = RolloutMemory(LAYOUT, length)
    for sequence in range(sequences):
        made.published((1, sequence), {'weight': torch.tensor([float(sequence // 2)])})
    return made


def decision(number: int, **changes: object) -> Transition:
    return make_transition(
        LAYOUT, step=LAYOUT.decision_steps * number, reward=float(number), **changes
    )


def test_rows_come_out_in_order_with_the_residual_and_the_actor_of_each() -> None:
    store = memory()
    for number, sequence in enumerate((0, 1, 1, 2)):
        residual = np.full(4, 0.1 * number)
        store.add(decision(number, policy_sequence=sequence, residual_action=residual), '')
    rollout = store.take()
    assert rollout.batch.reward.tolist() == [0.0, 1.0, 2.0, 3.0]
    torch.testing.assert_close(rollout.residual[:, 0], torch.tensor([0.0, 0.1, 0.2, 0.3]))
    assert rollout.following.tolist() == [1, 2, 3, -1]
    # Sequences 0 and 1 are the same networks, published twice.
    assert rollout.actor.tolist() == [0, 0, 0, 1]
    assert [actor['weight'].item() for actor in rollout.actors] == [0.0, 1.0]
    assert len(store) == 0


def test_what_no_actor_drew_is_left_out_and_cuts_the_sum_of_rewards() -> None:
    store = memory()
    sources = [Source.RESIDUAL, Source.TAKEOVER, Source.RESIDUAL, Source.BASE, Source.RESIDUAL]
    for number, source in enumerate(sources):
        store.add(decision(number, source=source), '')
    store.add(decision(5, policy_sequence=9), '')
    rollout = store.take()
    assert rollout.batch.reward.tolist() == [0.0, 2.0, 4.0]
    assert rollout.following.tolist() == [-1, -1, -1]
    assert (rollout.others, rollout.unknown) == (2, 1)


def test_robots_gaps_and_ends_of_episodes_are_kept_apart() -> None:
    store = memory(16)
    store.add(decision(0), 'left')
    store.add(decision(0), 'right')
    store.add(decision(1), 'left')
    store.add(decision(2), 'right')  # One is missing.
    store.add(decision(2, truncated=True), 'left')
    store.add(decision(0, episode=4), 'left')
    assert store.take().following.tolist() == [2, -1, 4, -1, -1, -1]


def test_a_decision_that_is_taken_later_does_not_continue_the_rollout_before() -> None:
    store = memory()
    store.add(decision(0), '')
    assert store.take().following.tolist() == [-1]
    store.add(decision(1), '')
    store.add(decision(2), '')
    assert store.take().following.tolist() == [1, -1]


def test_when_updates_stay_away_the_newest_rollouts_are_kept_in_order() -> None:
    store, capacity = memory(4), 4 * CAPACITY_ROLLOUTS
    for number in range(capacity + 3):
        store.add(decision(number), '')
    rollout = store.take()
    assert rollout.batch.reward.tolist() == list(range(3, capacity + 3))
    assert rollout.following.tolist() == [*range(1, capacity), -1]


def test_actors_that_no_robot_uses_any_more_are_forgotten() -> None:
    store = memory()
    store.add(decision(0, policy_sequence=2), '')
    store.take()
    for sequence in (1, 2, 3):
        store.add(decision(sequence, policy_sequence=sequence), '')
    assert store.take().unknown == 1


def test_a_memory_with_a_rollout_in_progress_is_restored_as_it_was() -> None:
    store, other = memory(), memory(sequences=0)
    for transition in random_transitions(LAYOUT, 11):
        store.add(transition, 'arm')
    store.phase = {'advantage': torch.arange(3.0)}
    other.restore(store.export())
    for one in (store, other):
        one.add(decision(3, episode=1), 'arm')
    a, b = store.export(), other.export()
    assert a.keys() == b.keys()
    for part in a:
        assert a[part].keys() == b[part].keys()
        assert all(np.array_equal(a[part][name], b[part][name]) for name in a[part])
    first, second = store.take(), other.take()
    assert first.following.tolist() == second.following.tolist()
    assert torch.equal(first.batch.observation, second.batch.observation)
    assert [actor['weight'] for actor in first.actors] == [a['weight'] for a in second.actors]


def test_demonstrations_are_refused() -> None:
    with pytest.raises(ConfigError, match='learns from what its own actor does'):
        memory().add_demonstration(decision(0))


def test_a_rollout_that_no_memory_holds_is_refused_before_it_is_taken() -> None:
    with pytest.raises(ConfigError, match='rollout_length is 1000000000000'):
        RolloutMemory(LAYOUT, 10**12)
