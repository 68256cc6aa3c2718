# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A learner is only as good as its memory: nothing lost early, nothing stale, nothing swapped."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transition_builders import make_layout, make_transition, random_transitions

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.transitions.batch import Batch
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.replay_buffer import ReplayBuffer
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Source

LAYOUT = make_layout()


def marked(number: int) -> np.ndarray:
    return np.full(3, float(number))


def filled(capacity: int, count: int) -> ReplayBuffer:
    """Return a buffer after that many transitions, whose observations are their numbers."""
    buffer = ReplayBuffer(LAYOUT, capacity)
    for number in range(count):
        buffer.add(make_transition(LAYOUT, observation=marked(number)))
    return buffer


def stored(buffer: ReplayBuffer) -> set[int]:
    return {int(row[0]) for row in buffer.observations()}


@given(st.integers(1, 12), st.integers(0, 40))
def test_the_newest_transitions_are_kept_and_the_oldest_overwritten(
    capacity: int, count: int
) -> None:
    buffer = filled(capacity, count)
    assert len(buffer) == min(capacity, count)
    assert buffer.capacity == capacity
    assert stored(buffer) == set(range(max(0, count - capacity), count))


@pytest.mark.parametrize(('capacity', 'count'), [(20, 7), (7, 7), (7, 12)])
def test_sampling_covers_every_row_uniformly_and_no_other(capacity: int, count: int) -> None:
    buffer = filled(capacity, count)
    batch = buffer.sample(7000, np.random.default_rng(0))
    numbers, counts = np.unique(batch.observation[:, 0].numpy(), return_counts=True)
    assert set(numbers.astype(int)) == stored(buffer)
    assert counts.min() > 850
    assert counts.max() < 1150


def test_a_row_comes_back_whole() -> None:
    stream = random_transitions(LAYOUT, 30)
    buffer = ReplayBuffer(LAYOUT, 30)
    for transition in stream:
        buffer.add(transition)
    batch = buffer.sample(200, np.random.default_rng(0))
    by_observation = {t.observation.astype(np.float32).tobytes(): t for t in stream}
    for row in range(200):
        source = by_observation[batch.observation[row].numpy().tobytes()]
        for name in ('base_action', 'executed_action', 'next_observation', 'next_base_action'):
            expected = getattr(source, name).astype(np.float32)
            np.testing.assert_array_equal(getattr(batch, name)[row], expected, err_msg=name)
        assert batch.reward[row] == np.float32(source.reward)


@pytest.mark.parametrize(
    ('terminated', 'truncated', 'bootstrap'),
    [(False, False, 1.0), (False, True, 1.0), (True, False, 0.0), (True, True, 0.0)],
)
def test_truncations_bootstrap_and_terminations_do_not(
    terminated: bool, truncated: bool, bootstrap: float
) -> None:
    buffer = ReplayBuffer(LAYOUT, 2)
    buffer.add(make_transition(LAYOUT, terminated=terminated, truncated=truncated))
    assert buffer.sample(1, np.random.default_rng(0)).bootstrap.tolist() == [bootstrap]


def test_a_batch_has_the_shapes_of_the_layout() -> None:
    batch = filled(5, 5).sample(4, np.random.default_rng(0))
    n, km = LAYOUT.observation_size, LAYOUT.decision_size
    assert batch.observation.shape == batch.next_observation.shape == (4, n)
    assert batch.base_action.shape == batch.executed_action.shape == (4, km)
    assert batch.reward.shape == batch.bootstrap.shape == (4,)
    assert batch.observation.dtype == torch.float32


def test_a_batch_has_what_the_base_policy_tells_now_and_after_n_steps() -> None:
    layout = make_layout(prior='gaussian', proposals=2)
    one = ReplayBuffer(layout, 2)
    first, second = (
        make_transition(layout, step=step, prior=np.full(8, step), next_prior=np.full(8, step + 1))
        for step in (0, 2)
    )
    one.add(first)
    one.add(second)
    whole = ReplayBuffer(layout, 2)
    rows = [layout.encode(each) for each in (first, second)]
    whole.extend(TransitionTable(layout, np.array(rows)))
    assert same_batches(one, whole)
    batch = one.sample(64, np.random.default_rng(0), n_step=2)
    assert batch.prior.shape == (64, 8)
    assert batch.next_proposals.shape == (64, 4)
    pairs = torch.stack([batch.prior[:, 0], batch.next_prior[:, 0]], dim=1)
    assert {tuple(pair) for pair in pairs.tolist()} == {(0.0, 3.0), (2.0, 3.0)}


def test_a_batch_does_not_change_when_its_rows_are_overwritten() -> None:
    buffer = filled(3, 3)
    batch = buffer.sample(8, np.random.default_rng(0))
    before = batch.observation.clone()
    for number in range(100, 103):
        buffer.add(make_transition(LAYOUT, observation=marked(number)))
    assert torch.equal(batch.observation, before)


def same_batches(one: ReplayBuffer, other: ReplayBuffer) -> bool:
    batches = [buffer.sample(50, np.random.default_rng(3), 0.9, 3) for buffer in (one, other)]
    return all(
        torch.equal(getattr(batches[0], field.name), getattr(batches[1], field.name))
        for field in fields(Batch)
        if isinstance(getattr(batches[0], field.name), torch.Tensor)
    )


