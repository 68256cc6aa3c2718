# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where one chunk follows another, commands must not jerk, however long inference takes."""

from __future__ import annotations

import numpy as np
import pytest
from base_policy_builders import LinearPolicy, settle
from loop_builders import PERIOD, real_time, weights
from robot_builders import make_action_spec, make_metadata

from residual_rl_ros.base_policy.splicing import Splicing

TICKS = 240
BLEND = 7


class Planner(LinearPolicy):
    """Plans a curve from the time in `tool.z` on, each plan beside the last one by 0.6."""

    def __init__(self) -> None:
        super().__init__(make_metadata(horizon=48, exec_start=0, exec_steps=24))

    def infer(self, window: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        self.calls += 1
        offset = 0.3 * (-1) ** self.calls
        curve = np.sin(0.2 * (window[-1, 2] + np.arange(48))) + offset
        assert self.gate.wait(30.0)
        return np.stack([curve, curve], axis=1).astype(np.float32)


def run(delay: int, prefetch: int, blend: int) -> tuple[float, float, int]:
    """Run a robot whose base policy answers a number of control steps after it was asked.

    Returns:
        The largest step of a command at a seam and while the chunks blend, the largest elsewhere,
        and how many control steps were held.
    """
    policy = Planner()
    action = make_action_spec()  # Limits so wide that they hide nothing.
    changes = {'splicing': Splicing(prefetch, blend), 'action': action}
    policy.gate.set() if delay == 0 else policy.gate.clear()
    timeout_s = 10.0 if delay == 0 else 0.0
    loop, callbacks = real_time(policy, hold_limit_s=10.0, chunk_timeout_s=timeout_s, **changes)
    queue = loop.controller.queue
    loop.activate()
    loop.receive_weights(weights(loop, 1, gain=0.1))
    loop.take_weights(wait=True)
    at_seams, inside = [0.0], [0.0]
    chunk, since = queue._active, BLEND + 1
    asked_at = None
    for tick in range(TICKS):
        now = tick * PERIOD
        loop.push_observation('arm', now, np.zeros(2))
        loop.push_observation('tool', now, np.array([float(tick)]))
        if asked_at is not None and (tick - asked_at >= delay or not callbacks.commands):
            policy.gate.set()
            settle(queue)
            if delay:
                policy.gate.clear()
            asked_at = None
        before = len(callbacks.commands)
        asked = queue._pending
        loop.tick(now)
        if queue._pending is not None and queue._pending is not asked:
            asked_at = tick
        first = chunk is None
        since = 0 if queue._active is not chunk else since + 1
        chunk = queue._active
        if len(callbacks.commands) > before > 0 and not first:
            jump = float(np.abs(callbacks.commands[-1][1] - callbacks.commands[-2][1]).max())
            (at_seams if since <= BLEND else inside).append(jump)
    policy.gate.set()
    loop.close()
    return max(at_seams), max(inside), loop.counts['holds']


@pytest.mark.parametrize('delay', [0, 1, 3, 10])
def test_blending_takes_the_jerk_out_of_a_seam_whatever_the_delay(delay: int) -> None:
    hard, inside, _ = run(delay, delay, 0)
    assert hard > 0.4
    soft, inside, holds = run(delay, delay, BLEND)
    assert soft <= 1.5 * inside
    assert holds <= 2  # Before the first chunk.


def test_a_delay_that_is_not_foreseen_is_held_for_and_its_end_is_no_larger_a_jump() -> None:
    foreseen, *_ = run(3, 3, 0)
    jump, _, holds = run(3, 0, 0)
    assert holds > 3 * (TICKS // 30)
    assert jump <= foreseen + 3 * 0.2  # What the curve moved on meanwhile.
