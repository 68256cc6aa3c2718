# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A chunk asked for too late is a hold at every seam; one asked for too early is old."""

from __future__ import annotations

import numpy as np
import pytest
from builders import LinearPolicy, make_action_spec, make_metadata, settle
from hypothesis import given
from hypothesis import strategies as st

from residual_rl_ros.base_policy.chunk_queue import ChunkQueue
from residual_rl_ros.base_policy.prefetch import (
    AUTO,
    FEWEST,
    JITTER,
    MOST,
    choose,
    measure,
    parse_prefetch,
)
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.errors import ConfigError


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
        (150.0, 1, 16, 12),
        (150.0, 4, 16, 12),
        (150.0, 1, 9, 8),  # The most that there is, and just enough.
    ],
)
def test_the_fewest_steps_that_avoid_holds_are_chosen(
    inference_ms: float, decision_steps: int, covered: int, steps: int
) -> None:
    chosen = choose(1e-3 * inference_ms, 0.02, decision_steps, covered)
    assert (chosen.steps, chosen.problem) == (steps, '')


@given(st.floats(1e-4, 1.0), st.floats(1e-3, 0.1), st.integers(1, 8), st.integers(1, 64))
def test_what_is_chosen_fits_the_chunk_and_is_in_time_or_says_why_not(
    inference_s: float, period_s: float, k: int, more: int
) -> None:
    covered = k + more
    chosen = choose(inference_s, period_s, k, covered)
    ChunkQueue(
        LinearPolicy(make_metadata(horizon=covered + 1, exec_steps=covered)), k, chosen.steps
    )
    assert chosen.steps % k == 0
    in_time = chosen.steps > 0 and inference_s + JITTER * period_s <= chosen.steps * period_s
    assert in_time is not bool(chosen.problem)


def test_without_room_the_figures_are_said() -> None:
    chosen = choose(0.15, 0.02, 1, 8)
    assert chosen.steps == 7
    assert 'inference takes 150 ms, and a chunk of 8 actions leaves 7 control steps' in (
        chosen.problem
    )
    assert choose(1e-4, 0.02, 8, 8).steps == 0
    assert 'leaves 0 control steps' in choose(1e-4, 0.02, 8, 8).problem


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
        ControllerConfig(1, (0.1,), prefetch_steps=AUTO, lockstep=lockstep).build(
            policy, make_action_spec()
        )
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
