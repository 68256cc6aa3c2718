# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation and training play episodes through the same loop as the robot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from base_policy_builders import LinearPolicy
from robot_builders import make_action_spec

from residual_rl_ros.config.success import SuccessCriterion
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.evaluation.episode import Episode, run_episode
from residual_rl_ros.evaluation.paired import difference, score
from residual_rl_ros.rewards.composition import AddOns
from residual_rl_ros.transitions.transition import Success, Transition


class Drift(gymnasium.Env):
    """Integrates the command; ends after a number of steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,))

    def __init__(
        self, steps: int = 5, terminates: bool = True, reward: float = 1.0, **info: bool
    ) -> None:
        self.steps = steps
        self.terminates = terminates
        self.reward = reward
        self.info = info
        self.actions: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state = self.np_random.standard_normal(3)
        self.actions = []
        return self.state.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert action.dtype == np.float32
        self.actions.append(action)
        self.state[:2] += action
        done = len(self.actions) == self.steps
        return (
            self.state.astype(np.float32),
            self.reward if done else 0.0,
            done and self.terminates,
            done and not self.terminates,
            dict(self.info),
        )


@pytest.fixture
def controller() -> Iterator[ResidualController]:
    """Yield a lockstep controller of a stochastic base policy, k = 2."""
    config = ControllerConfig(2, (0.1,), seed=1)
    made = config.build(LinearPolicy(stochastic=True), make_action_spec())
    yield made
    made.queue.close()


def play(env: Drift, controller: ResidualController) -> tuple[Episode, list[Transition]]:
    transitions: list[Transition] = []
    return run_episode(env, controller, 7, 0, transitions.append), transitions


def test_every_step_is_executed_and_every_decision_reported(controller: ResidualController) -> None:
    env = Drift(steps=5)
    looks = []
    transitions: list[Transition] = []
    episode = run_episode(env, controller, 7, 3, transitions.append, lambda: looks.append(1))
    assert episode == Episode(seed=7, success=None, steps=5, episode_return=1.0)
    assert len(looks) == 5
    assert [t.step for t in transitions] == [0, 2, 4]
    assert {t.episode for t in transitions} == {3}
    executed = np.concatenate([t.executed_action for t in transitions])[:10].reshape(5, 2)
    np.testing.assert_array_equal(np.float32(executed), env.actions)
    assert [t.terminated for t in transitions] == [False, False, True]
    assert [t.reward for t in transitions] == [0.0, 0.0, 1.0]


def test_only_the_last_transition_is_labelled(controller: ResidualController) -> None:
    _, transitions = play(Drift(steps=6, success=True), controller)
    assert [t.success for t in transitions] == [
        Success.UNLABELLED,
        Success.UNLABELLED,
        Success.SUCCESS,
    ]


@pytest.mark.parametrize(
    ('env', 'criterion', 'success'),
    [
        (Drift(), 'auto', None),
        (Drift(terminates=False), 'auto', None),
        (Drift(success=False), 'auto', False),
        (Drift(reward=0.0, success=True), 'auto', True),
        (Drift(terminates=False, success=True), 'auto', True),
        (Drift(success=True), 'return', None),
        (Drift(reward=-1.0), 'terminated', True),
        (Drift(terminates=False), 'terminated', False),
        (Drift(solved=True), 'solved:end', True),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_an_outcome_is_what_the_environment_tells_and_nothing_else(
    controller: ResidualController, env: Drift, criterion: str, success: bool | None
) -> None:
    env.success_criterion = SuccessCriterion.parse(criterion)
    episode, transitions = play(env, controller)
    assert episode.success is success
    assert transitions[-1].success is Success(-1 if success is None else success)
    assert transitions[-1].truncated is not env.terminates
    assert episode.episode_return == env.reward


def test_the_first_success_ends_an_episode_of_is_success(controller: ResidualController) -> None:
    episode, transitions = play(Drift(steps=6, reward=7.0, is_success=True), controller)
    assert episode == Episode(seed=7, success=True, steps=1, episode_return=1.0)
    assert transitions[-1].terminated


def episodes(outcomes: list[bool | None], returns: list[float]) -> list[Episode]:
    return [
        Episode(seed, success, 1, value)
        for seed, (success, value) in enumerate(zip(outcomes, returns, strict=True))
    ]


@pytest.mark.parametrize('outcome', [False, True])
@pytest.mark.parametrize('count', [1, 2, 7, 10, 13, 100])
def test_episodes_that_all_end_alike_have_a_rate_a_return_and_a_p_value(
    outcome: bool, count: int
) -> None:
    same = episodes([outcome] * count, [float(outcome)] * count)
    found = score(same).summary()
    assert found['success'] == found['return'] == float(outcome)
    assert found['low_95'] <= found['success'] <= found['high_95']
    assert difference(same, same).summary()['paired_p_value'] == 1.0


def test_without_success_returns_are_compared_in_pairs() -> None:
    base = episodes([None] * 4, [-10.0, 0.0, 10.0, 20.0])
    final = episodes([None] * 4, [-7.0, 1.0, 14.0, 24.0])
    found = score(base)
    assert (found.success, found.unlabelled, found.returns.value) == (None, 4, 5.0)
    assert found.summary()['success'] is None
    pair = difference(base, final)
    assert pair.returns.value == 3.0  # 3, 1, 4, 4: standard error sqrt(2) / 2, t of 3 degrees.
    assert pair.returns.high == pytest.approx(3.0 + 3.18245 * np.sqrt(0.5), abs=1e-4)
    assert pair.p_value == pytest.approx(0.02394, abs=1e-4)
    assert str(pair).startswith('difference of the returns 3 [')


def test_one_unlabelled_episode_leaves_the_others_without_a_rate() -> None:
    mixed = episodes([True, True, None], [1.0, 1.0, 0.0])
    assert score(mixed).success is None
    assert score(mixed).unlabelled == 1
    assert difference(mixed, mixed).fixed is None


def added(outcomes: list[bool | None], basic: list[float], more: list[float]) -> list[Episode]:
    return [
        replace(episode, add_on_return=value)
        for episode, value in zip(episodes(outcomes, basic), more, strict=True)
    ]


def test_an_add_on_is_summed_up_beside_the_return_of_the_task(
    controller: ResidualController,
) -> None:
    names = controller.layout.observation_names, controller.layout.action_names
    high = {'name': 'side_preference', 'position': names[0][2], 'side': 'high', 'half_width': 10.0}
    add_on = AddOns.of(high).bind(*names, 2)
    transitions: list[Transition] = []
    episode = run_episode(Drift(), controller, 7, 0, transitions.append, add_on=add_on)
    assert episode.add_on_return == sum(add_on.of_transition(each) for each in transitions) != 0.0
    assert episode.total_return == 1.0 + episode.add_on_return
    alone = run_episode(Drift(), controller, 7, 0)
    assert replace(episode, add_on_return=None) == alone
    assert alone.total_return == alone.episode_return == 1.0


def test_returns_with_an_add_on_come_apart_and_the_total_is_compared() -> None:
    base = added([None] * 4, [10.0, 11.0, 12.0, 11.0], [-8.0, -9.0, -8.0, -7.0])
    final = added([None] * 4, [10.0, 10.0, 12.0, 11.0], [-2.0, -1.0, -2.0, -2.5])
    found = score(base)
    assert found.added is not None
    assert (found.returns.value, found.added.add_on.value, found.added.total.value) == (11, -8, 3)
    assert found.main is found.added.total
    assert str(found).startswith('return: basic 11 [')
    assert ', add-on -8 [' in str(found)
    assert ', total 3 [' in str(found)
    summary = found.summary()
    assert (summary['return'], summary['add_on_return'], summary['total_return']) == (11, -8, 3)
    pair = difference(base, final)
    assert pair.added is not None
    assert pair.returns.value == -0.25
    assert pair.added.add_on.value == 6.125
    assert pair.added.total.value == pair.summary()['total_return_difference'] == 5.875
    assert pair.p_value == pytest.approx(0.00145, abs=1e-5)  # 6, 7, 6, 4.5: t = 11.4 of 3 degrees.


def test_success_and_the_returns_with_an_add_on_stand_side_by_side() -> None:
    base = added([True, False], [1.0, 0.0], [-2.0, -2.0])
    final = added([True, True], [1.0, 1.0], [-1.0, 0.0])
    assert str(score(base)).startswith('50% [')
    assert 'return: basic 0.5 [' in str(score(base))
    assert str(difference(base, final)).startswith('1 seed repaired, 0 broken, p = 1 (McNemar')
    assert 'add-on 1.5 [' in str(difference(base, final))
    # One without is no episode with an add-on of zero.
    assert score([*base, *episodes([True], [1.0])]).added is None
    assert difference(base, episodes([True, True], [1.0, 1.0])).added is None


def test_the_same_seeds_are_the_same_episode(controller: ResidualController) -> None:
    env = Drift()
    actions = []
    for seed, number in ((7, 0), (7, 0), (8, 0), (7, 1)):
        run_episode(env, controller, seed, number)
        actions.append(np.array(env.actions).tobytes())
    assert actions[0] == actions[1]
    assert len(set(actions)) == 3
