# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A base action from the wrong step of the wrong chunk looks plausible and crashes the robot."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from time import sleep
from typing import Any

import numpy as np
import pytest
from base_policy_builders import LinearPolicy, settle
from hypothesis import given
from hypothesis import strategies as st
from robot_builders import make_metadata

from residual_rl_ros.base_policy.chunk_queue import ChunkQueue
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import BasePolicyError, ChunkLateError

DECISIONS = 12


class RecordingPolicy:
    """Returns chunks that say where they come from: [newest, oldest observation, row, noise]."""

    stochastic = True

    def __init__(self, metadata: BasePolicyMetadata) -> None:
        self.metadata = metadata
        self.noises: list[np.ndarray] = []

    @property
    def noise_shape(self) -> tuple[int, int]:
        return self.metadata.horizon, 4

    def infer(self, window: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        assert noise is not None
        assert window.shape == (self.metadata.n_obs_steps, 1)
        self.noises.append(noise)
        rows = np.arange(self.metadata.horizon)
        columns = np.broadcast_arrays(window[-1, 0], window[0, 0], rows, noise[:, 0])
        return np.stack(columns, axis=1).astype(np.float32)

    def plan(
        self, window: np.ndarray, noises: np.ndarray | None = None, context: Any = None
    ) -> np.ndarray:
        assert noises is not None
        assert len(noises) == 1
        return self.infer(window, noises[0])


@dataclass(frozen=True)
class Case:
    """Sizes of a queue that is allowed."""

    n_obs_steps: int
    horizon: int
    exec_start: int
    exec_steps: int
    k: int
    prefetch: int

    def build(self) -> tuple[ChunkQueue, RecordingPolicy]:
        metadata = make_metadata(
            observation_names=('time',),
            action_names=('newest', 'oldest', 'row', 'noise'),
            action_min=(0.0,) * 4,
            action_max=(1.0,) * 4,
            n_obs_steps=self.n_obs_steps,
            horizon=self.horizon,
            exec_start=self.exec_start,
            exec_steps=self.exec_steps,
        )
        policy = RecordingPolicy(metadata)
        return ChunkQueue(policy, self.k, self.prefetch), policy

    def run(self, queue: ChunkQueue, episode: int = 0) -> list[np.ndarray]:
        """Play an episode whose observation is the control step; return each decision's actions."""
        queue.reset(np.random.default_rng(episode))
        taken = []
        for decision in range(DECISIONS):
            queue.push_observation([decision * self.k])
            taken.append(queue.take().actions)
            for step in range(1, self.k):
                queue.push_observation([decision * self.k + step])
        return taken


@st.composite
def cases(draw: st.DrawFn) -> Case:
    k = draw(st.integers(1, 4))
    prefetch = draw(st.integers(0, 5))
    exec_steps = k + k * -(-prefetch // k) + draw(st.integers(0, 6))
    exec_start = draw(st.integers(0, 3))
    horizon = exec_start + exec_steps + draw(st.integers(0, 3))
    return Case(draw(st.integers(1, 3)), horizon, exec_start, exec_steps, k, prefetch)


@given(cases())
def test_every_action_is_the_row_for_its_step_of_the_chunk_of_its_request(case: Case) -> None:
    queue, policy = case.build()
    rng = np.random.default_rng(0)
    noises = [rng.standard_normal((case.horizon, 4), dtype=np.float32) for _ in range(DECISIONS)]
    origins: list[int] = []
    for decision, actions in enumerate(case.run(queue)):
        now = decision * case.k
        assert actions.shape == (case.k, 4)
        origin = int(actions[0, 0])
        if not origins or origin != origins[-1]:
            origins.append(origin)
        rows = case.exec_start + now - origin + np.arange(case.k)
        assert origin <= now
        assert rows[-1] < case.exec_start + case.exec_steps
        oldest = max(0, origin - case.n_obs_steps + 1)
        expected = np.empty((case.k, 4), dtype=np.float32)
        expected[:, 0] = origin
        expected[:, 1] = oldest
        expected[:, 2] = rows
        expected[:, 3] = noises[len(origins) - 1][rows, 0]
        np.testing.assert_array_equal(actions, expected)
    queue.close()
    assert origins == sorted(origins)
    assert len(origins) <= len(policy.noises) <= len(origins) + 1


@given(cases())
def test_a_chunk_is_used_until_it_cannot_hold_another_decision(case: Case) -> None:
    queue, _ = case.build()
    taken = case.run(queue)
    queue.close()
    for before, after in itertools.pairwise(taken):
        if after[0, 0] != before[0, 0]:
            left = case.exec_start + case.exec_steps - 1 - before[-1, 2]
            assert left < case.k


@given(cases())
def test_without_prefetch_every_chunk_starts_at_the_newest_observation(case: Case) -> None:
    queue, _ = Case(**{**vars(case), 'prefetch': 0}).build()
    taken = case.run(queue)
    queue.close()
    per_chunk = case.exec_steps // case.k
    for decision, actions in enumerate(taken):
        assert actions[0, 0] == decision // per_chunk * per_chunk * case.k


@pytest.mark.parametrize(
    'case',
    [
        Case(n_obs_steps=2, horizon=16, exec_start=1, exec_steps=8, k=4, prefetch=4),
        Case(n_obs_steps=1, horizon=8, exec_start=0, exec_steps=7, k=3, prefetch=1),
        Case(n_obs_steps=1, horizon=4, exec_start=0, exec_steps=4, k=1, prefetch=2),
    ],
    ids=['peg_insert', 'exec_steps is no multiple of k', 'k = 1'],
)
def test_a_prefetched_chunk_is_requested_that_many_steps_before_its_first_use(case: Case) -> None:
    queue, _ = case.build()
    taken = case.run(queue)
    queue.close()
    origins = [actions[0, 0] for actions in taken]
    for decision in range(1, DECISIONS):
        if origins[decision] != origins[decision - 1]:
            assert decision * case.k - origins[decision] >= case.prefetch


@given(cases(), st.integers(1, DECISIONS - 1))
def test_a_reset_forgets_chunks_history_and_the_noise_of_the_episode_before(
    case: Case, decisions: int
) -> None:
    fresh, _ = case.build()
    expected = case.run(fresh, episode=1)
    fresh.close()
    queue, _ = case.build()
    queue.reset(np.random.default_rng(0))
    for _ in range(decisions):
        queue.push_observation([500])
        queue.take()
    found = case.run(queue, episode=1)
    queue.close()
    np.testing.assert_array_equal(found, expected)


def test_history_is_padded_by_the_first_observation() -> None:
    case = Case(n_obs_steps=3, horizon=1, exec_start=0, exec_steps=1, k=1, prefetch=0)
    queue, _ = case.build()
    queue.reset(np.random.default_rng(0))
    oldest = []
    for time in (7.0, 8.0, 9.0, 10.0):
        queue.push_observation([time])
        oldest.append(queue.take().actions[0, 1])
    queue.close()
    assert oldest == [7.0, 7.0, 7.0, 8.0]


@pytest.fixture
def slow() -> LinearPolicy:
    """Return a policy that blocks until its gate is set."""
    policy = LinearPolicy(make_metadata(horizon=2, exec_start=0, exec_steps=2))
    policy.gate.clear()
    return policy


def test_a_late_chunk_raises_and_takes_nothing(slow: LinearPolicy) -> None:
    queue = ChunkQueue(slow, decision_steps=1)
    queue.reset(np.random.default_rng(0))
    first = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    queue.push_observation(first)
    for _ in range(3):
        with pytest.raises(ChunkLateError):
            queue.take(timeout_s=0.0)
        queue.push_observation(first + 10.0)
    slow.gate.set()
    expected = slow.infer(first[None])
    np.testing.assert_array_equal(queue.take().actions, expected[:1])
    np.testing.assert_array_equal(queue.take().actions, expected[1:])
    queue.close()
    assert slow.calls == 2


def test_an_in_flight_result_of_an_older_episode_is_dropped(slow: LinearPolicy) -> None:
    queue = ChunkQueue(slow, decision_steps=1)
    queue.reset(np.random.default_rng(0))
    queue.push_observation([9.0, 9.0, 9.0])
    with pytest.raises(ChunkLateError):
        queue.take(timeout_s=0.0)
    queue.reset(np.random.default_rng(1))
    newer = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    queue.push_observation(newer)
    with pytest.raises(ChunkLateError):
        queue.take(timeout_s=0.0)
    slow.gate.set()
    expected = slow.infer(newer[None])
    np.testing.assert_array_equal(queue.take().actions, expected[:1])
    np.testing.assert_array_equal(queue.take().actions, expected[1:])
    queue.close()


def test_a_prefetched_chunk_is_computed_while_the_running_one_is_used() -> None:
    policy = LinearPolicy(make_metadata(horizon=4, exec_start=0, exec_steps=4))
    queue = ChunkQueue(policy, decision_steps=1, prefetch_steps=2)
    queue.reset(np.random.default_rng(0))
    for _ in range(2):
        queue.push_observation(np.zeros(3))
        queue.take()
    policy.gate.clear()
    for _ in range(2):
        queue.push_observation(np.zeros(3))
        queue.take(timeout_s=0.0)
    with pytest.raises(ChunkLateError):
        queue.take(timeout_s=0.0)
    policy.gate.set()
    settle(queue)
    assert queue.take(timeout_s=0.0).actions.shape == (1, 2)
    queue.close()


def test_a_failing_inference_reaches_the_caller() -> None:
    class Broken(LinearPolicy):
        def infer(self, window: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
            raise BasePolicyError('returned nan')

    queue = ChunkQueue(Broken(), decision_steps=1)
    queue.reset(np.random.default_rng(0))
    queue.push_observation(np.zeros(3))
    with pytest.raises(BasePolicyError, match='returned nan'):
        queue.take()
    queue.close()


@pytest.mark.parametrize(('k', 'prefetch'), [(5, 0), (4, 1), (1, 4)])
def test_chunks_too_short_for_a_decision_and_the_prefetch_are_refused(
    k: int, prefetch: int
) -> None:
    with pytest.raises(
        BasePolicyError,
        match=rf'exec_steps 4 .* prefetch_steps {prefetch} \+ decision_steps {k}; lower one',
    ):
        ChunkQueue(LinearPolicy(), k, prefetch)


def test_a_negative_prefetch_is_refused() -> None:
    with pytest.raises(BasePolicyError, match=r'prefetch_steps is -2, expected >= 0'):
        ChunkQueue(LinearPolicy(), 1, -2)


def test_a_chunk_before_the_first_observation_is_refused() -> None:
    queue = ChunkQueue(LinearPolicy())
    queue.reset(np.random.default_rng(0))
    with pytest.raises(BasePolicyError, match='before the first observation'):
        queue.take()
    queue.close()


@pytest.mark.parametrize('stochastic', [False, True])
def test_a_warm_up_runs_the_policy_once_and_leaves_no_trace(stochastic: bool) -> None:
    policy = LinearPolicy(stochastic=stochastic)
    queue = ChunkQueue(policy)
    queue.warm_up()
    assert policy.calls == 1
    queue.reset(np.random.default_rng(0))
    queue.push_observation(np.ones(3))
    found = queue.take().actions
    queue.close()
    noise = np.random.default_rng(0).standard_normal((6, 2), dtype=np.float32)
    expected = policy.infer(np.ones((1, 3), dtype=np.float32), noise if stochastic else None)
    np.testing.assert_array_equal(found, expected[1:2])


class Planner:
    """Plans to follow a curve from where it was asked, each time a little beside the last plan."""

    stochastic = False

    def __init__(self, horizon: int, exec_steps: int) -> None:
        self.metadata = make_metadata(
            observation_names=('time',),
            action_names=('x',),
            action_min=(-1.0,),
            action_max=(1.0,),
            horizon=horizon,
            exec_start=0,
            exec_steps=exec_steps,
        )
        self.calls = 0

    @property
    def noise_shape(self) -> tuple[int, int]:
        return self.metadata.horizon, 1

    def infer(self, window: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        self.calls += 1
        offset = 0.3 * (-1) ** self.calls
        t = window[-1, 0] + np.arange(self.metadata.horizon)
        return (np.sin(0.2 * t) + offset)[:, None].astype(np.float32)

    def plan(
        self, window: np.ndarray, noises: np.ndarray | None = None, context: Any = None
    ) -> np.ndarray:
        return self.infer(window)


def jumps(prefetch: int, blend: int) -> tuple[float, float]:
    """Return the largest step of the base action at and right after seams, and elsewhere."""
    queue = ChunkQueue(Planner(horizon=24, exec_steps=16), 1, prefetch, blend)
    queue.reset(np.random.default_rng(0))
    at_seams, inside, actions = [0.0], [], []
    chunk, since = None, 0
    for step in range(120):
        queue.push_observation([step])
        actions.append(float(queue.take().actions[0, 0]))
        since = 0 if queue._active is not chunk else since + 1
        chunk = queue._active
        if step:
            near = step >= 16 - prefetch and since <= blend
            (at_seams if near else inside).append(abs(actions[-1] - actions[-2]))
    queue.close()
    return max(at_seams), max(inside)


@pytest.mark.parametrize('prefetch', [0, 1, 3, 10])
def test_blending_spreads_the_jump_at_a_seam_whatever_the_delay(prefetch: int) -> None:
    hard, inside = jumps(prefetch, blend=0)
    assert hard > 0.4  # Two plans that differ by 0.6, on a curve that moves 0.2 a step.
    assert inside <= 0.21
    soft, _ = jumps(prefetch, blend=7)
    assert soft <= 0.2 + 0.6 / 8 + 1e-6
    assert soft <= 1.5 * inside


def test_blending_ends_with_the_new_chunk_alone() -> None:
    queue = ChunkQueue(Planner(horizon=12, exec_steps=6), 2, 0, 3)
    queue.reset(np.random.default_rng(0))
    pieces = []
    for step in range(0, 12, 2):
        queue.push_observation([step])
        pieces.append(queue.take().actions[:, 0])
    queue.close()
    curve = np.sin(0.2 * np.arange(12))
    beside = np.concatenate(pieces) - curve
    np.testing.assert_allclose(beside[:6], -0.3, atol=1e-6)
    np.testing.assert_allclose(beside[6:9], [-0.15, 0.0, 0.15], atol=1e-6)
    np.testing.assert_allclose(beside[9:], 0.3, atol=1e-6)


def test_where_the_old_plan_ends_the_new_one_stands_alone() -> None:
    queue = ChunkQueue(Planner(horizon=6, exec_steps=6), 2, 0, 4)
    queue.reset(np.random.default_rng(0))
    pieces = []
    for step in range(0, 12, 2):
        queue.push_observation([step])
        pieces.append(queue.take().actions[:, 0])
    queue.close()
    np.testing.assert_allclose(
        np.concatenate(pieces)[6:] - np.sin(0.2 * np.arange(6, 12)), 0.3, atol=1e-6
    )


def test_a_forgotten_chunk_does_not_blend_into_the_next_episode() -> None:
    queue = ChunkQueue(Planner(horizon=12, exec_steps=6), 2, 0, 3)
    for _ in range(2):
        queue.reset(np.random.default_rng(0))
        queue.push_observation([0])
        first = queue.take().actions[:, 0]
    queue.close()
    np.testing.assert_allclose(first - np.sin(0.2 * np.arange(2)), 0.3, atol=1e-6)


def test_what_nobody_wants_any_more_is_not_computed() -> None:
    policy = LinearPolicy()
    policy.gate.clear()
    queue = ChunkQueue(policy)
    for _ in range(5):  # Five pauses while the first inference is under way.
        queue.push_observation(np.zeros(3))
        with pytest.raises(ChunkLateError):
            queue.take(0.0)
        while policy.calls == 0:
            sleep(0.001)
        queue.forget()
    policy.gate.set()
    settle(queue)
    assert policy.calls == 1
    queue.close()


def test_a_base_policy_that_hangs_is_an_error_where_a_simulator_waits() -> None:
    policy = LinearPolicy()
    policy.gate.clear()
    queue = ChunkQueue(policy)
    queue.inference_limit_s = 0.05
    queue.push_observation(np.zeros(3))
    with pytest.raises(BasePolicyError, match='has not answered within'):
        queue.take()
    policy.gate.set()
    queue.close()


def test_what_is_coming_is_what_will_be_taken() -> None:
    queue = ChunkQueue(LinearPolicy(), decision_steps=2)
    assert queue.coming.shape == (0, 2)
    queue.reset(np.random.default_rng(0))
    queue.push_observation(np.ones(3))
    queue.take()
    coming = queue.coming
    assert coming.shape == (2, 2)  # Four of a chunk are executed.
    np.testing.assert_array_equal(queue.foreseen[:2], coming)
    assert queue.foreseen.shape == (3, 2)  # One more is planned.
    np.testing.assert_array_equal(queue.take().actions, coming)
    assert queue.coming.shape == (0, 2)
    queue.close()
