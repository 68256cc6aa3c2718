# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tree search against exact values, and in copies of environments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from residual_rl_ros.base_policy.distribution import BaseDistribution
from residual_rl_ros.base_policy.inputs import ImageInput
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.rewards.composition import AddOns
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.schema import from_mapping
from residual_rl_ros.tasks.mcts_planner import MctsPlanner, check_cloneable, planning_copy
from residual_rl_ros.tasks.residual_mcts import MctsConfig, act, search
from residual_rl_ros.transitions.layout import TransitionLayout

STATES = 6


@dataclass
class Tabular:
    """A deterministic MDP; observations are numbers of states."""

    following: np.ndarray
    reward: np.ndarray
    ends: np.ndarray
    state: int = 0

    def copy(self) -> Tabular:
        return replace(self)

    def step(self, action: int) -> tuple[np.ndarray, float, bool]:
        reward = self.reward[self.state, action]
        self.state = self.following[self.state, action]
        return np.array([self.state]), float(reward), bool(self.ends[self.state])


def random_mdp(seed: int, actions: int) -> tuple[Tabular, np.ndarray]:
    """Return an MDP and log pi, shape (states, actions)."""
    rng = np.random.default_rng(seed)
    shape = STATES, actions
    mdp = Tabular(rng.integers(0, STATES, shape), rng.normal(size=shape), rng.random(STATES) < 0.2)
    return mdp, log_softmax(2.0 * rng.normal(size=shape), axis=1)


def exact_q(mdp: Tabular, log_pi: np.ndarray, config: MctsConfig, steps: int) -> np.ndarray:
    """Return the soft-optimal Q to a horizon, shape (states, actions), backwards."""
    value = np.zeros(STATES)
    for _ in range(steps):
        q = mdp.reward + config.discount * np.where(mdp.ends, 0.0, value)[mdp.following]
        scores = (q + config.prior_weight * log_pi) / config.temperature
        value = config.temperature * logsumexp(scores, axis=1)
    return q


def run(mdp: Tabular, log_pi: np.ndarray, config: MctsConfig, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return search(mdp, log_pi[mdp.state], lambda state: log_pi[int(state[0])], config, rng)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(2, 3),
    st.integers(1, 4),
    st.floats(0.0, 1.0),
    st.floats(0.0, 3.0),
    st.floats(0.05, 3.0),
)
def test_a_tree_that_is_fully_expanded_is_the_exact_soft_optimum(
    seed: int, actions: int, horizon: int, discount: float, prior_weight: float, temperature: float
) -> None:
    mdp, log_pi = random_mdp(seed, actions)
    edges = sum(actions**depth for depth in range(1, horizon + 1))
    config = MctsConfig(edges, horizon, discount, prior_weight, temperature)
    root = run(mdp, log_pi, config)
    assert root.exact.all()
    np.testing.assert_allclose(root.q, exact_q(mdp, log_pi, config, horizon)[0], atol=1e-6)


def test_what_is_known_exactly_is_not_looked_at_again() -> None:
    mdp, log_pi = random_mdp(1, 2)
    root = run(mdp, log_pi, MctsConfig(10**6, 3))
    assert root.visits <= 14


def test_without_prior_weight_a_cold_search_takes_the_best_add_on() -> None:
    for seed in range(10):
        mdp, log_pi = random_mdp(seed, 3)
        config = MctsConfig(200, 3, 0.9, prior_weight=0.0, temperature=1e-3)
        root = run(mdp, log_pi, config)
        best = exact_q(mdp, log_pi, config, 3)[0]
        assert act(root, config, np.random.default_rng(0)) == best.argmax()


