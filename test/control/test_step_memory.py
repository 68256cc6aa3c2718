# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A control step leaves nothing behind: no memory that grows, no work for the collector."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from builders import LinearPolicy, make_rule, settle
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


@pytest.mark.parametrize('advised', [False, True])
def test_control_steps_make_no_cyclic_garbage(advised: bool) -> None:
    loop, callbacks = warm(advised)
    gc.collect()
    gc.disable()
    try:
        run(loop, callbacks, STEPS, STEPS)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize('advised', [False, True])
def test_control_steps_keep_no_memory_and_need_little(advised: bool) -> None:
    loop, callbacks = warm(advised)
    tracemalloc.start()
    try:
        run(loop, callbacks, STEPS, STEPS + 1)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        run(loop, callbacks, 2 * STEPS + 1, STEPS)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2_000
    assert peak - before < 20_000
