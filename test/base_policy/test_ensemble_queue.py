# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A mean over the wrong rows of the chunks looks smooth and does another task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from base_policy_builders import LinearPolicy, settle
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from robot_builders import make_action_spec, make_metadata

from residual_rl_ros.base_policy.chunk_queue import ChunkQueue
from residual_rl_ros.base_policy.ensemble_queue import EnsembleQueue
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.errors import BasePolicyError, ChunkLateError, ResidualRLError
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.prior import Prior

EXEC_START = 1
HORIZON = 9
META = make_metadata(horizon=HORIZON, exec_start=EXEC_START, exec_steps=1)
"""As ACT with temporal ensembling: of a chunk alone, one action would be executed."""
RNG = np.random.default_rng(0)
OBSERVATIONS = RNG.standard_normal((40, 3)).astype(np.float32)


def chunk(policy: LinearPolicy, step: int) -> np.ndarray:
    """Return what the policy plans at a control step from there on."""
    return policy.infer(OBSERVATIONS[None, step])[EXEC_START:]


def brute_force(policy: LinearPolicy, origins: list[int], step: int, m: float) -> np.ndarray:
    """Return the weighted mean of what chunks plan for a control step, oldest first."""
    plans = [
        chunk(policy, origin)[step - origin]
        for origin in sorted(origins)
        if 0 <= step - origin < HORIZON - EXEC_START
    ]
    weights = [np.exp(-m * index) for index in range(len(plans))]
    return sum(w * plan for w, plan in zip(weights, plans, strict=True)) / sum(weights)


def push(queue: ChunkQueue, first: int, count: int) -> None:
    """Show the queue the observations of so many control steps."""
    for step in range(first, first + count):
        queue.push_observation(OBSERVATIONS[step])