@given(st.integers(0, 10**6), st.integers(3, 40))
@settings(max_examples=20, deadline=None)
def test_without_reward_the_policy_is_the_prior_however_little_is_searched(
    seed: int, iterations: int
) -> None:
    mdp, log_pi = random_mdp(seed, 3)
    mdp.reward[:] = 0.0
    for weight in (0.5, 1.0):
        config = MctsConfig(iterations, 5, prior_weight=weight, temperature=weight)
        scores = run(mdp, log_pi, config).scores
        np.testing.assert_allclose(log_softmax(scores), log_pi[0], atol=1e-9)


def test_a_sampled_action_has_the_soft_optimal_probability() -> None:
    mdp, log_pi = random_mdp(4, 2)
    config = MctsConfig(100, 2, sample=True)
    root = run(mdp, log_pi, config)
    rng = np.random.default_rng(0)
    share = np.mean([act(root, config, rng) for _ in range(4000)])
    assert share == pytest.approx(np.exp(log_softmax(root.scores))[1], abs=0.03)


@pytest.mark.parametrize(
    ('number', 'reason'),
    [
        ({'iterations': 0}, 'iterations is 0'),
        ({'prior_weight': -0.1}, 'prior_weight is -0.1'),
        ({'temperature': 0.0}, 'temperature is 0.0'),
        ({'temperature': float('nan')}, 'temperature is nan'),
        ({'discount': 1.1}, 'discount is 1.1'),
        ({'horizon': 2.5}, 'horizon is 2.5'),
    ],
)
def test_numbers_out_of_range_are_refused(number: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        from_mapping(MctsConfig, number, '--set')


CART_POLE = TransitionLayout(
    ('x', 'speed', 'angle', 'turning'),
    ('left', 'right'),
    1,
    (0.0, 0.0),
    (1.0, 1.0),
    (1.0, 1.0),
    discrete=True,
)
CENTRE = AddOns.of([{'name': 'cart_pole_centre', 'reads': 'x'}])


class Even:
    """A base policy to which all actions are the same."""

    stochastic = False
    noise_shape = (1, 2)

    def __init__(self, **changes: Any) -> None:
        names = CART_POLE.observation_names, CART_POLE.action_names
        self.metadata = BasePolicyMetadata(
            *names, (0.0, 0.0), (1.0, 1.0), 50.0, 1, 1, 0, 1, prior=Prior.CATEGORICAL
        )
        self.metadata = replace(self.metadata, **changes)

    def plan(self, window: np.ndarray, noises: Any = None, context: Any = None) -> np.ndarray:
        assert window.shape == (1, 4)
        return np.array([[1.0, 0.0, 3.0, 3.0]], dtype=np.float32)


def test_a_search_in_copies_of_a_gymnasium_environment_does_not_move_it() -> None:
    env = gymnasium.make('CartPole-v1', disable_env_checker=True)
    planner = MctsPlanner(CENTRE, config=MctsConfig(iterations=20, horizon=4))
    policy = planner.build(env, CART_POLE, Even())
    state, _ = env.reset(seed=0)
    base = np.array([1.0, 0.0])
    before = np.array(env.unwrapped.state)
    decided = [policy.decide(state, base, None) for _ in range(2)]
    np.testing.assert_array_equal(env.unwrapped.state, before)
    np.testing.assert_array_equal(decided[0], decided[1])
    assert (base + decided[0]).tolist() in ([1.0, 0.0], [0.0, 1.0])


def test_a_search_goes_where_the_add_on_is() -> None:
    env = gymnasium.make('CartPole-v1', disable_env_checker=True)
    config = MctsConfig(iterations=60, horizon=7, discount=1.0, prior_weight=0.0, temperature=1e-3)
    weights = {
        side: AddOns.of([{'name': 'cart_pole_centre', 'reads': 'x', 'weight': weight}])
        for side, weight in (('in', 1.0), ('out', -1.0))
    }
    chosen = {}
    for side, add_on in weights.items():
        policy = MctsPlanner(add_on, config=config).build(env, CART_POLE, Even())
        env.reset(seed=0)
        env.unwrapped.state = np.array([0.5, 0.0, 0.0, 0.0])
        state = np.array(env.unwrapped.state)
        told = BaseDistribution(np.zeros(2), np.zeros((0, 2)))
        chosen[side] = policy.decide(state, np.array([1.0, 0.0]), None, distribution=told)[1]
    assert chosen == {'in': 0.0, 'out': 1.0}


def test_a_weight_of_zero_is_the_base() -> None:
    env = gymnasium.make('CartPole-v1', disable_env_checker=True)
    policy = MctsPlanner(CENTRE, weight=0.0).build(env, CART_POLE, Even())
    assert not policy.decide(np.zeros(4), np.array([0.0, 1.0]), None).any()


class Shared(gymnasium.Env):
    """An environment whose copies are itself."""

    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,))

    def __init__(self) -> None:
        self.count = 0

    def reset(self, **_: Any) -> Any:
        return np.zeros(4), {}

    def step(self, action: int) -> Any:
        self.count += 1
        return np.full(4, float(self.count)), 0.0, False, False, {}

    def __deepcopy__(self, memo: Any) -> Shared:
        return self


