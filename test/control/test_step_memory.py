# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A control step leaves nothing behind: no memory that grows, no work for the collector."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from base_policy_builders import LinearPolicy, settle
from learner_builders import make_rule
from loop_builders import PERIOD, Recorder, feed, real_time, weights

from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights

STEPS = 500


def run(loop: RealTimeLoop, callbacks: Recorder, begin: int, steps: int) -> None:
    """Run control steps of an episode, with an actor; keep nothing of what they send."""
    for step in range(begin, begin + steps):
        callbacks.now = step * PERIOD
        feed(loop, callbacks.now, float(np.sin(step)))
        loop.tick(callbacks.now)
        settle(loop.controller.queue)
        callbacks.commands.clear()
        callbacks.holding.clear()
        callbacks.transitions.clear()
        if step % 20 == 0:  # As the diagnostics of every second; durations wait for them.
            for latency in loop.latencies.values():
                latency.report('')


def warm(advised: bool) -> tuple[RealTimeLoop, Recorder]:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    message = weights(loop, 1)
    if advised:
        rule = make_rule(layout=loop.controller.layout)
        message = encode_weights(rule.robot_policy(), WeightsHeader(1, 1))
    loop.receive_weights(message)
    loop.take_weights(wait=True)
    run(loop, callbacks, 0, STEPS)
    return loop, callbacks


@pytest.fixture
def collector_off() -> Iterator[None]:
    """Collect now, and not while the test runs: what the collector frees fills up again."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures('collector_off')
@pytest.mark.parametrize('advised', [False, True])
def test_control_steps_make_no_cyclic_garbage(advised: bool) -> None:
    loop, callbacks = warm(advised)
    gc.collect()
    run(loop, callbacks, STEPS, STEPS)
    assert gc.collect() == 0


@pytest.mark.usefixtures('collector_off')
@pytest.mark.parametrize('advised', [False, True])
def test_control_steps_keep_no_memory_and_need_little(advised: bool) -> None:
    loop, callbacks = warm(advised)
    kept, needed = [], []
    tracemalloc.start()
    try:
        for window in range(1, 7):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            run(loop, callbacks, window * STEPS, STEPS)
            after, peak = tracemalloc.get_traced_memory()
            kept.append(after - before)
            needed.append(peak - before)
    finally:
        tracemalloc.stop()
    # A leak grows in every window. CPython's free lists, which hold a few kB of what was freed
    # for the next of its kind, stop growing once each is as long as it ever has to be.
    assert min(kept) < STEPS
    assert min(needed) < 20_000
