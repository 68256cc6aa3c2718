# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A chunk asked for too late is a hold at every seam; one asked for too early is old."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import chain, count, repeat
from typing import Any

import numpy as np
import pytest
from base_policy_builders import LinearPolicy, settle
from hypothesis import given
from hypothesis import strategies as st
from robot_builders import make_action_spec, make_metadata

from residual_rl_ros.base_policy.chunk_queue import ChunkQueue
from residual_rl_ros.base_policy.ensemble_queue import EnsembleQueue
from residual_rl_ros.base_policy.prefetch import (
    AUTO,
    FEWEST,
    MOST,
    RECENT,
    Prefetch,
    measure,
    parse_prefetch,
)
from residual_rl_ros.base_policy.splicing import MEASURED
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.errors import ChunkLateError, ConfigError


class SlowPolicy(LinearPolicy):
    """Takes as much time of its own clock as it is told."""

    now = 0.0

    def __init__(self, seconds: list[float], exec_steps: int = 8) -> None:
        super().__init__(make_metadata(horizon=exec_steps + 1, exec_steps=exec_steps))
        self._seconds = seconds

    def clock(self) -> float:
        """Return the time [s]."""
        return self.now

    def infer(self, window: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Let time pass."""
        self.now += self._seconds[self.calls % len(self._seconds)]
        return super().infer(window, noise)


@pytest.mark.parametrize(
    ('inference_ms', 'decision_steps', 'covered', 'steps'),
    [
        (0.1, 1, 8, 1),  # One decision earlier is enough, and 0 is not.
        (0.1, 4, 8, 4),
        (9.0, 1, 8, 1),
        (15.0, 1, 8, 2),
        (150.0, 1, 38, 12),
        (150.0, 4, 38, 12),
        (150.0, 1, 16, 8),  # Half of a chunk is the most that there is.
        (7.0, 2, 4, 2),
    ],
)
def test_the_fewest_steps_that_avoid_holds_are_chosen(
    inference_ms: float, decision_steps: int, covered: int, steps: int
) -> None:
    chosen = Prefetch(1e-3 * inference_ms, 0.02, decision_steps, covered)
    assert (chosen.steps, chosen.problem) == (steps, '')


@given(st.floats(1e-4, 1.0), st.floats(1e-3, 0.1), st.integers(1, 8), st.integers(1, 64))
def test_what_is_chosen_fits_the_chunk_and_is_in_time_or_says_why_not(
    inference_s: float, period_s: float, k: int, more: int
) -> None:
    covered = k + more
    chosen = Prefetch(inference_s, period_s, k, covered)
    ChunkQueue(
        LinearPolicy(make_metadata(horizon=covered + 1, exec_steps=covered)), k, chosen.steps
    )
    half = covered // k // 2 * k
    assert chosen.steps % k == 0
    assert chosen.steps <= half
    assert (inference_s / period_s > half) is bool(chosen.problem)


def test_without_room_the_figures_are_said() -> None:
    chosen = Prefetch(0.15, 0.02, 1, 9)
    assert chosen.steps == 4
    assert 'inference takes 150 ms, and a chunk of 9 actions leaves 4 control steps' in (
        chosen.problem
    )
    assert '4 control steps, half of a chunk; execute more actions' in chosen.late_reason
    assert Prefetch(1e-4, 0.02, 8, 8).steps == 0
    assert 'leaves 0 control steps' in Prefetch(1e-4, 0.02, 8, 8).problem


class SteppedWorker:
    """Computes one thing after another, each for so many control steps as is said."""

    def __init__(self, steps: Iterator[int]) -> None:
        self._steps = steps
        self._orders: deque[tuple[Future[Any], Any]] = deque()
        self._left = 0

    def submit(self, job: Any, *args: Any) -> Future[Any]:
        """Take an order."""
        future: Future[Any] = Future()
        self._orders.append((future, lambda: job(*args)))
        if len(self._orders) == 1:
            self._left = next(self._steps)
        return future

    def step(self) -> None:
        """Let a control period pass."""
        self._left -= 1
        if self._orders and self._left <= 0:
            future, job = self._orders.popleft()
            if not future.cancelled():
                future.set_result(job())
            if self._orders:
                self._left = next(self._steps)

    def close(self) -> None:
        """There is no thread to end."""


def run(queue: ChunkQueue, taken: Iterable[int], control_steps: int, k: int = 1) -> list[int]:
    """Return the control steps that were held for a late chunk.

    Args:
        queue: measured already, if it is to be.
        taken: control steps that each inference takes.
        control_steps: how many to run.
        k: of which make a decision.
    """
    queue._worker.close()
    worker = queue._worker = SteppedWorker(iter(taken))  # type: ignore[assignment]
    queue.reset(np.random.default_rng(0))
    late, left = [], 0
    for now in range(control_steps):
        queue.push_observation(np.zeros(3))
        left -= 1
        if left <= 0:
            try:
                queue.take(0.0)
                left = k
            except ChunkLateError:
                late += [now] if queue.begun else []
        worker.step()
    return late


@pytest.mark.parametrize('k', [1, 4])
@pytest.mark.parametrize('ensemble', [False, True])
def test_no_chunk_is_late_while_inference_becomes_slower_bit_by_bit(k: int, ensemble: bool) -> None:
    policy = SlowPolicy([0.25], 40)  # 5 control steps.
    make = partial(EnsembleQueue, coefficient=0.1) if ensemble else ChunkQueue
    queue = make(policy, k, AUTO, clock=policy.clock)
    queue.warm_up()
    assert queue.prefetch_steps == 8
    noise = np.random.default_rng(0)
    means = chain(np.linspace(5.0, 15.0, 30), repeat(15.0))
    assert run(queue, (round(mean * noise.uniform(0.7, 1.2)) for mean in means), 1500, k) == []
    assert queue.prefetch_steps == 20


@pytest.mark.parametrize('inference_ms', [150, 220])
def test_a_base_that_takes_long_at_50_hz_is_in_time(inference_ms: int) -> None:
    chosen = Prefetch(1e-3 * inference_ms, 0.02, 1, 38)
    policy = SlowPolicy([0.05 * inference_ms / 20], 38)  # As many of its own, longer, periods.
    queue = ChunkQueue(policy, 1, AUTO, clock=policy.clock)
    queue.warm_up()
    assert (queue.prefetch_steps, chosen.problem) == (chosen.steps, '')
    assert run(queue, repeat(math.ceil(inference_ms / 20)), 1500) == []


@pytest.mark.parametrize('every', [10_000, 20], ids=['once', 'in every 20'])
def test_one_slow_inference_is_one_late_chunk_and_leaves_the_policy_as_it_was(every: int) -> None:
    policy = SlowPolicy([0.01], 16)
    queue = ChunkQueue(policy, 1, AUTO, clock=policy.clock)
    queue.warm_up()
    before, calls = queue.prefetch_steps, policy.calls
    late = run(queue, (12 if number % every == 4 else 1 for number in count()), 600)
    slow = 1 if every > 600 else (policy.calls - calls) // every + 1
    assert 0 < len(late) <= slow * 12
    assert queue.prefetch_steps == before
    assert policy.calls - calls <= 600 // (16 - before) + 1


def test_after_two_late_chunks_the_next_as_slow_ones_are_in_time() -> None:
    policy = SlowPolicy([0.25], 40)
    queue = ChunkQueue(policy, 1, AUTO, clock=policy.clock)
    queue.warm_up()
    late = run(queue, chain([5] * 4, repeat(15)), 1500)
    assert 0 < len(late) <= 2 * (15 - 8)
    assert late[-1] - late[0] < 2 * 40
    assert queue.prefetch_steps == 20
    assert 'half of a chunk' in queue.late_reason


def test_a_slow_moment_is_forgotten() -> None:
    chosen = Prefetch(0.15, 0.02, 1, 100)
    assert chosen.steps == 12
    assert 'if it goes on, chunks are asked for earlier' in chosen.late_reason
    assert [chosen.note(waited) for waited in (20, 20, 90, 90)] == [12, 31, 31, 50]
    assert 'than 50 control steps, half of a chunk' in chosen.late_reason
    for _ in range(RECENT):
        chosen.note(1)
    assert chosen.steps == 12


def test_a_number_that_is_given_stays() -> None:
    queue = ChunkQueue(LinearPolicy(make_metadata(horizon=41, exec_steps=40)), 1, 8)
    assert len(run(queue, repeat(15), 1000)) > 100
    assert queue.prefetch_steps == 8
    assert 'raise prefetch_steps' in queue.late_reason


def test_a_fast_policy_is_measured_more_often_than_a_slow_one() -> None:
    for seconds, calls in ((1e-4, MOST), (0.15, 7), (5.0, FEWEST)):
        policy = SlowPolicy([seconds])
        taken = measure(lambda policy=policy: policy.infer(np.zeros((1, 3))), policy.clock)
        assert taken == pytest.approx(seconds)
        assert policy.calls == calls


def test_a_queue_that_is_warmed_up_asks_as_early_as_its_policy_needs() -> None:
    policy = SlowPolicy([1.0, *[0.055] * 200])  # The first one initialises.
    queue = ChunkQueue(policy, prefetch_steps=AUTO, clock=policy.clock)
    assert queue.prefetch_steps == 0
    queue.warm_up()
    assert queue.prefetch is not None
    assert (queue.prefetch_steps, queue.prefetch.problem) == (2, '')
    assert str(queue.prefetch) == (
        'prefetch_steps 2 (auto: inference takes 55 ms, a control period is 50 ms)'
    )
    queue.reset(np.random.default_rng(0))
    calls = policy.calls
    for _ in range(7):
        queue.push_observation(np.zeros(3))
        queue.take()
    settle(queue)
    queue.close()
    assert policy.calls == calls + 2
    fixed = ChunkQueue(policy, prefetch_steps=3)
    fixed.warm_up()
    fixed.close()
    assert (fixed.prefetch_steps, fixed.prefetch) == (3, None)


def test_in_lockstep_auto_is_no_prefetch_and_measures_nothing() -> None:
    policy = LinearPolicy()
    controllers = [
        ControllerConfig(1, (0.1,), MEASURED, lockstep=lockstep).build(policy, make_action_spec())
        for lockstep in (True, False)
    ]
    for controller in controllers:
        controller.queue.warm_up()
        controller.queue.close()
    assert [each.queue.prefetch_steps for each in controllers] == [0, 1]
    assert controllers[0].queue.prefetch is None


def test_the_word_of_files_is_the_number_of_parameters() -> None:
    assert [parse_prefetch(text) for text in ('auto', '-1', '0', '12')] == [AUTO, AUTO, 0, 12]
    for text in ('', 'automatic', '-2', '1.5', '1e3', '9' * 30, '²'):
        with pytest.raises(ConfigError, match='expected auto or a whole number from 0 on'):
            parse_prefetch(text)
