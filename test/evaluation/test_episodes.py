# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation and training play episodes through the same loop as the robot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from builders import LinearPolicy, make_action_spec

from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.evaluation.paired import Episode, run_episode
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
    assert episode == Episode(seed=7, success=True, steps=5)
    assert len(looks) == 5
    assert [t.step for t in transitions] == [0, 2, 4]
    assert {t.episode for t in transitions} == {3}
    executed = np.concatenate([t.executed_action for t in transitions])[:10].reshape(5, 2)
    np.testing.assert_array_equal(np.float32(executed), env.actions)
    assert [t.terminated for t in transitions] == [False, False, True]
    assert [t.reward for t in transitions] == [0.0, 0.0, 1.0]


def test_only_the_last_transition_is_labelled(controller: ResidualController) -> None:
    _, transitions = play(Drift(steps=6), controller)
    assert [t.success for t in transitions] == [
        Success.UNLABELLED,
        Success.UNLABELLED,
        Success.SUCCESS,
    ]


@pytest.mark.parametrize(
    ('env', 'success'),
    [
        (Drift(), True),
        (Drift(reward=0.0), False),
        (Drift(terminates=False), False),
        (Drift(success=False), False),
        (Drift(reward=0.0, success=True), True),
        (Drift(terminates=False, success=True), True),
    ],
    ids=['goal', 'fall', 'time limit', 'info says no', 'info says yes', 'yes at the limit'],
)
def test_success_is_what_the_environment_says_or_else_a_rewarded_end(
    controller: ResidualController, env: Drift, success: bool
) -> None:
    episode, transitions = play(env, controller)
    assert episode.success is success
    assert transitions[-1].success is Success(int(success))
    assert transitions[-1].truncated is not env.terminates


def test_the_same_seeds_are_the_same_episode(controller: ResidualController) -> None:
    env = Drift()
    actions = []
    for seed, number in ((7, 0), (7, 0), (8, 0), (7, 1)):
        run_episode(env, controller, seed, number)
        actions.append(np.array(env.actions).tobytes())
    assert actions[0] == actions[1]
    assert len(set(actions)) == 3