class Uncopied(Shared):
    def __deepcopy__(self, memo: Any) -> Uncopied:
        raise TypeError('cannot pickle a window')


@pytest.mark.parametrize(
    ('env', 'reason'),
    [(Shared(), 'copies share a state'), (Uncopied(), 'cannot be copied.*cannot pickle a window')],
)
def test_an_environment_that_cannot_be_copied_is_refused_in_one_line(
    env: gymnasium.Env, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        check_cloneable(env)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'discrete': False}, 'needs discrete actions'),
        ({'decision_steps': 2}, 'decision_steps 1'),
        ({'observation_names': ('y', 'b', 'c', 'd')}, "no observation 'x'"),
    ],
)
def test_a_robot_that_does_not_fit_the_search_is_refused(
    change: dict[str, Any], reason: str
) -> None:
    env = gymnasium.make('CartPole-v1', disable_env_checker=True)
    with pytest.raises(ConfigError, match=reason):
        MctsPlanner(CENTRE).build(env, replace(CART_POLE, **change), Even())
    with pytest.raises(ConfigError, match='iterations is 1'):
        MctsPlanner(CENTRE, config=MctsConfig(iterations=1)).build(env, CART_POLE, Even())


def test_a_base_that_tells_no_logits_or_sees_several_observations_is_refused() -> None:
    env = gymnasium.make('CartPole-v1', disable_env_checker=True)
    with pytest.raises(ConfigError, match='this one has prior none'):
        MctsPlanner(CENTRE).build(env, CART_POLE, Even(prior=Prior.NONE))
    with pytest.raises(ConfigError, match='n_obs_steps is 2'):
        MctsPlanner(CENTRE).build(env, CART_POLE, Even(n_obs_steps=2))
    with pytest.raises(ConfigError, match='without images, and this one wants camera'):
        MctsPlanner(CENTRE).build(env, CART_POLE, Even(inputs=(ImageInput('camera', 2, 2),)))


class Crowded(gymnasium.Env):
    """An environment that can leave out what is far away."""

    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,))
    others = 30

    def simplify(self) -> Crowded:
        simple = Crowded()
        simple.others = 3
        return simple


@pytest.mark.parametrize('wrapped', [0, 1, 2])
def test_a_copy_for_a_plan_is_simplified_and_draws_its_own_random_numbers(wrapped: int) -> None:
    env: gymnasium.Env = Crowded()
    env.np_random = np.random.default_rng(0)
    for _ in range(wrapped):
        env = gymnasium.Wrapper(env)
    copied = planning_copy(env, np.random.default_rng(1))
    assert type(copied) is type(env)
    assert (copied.unwrapped.others, env.unwrapped.others) == (3, 30)
    assert copied.unwrapped.np_random.random() != env.unwrapped.np_random.random()