@settings(max_examples=40)
@given(
    k=st.integers(1, 3),
    prefetch=st.integers(0, 4),
    every=st.integers(0, 20),
    m=st.sampled_from([-0.5, 0.01, 0.3, 10.0]),
)
def test_an_action_is_the_weighted_mean_of_all_chunks_that_plan_for_it(
    k: int, prefetch: int, every: int, m: float
) -> None:
    policy = LinearPolicy(META)
    lead = k * -(-prefetch // k)
    covered = HORIZON - EXEC_START
    assume(lead + k <= covered)
    queue = EnsembleQueue(policy, k, prefetch, m, every)
    queue.reset(np.random.default_rng(0))
    ordered: list[int] = []
    for now in range(0, 30, k):
        push(queue, now if now == 0 else now - k + 1, 1 if now == 0 else k)
        actions = queue.take().actions
        # Written down once more: a request at a boundary, when the last is there and old enough.
        idle = not ordered or ordered[-1] == 0 or now - ordered[-1] >= lead
        due = not ordered or now - ordered[-1] >= max(every, 1)
        if idle and (due or ordered[-1] + covered - now - lead < k):
            ordered.append(now)
        entered = [each for each in ordered if now - each >= lead or each == 0]
        for index in range(k):
            expected = brute_force(policy, entered, now + index, m)
            np.testing.assert_allclose(actions[index], expected, atol=1e-6)
    queue.close()


def test_what_is_foreseen_is_the_mean_of_the_chunks_that_are_there() -> None:
    policy = LinearPolicy(META)
    queue = EnsembleQueue(policy, 1, 0, 0.3, every=2)
    assert queue.foreseen.shape == (0, 2)
    for step in range(3):
        push(queue, step, 1)
        queue.take()
    expected = [brute_force(policy, [0, 2], step, 0.3) for step in range(3, 2 + HORIZON - 1)]
    np.testing.assert_allclose(queue.foreseen, expected, atol=1e-6)
    queue.close()


def test_with_a_large_coefficient_the_oldest_chunk_decides_and_with_a_negative_one_the_newest():
    policy = LinearPolicy(META)
    for m, origin in ((10.0, 0), (-10.0, 4)):
        queue = EnsembleQueue(policy, 1, 0, m)
        queue.reset(np.random.default_rng(0))
        for now in range(5):
            push(queue, now, 1)
            actions = queue.take().actions
        np.testing.assert_allclose(actions[0], chunk(policy, origin)[4 - origin], atol=1e-3)
        queue.close()


def test_a_late_chunk_is_left_out_until_it_comes_and_a_robot_without_any_holds() -> None:
    policy = LinearPolicy(META)
    queue = EnsembleQueue(policy, 1, 1, 0.1)
    queue.reset(np.random.default_rng(0))
    push(queue, 0, 1)
    with pytest.raises(ChunkLateError):
        queue.take(0.0)
    settle(queue)
    queue.take(0.0)
    policy.gate.clear()
    covered = HORIZON - EXEC_START
    for now in range(1, covered):
        push(queue, now, 1)
        expected = brute_force(policy_like(policy), [0], now, 0.1)
        np.testing.assert_allclose(queue.take(0.0).actions[0], expected, atol=1e-6)
    push(queue, covered, 1)
    with pytest.raises(ChunkLateError):
        queue.take(0.0)
    policy.gate.set()
    settle(queue)
    expected = brute_force(policy, [1], covered, 0.1)
    np.testing.assert_allclose(queue.take(0.0).actions[0], expected, atol=1e-6)
    queue.close()


def policy_like(policy: LinearPolicy) -> LinearPolicy:
    """Return the same policy, which does not wait."""
    return LinearPolicy(policy.metadata)


def test_after_a_pause_no_chunk_of_before_counts() -> None:
    policy = LinearPolicy(META)
    queue = EnsembleQueue(policy, 1, 0, 0.1)
    queue.reset(np.random.default_rng(0))
    for now in range(3):
        push(queue, now, 1)
        queue.take()
    queue.forget()
    push(queue, 3, 1)
    np.testing.assert_allclose(queue.take().actions[0], chunk(policy, 3)[0], atol=1e-6)
    queue.close()


def test_actions_given_back_are_planned_again() -> None:
    policy = LinearPolicy(META)
    queue = EnsembleQueue(policy, 2, 0, 0.1)
    queue.reset(np.random.default_rng(0))
    push(queue, 0, 1)
    queue.take()
    queue.give_back(1)
    push(queue, 1, 1)
    actions = queue.take().actions
    np.testing.assert_allclose(actions[0], brute_force(policy, [0, 1], 1, 0.1), atol=1e-6)
    queue.close()


@pytest.mark.parametrize(
    ('splicing', 'changes', 'message'),
    [
        ({}, {'proposals': 2}, r'proposals is 2, but temporal_ensemble 0.01 takes'),
        ({'chunk_blend_steps': 2}, {}, r'chunk_blend_steps is 2, but temporal_ensemble'),
        ({}, {'prior_width': (0.1,)}, r'no density of prior gaussian'),
    ],
)
def test_what_has_no_mean_is_refused(
    splicing: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    averaged = Splicing(temporal_ensemble=0.01, **splicing)
    config = ControllerConfig(1, (0.1,), averaged, **changes)
    with pytest.raises(ResidualRLError, match=message):
        config.build(LinearPolicy(META, stochastic=True), make_action_spec())


@pytest.mark.parametrize(
    ('prior', 'message'),
    [
        (Prior.CATEGORICAL, 'discrete actions have no mean'),
        (Prior.SQUASHED_GAUSSIAN, 'no density of prior squashed_gaussian'),
    ],
)
def test_a_policy_that_tells_a_density_is_refused(prior: Prior, message: str) -> None:
    with pytest.raises(BasePolicyError, match=message):
        EnsembleQueue(LinearPolicy(make_metadata(prior=prior)), 1, 0, 0.01)


def test_discrete_actions_are_refused() -> None:
    config = ControllerConfig(1, (1.0,), Splicing(temporal_ensemble=0.01))
    policy = LinearPolicy(make_metadata(action_min=(0.0, 0.0), action_max=(1.0, 1.0)))
    names = policy.metadata.action_names
    with pytest.raises(ResidualRLError, match='temporal_ensemble is given, but discrete actions'):
        config.build(policy, ActionSpec.discrete(names, names[0]))


def test_a_chunk_too_short_for_the_prefetch_is_refused() -> None:
    with pytest.raises(BasePolicyError, match='leaves no room'):
        EnsembleQueue(LinearPolicy(META), 1, HORIZON - EXEC_START, 0.1)
