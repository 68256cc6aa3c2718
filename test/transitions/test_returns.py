# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an episode returned is known where its end is, and a failure goes on costing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from transition_builders import make_layout, make_transition

from residual_rl_ros.transitions.replay_buffer import ReplayBuffer
from residual_rl_ros.transitions.returns import failure_value, lowest_value, returns
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Source, Success

LAYOUT = make_layout()


def test_returns_are_the_discounted_rewards_to_the_end_and_unknown_where_it_is_not_seen() -> None:
    replay = ReplayBuffer(LAYOUT, 10)
    k = LAYOUT.decision_steps
    for step, (reward, ends) in enumerate([(1.0, False), (2.0, False), (4.0, True)]):
        replay.add(make_transition(LAYOUT, step=k * step, reward=reward, terminated=ends))
    replay.add(make_transition(LAYOUT, episode=9, step=0, reward=8.0, truncated=True))
    replay.add(make_transition(LAYOUT, episode=10, step=0, reward=8.0))
    found = returns(replay, 0.5, -1.0, rest=np.nan, gap=np.nan)
    assert found[:3].tolist() == [0.0 + 0.5 * (1.0 + 0.5 * 3.0), 1.0 + 0.5 * 3.0, 3.0]
    assert np.isnan(found[3:]).all()


def test_what_an_operator_earns_is_no_return_of_the_policy() -> None:
    replay, k = ReplayBuffer(LAYOUT, 10), LAYOUT.decision_steps
    sources = [Source.BASE, Source.RESIDUAL, Source.TAKEOVER, Source.BASE]
    for step, source in enumerate(sources):
        ends = step == 3
        add = {'step': k * step, 'source': source, 'reward': float(ends), 'terminated': ends}
        replay.add(make_transition(LAYOUT, **add))
    assert returns(replay, 0.5, -1.0, rest=-2.0, gap=-2.0).tolist() == [-1.75, -1.5, -1.0, 0.0]
    unaided = returns(replay, 0.5, -1.0, rest=-4.0, gap=np.nan, unaided=True)
    # Where he took over, the policy is taken to have failed.
    assert unaided.tolist()[:2] == [-1.0 + 0.5 * (-1.0 + 0.5 * -4.0), -1.0 + 0.5 * -4.0]
    assert np.isnan(unaided[2])
    assert unaided[3] == 0.0  # The policy succeeds, from where he has brought the robot.


def test_an_episode_that_failed_until_it_was_cut_off_is_worth_failing_for_ever() -> None:
    replay = ReplayBuffer(LAYOUT, 10)
    for step in range(4):
        last = step == 3
        add = {'step': LAYOUT.decision_steps * step, 'reward': 0.0, 'truncated': last}
        replay.add(make_transition(LAYOUT, **add))
    replay.add(make_transition(LAYOUT, episode=1, step=0, reward=0.0, terminated=True))
    assert lowest_value(replay, 0.75, -1.0) == failure_value(replay, 0.75, -1.0) == -4.0
    found = returns(replay, 0.75, -1.0, rest=-4.0, gap=np.nan)
    np.testing.assert_allclose(found, [-4.0, -4.0, -4.0, -4.0, -1.0], rtol=1e-6)
    assert np.isneginf(lowest_value(replay, 1.0, -1.0))
    assert np.isnan(failure_value(replay, 1.0, -1.0))


@pytest.mark.parametrize(('rewards', 'bound'), [((5.0, 4.0), -math.inf), ((-0.1, -50.0), -200.0)])
def test_what_comes_after_a_dense_reward_has_at_most_a_lower_bound(
    rewards: tuple[float, float], bound: float
) -> None:
    replay = ReplayBuffer(LAYOUT, 10)
    for episode, reward in enumerate(rewards):
        last = {'terminated': episode == 0, 'truncated': episode == 1}
        replay.add(make_transition(LAYOUT, episode=episode, step=0, reward=reward, **last))
    assert lowest_value(replay, 0.75, 0.0) == bound
    assert np.isnan(failure_value(replay, 0.75, 0.0))


def test_what_comes_after_a_lost_transition_or_in_an_episode_in_progress_is_not_known() -> None:
    replay, k = ReplayBuffer(LAYOUT, 10), LAYOUT.decision_steps
    for step in (0, 1, 3):  # One is lost.
        replay.add(make_transition(LAYOUT, step=k * step, reward=0.0, terminated=step == 3))
    replay.add(make_transition(LAYOUT, episode=1, step=0, reward=0.0))
    found = returns(replay, 0.5, -1.0, rest=-2.0, gap=np.nan)
    assert np.isnan(found[[0, 1, 3]]).all()
    assert found[2] == -1.0


@pytest.mark.parametrize('table', [False, True])
def test_failing_early_is_worth_what_never_succeeding_is(table: bool) -> None:
    """Else an operator's mark would teach the robot to fail before each decision costs more."""
    gamma, price, k = 0.75, -1.0, LAYOUT.decision_steps
    made = [
        make_transition(LAYOUT, step=k * step, reward=0.0, terminated=last, success=success)
        for step, last, success in (
            (0, False, Success.UNLABELLED),
            (1, True, Success.FAILURE),
        )
    ]
    replay = ReplayBuffer(LAYOUT, 10)
    if table:
        rows = np.array([LAYOUT.encode(each) for each in made])
        replay.extend(TransitionTable(LAYOUT, rows))
    else:
        for each in made:
            replay.add(each)
    never = price / (1.0 - gamma)
    np.testing.assert_allclose(returns(replay, gamma, price, np.nan, np.nan), never)
    for n_step in (1, 3):
        batch = replay.rows(np.array([1]), gamma, n_step)
        assert float(batch.reward + price * batch.reward_weight) == never
        assert float(batch.bootstrap) == 0.0
    first = replay.rows(np.array([0]), gamma, 3)
    assert float(first.reward + price * first.reward_weight) == never
    kept = ReplayBuffer(LAYOUT, 10)
    kept.restore(replay.export())
    kept.keep_newest(1)
    assert returns(kept, gamma, price, np.nan, np.nan).tolist() == [never]