@given(st.integers(1, 10), st.integers(1, 25), st.integers(0, 12))
def test_a_restored_buffer_goes_on_like_the_exported_one(
    capacity: int, count: int, more: int
) -> None:
    original = filled(capacity, count)
    restored = ReplayBuffer(LAYOUT, capacity)
    restored.restore({key: value.copy() for key, value in original.export().items()})
    assert len(restored) == len(original)
    assert same_batches(restored, original)
    for buffer in (original, restored):
        for number in range(100, 100 + more):
            buffer.add(make_transition(LAYOUT, observation=marked(number)))
    assert same_batches(restored, original)


@given(
    capacity=st.integers(1, 12),
    count=st.integers(0, 30),
    kept=st.integers(1, 15),
    later=st.integers(0, 15),
)
def test_a_buffer_cut_to_its_newest_transitions_is_one_that_saw_no_others(
    capacity: int, count: int, kept: int, later: int
) -> None:
    stream = random_transitions(LAYOUT, count + later)
    cut, fresh = ReplayBuffer(LAYOUT, capacity), ReplayBuffer(LAYOUT, capacity)
    for transition in stream[:count]:
        cut.add(transition)
    cut.keep_newest(kept)
    for transition in stream[max(0, count - min(kept, capacity)) : count]:
        fresh.add(transition)
    for transition in stream[count:]:
        cut.add(transition)
        fresh.add(transition)
    assert len(cut) == len(fresh)
    if len(cut):
        assert same_batches(cut, fresh)


@pytest.mark.parametrize(
    ('layout', 'capacity'), [(make_layout(decision_steps=3), 10), (LAYOUT, 3)], ids=['rows', 'size']
)
def test_contents_that_do_not_fit_are_refused(layout: TransitionLayout, capacity: int) -> None:
    contents = filled(5, 5).export()
    with pytest.raises(ResidualRLError, match=r'stored replay has shape'):
        ReplayBuffer(layout, capacity).restore(contents)


def test_an_empty_buffer_cannot_be_sampled() -> None:
    with pytest.raises(ResidualRLError, match='empty'):
        ReplayBuffer(LAYOUT, 3).sample(1, np.random.default_rng(0))


def test_a_capacity_below_one_is_refused() -> None:
    with pytest.raises(ResidualRLError, match=r'replay capacity is 0, expected >= 1'):
        ReplayBuffer(LAYOUT, 0)


def test_a_million_transitions_take_hardly_more_than_their_raw_numbers() -> None:
    names = tuple(f'x{i}' for i in range(40)), tuple(f'a{i}' for i in range(7))
    layout = TransitionLayout(*names, 1, (-1.0,) * 7, (1.0,) * 7, (0.1,) * 7)
    replay = ReplayBuffer(layout, 1_000_000)  # Untouched pages cost nothing here.
    raw = 4 * 1_000_000 * (40 + 7 + 7 + 1 + 1 + 40 + 7)
    assert replay.nbytes <= 1.02 * raw


def executed_range(replay: ReplayBuffer) -> list[list[float]]:
    return [torch.unique(value).tolist() for value in replay.executed_range()]


def test_the_range_of_what_was_executed_holds_what_was_overwritten() -> None:
    one, whole = ReplayBuffer(LAYOUT, 2), ReplayBuffer(LAYOUT, 2)
    assert executed_range(one) == [[np.inf], [-np.inf]]
    transitions = [
        make_transition(LAYOUT, executed_action=np.full(LAYOUT.decision_size, size))
        for size in (3.0, -3.0, 2.0)  # The third takes the place of the first.
    ]
    for transition in transitions:
        one.add(transition)
    whole.extend(TransitionTable(LAYOUT, np.array([LAYOUT.encode(each) for each in transitions])))
    restored = ReplayBuffer(LAYOUT, 2)
    restored.restore(one.export())
    for replay in (one, whole, restored):
        assert executed_range(replay) == [[-3.0], [3.0]]
    one.clear()
    restored.restore(one.export())
    for replay in (one, restored):
        assert executed_range(replay) == [[np.inf], [-np.inf]]


def test_an_n_step_sum_ends_where_an_operator_takes_over() -> None:
    replay, k = ReplayBuffer(LAYOUT, 10), LAYOUT.decision_steps
    ours, his = Source.RESIDUAL, Source.TAKEOVER
    for step, source in enumerate((ours, ours, his, his, ours)):
        last = step == 4
        add = {'step': k * step, 'source': source, 'reward': float(last), 'terminated': last}
        replay.add(make_transition(LAYOUT, **add))
    batch = replay.rows(np.arange(5), gamma=0.5, n_step=3)
    # The second decision is followed by his: its value is that of where he takes over.
    assert batch.reward.tolist() == [0.0, 0.0, 0.25, 0.5, 1.0]
    assert batch.bootstrap.tolist() == [0.25, 0.5, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ('name', 'value'), [('following', 99), ('source', 9), ('end', -1), ('next', 8), ('open', 99)]
)
def test_contents_that_point_nowhere_are_refused(name: str, value: int) -> None:
    contents = {key: values.copy() for key, values in filled(10, 5).export().items()}
    if name == 'open':
        contents[name] = np.full((1, 4), value)
    else:
        contents[name][0] = value
    with pytest.raises(ResidualRLError, match=f'{name} is not within'):
        ReplayBuffer(LAYOUT, 10).restore(contents)
