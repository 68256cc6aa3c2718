# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Residual soft Q-learning and residual SAC: limits, exact optima, checkpoints, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transition_builders import make_layout, make_transition

from residual_rl_ros.algorithms.losses import td_target
from residual_rl_ros.algorithms.prior import Density
from residual_rl_ros.algorithms.residual_sac import ResidualSac, ResidualSacConfig, residual_value
from residual_rl_ros.algorithms.residual_soft_q import (
    ResidualSoftQ,
    ResidualSoftQConfig,
    preferences,
    soft_value,
)
from residual_rl_ros.base_policy.distribution import BaseDistribution
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, decode_weights, encode_weights
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.transitions.layout import TransitionLayout

STATES, ACTIONS = 4, 3


def discrete_layout(states: int = STATES, **changes: Any) -> TransitionLayout:
    values: dict[str, Any] = {
        'observation_names': tuple(f's{i}' for i in range(states)),
        'action_names': ('left', 'right', 'stay'),
        'decision_steps': 1,
        'action_min': (0.0,) * 3,
        'action_max': (1.0,) * 3,
        'residual_bound': (1.0,) * 3,
        'prior': Prior.CATEGORICAL,
        'discrete': True,
    }
    return TransitionLayout(**{**values, **changes})


def continuous_layout(kind: Prior = Prior.SQUASHED_GAUSSIAN, steps: int = 1) -> TransitionLayout:
    return make_layout(decision_steps=steps, prior=kind, residual_bound=(2.0, 1.0))


def soft_q(layout: TransitionLayout | None = None, **changes: Any) -> ResidualSoftQ:
    config = ResidualSoftQConfig(**{'hidden_sizes': (8,), 'batch_size': 8, **changes})
    return ResidualSoftQ(
        config,
        layout or discrete_layout(),
        torch.Generator().manual_seed(0),
        np.random.default_rng(0),
    )


def sac(layout: TransitionLayout | None = None, **changes: Any) -> ResidualSac:
    config = ResidualSacConfig(**{'hidden_sizes': (8,), 'batch_size': 8, **changes})
    return ResidualSac(
        config,
        layout or continuous_layout(),
        torch.Generator().manual_seed(0),
        np.random.default_rng(0),
    )


def one_hot(index: int, size: int) -> np.ndarray:
    return np.eye(size)[index]


# --- the two limits

logits = st.lists(st.floats(-8.0, 8.0), min_size=ACTIONS, max_size=ACTIONS).map(np.array)
knob = st.floats(0.01, 10.0)


@settings(max_examples=25, deadline=None)
@given(told=logits, knob=knob)
def test_equal_knobs_and_nothing_learned_are_the_prior_on_discrete_actions(told, knob):
    policy = soft_q(prior_weight=knob, temperature=knob).robot_policy()
    found = policy.logits(np.zeros(STATES), BaseDistribution(told, np.zeros((0, 3))))
    expected = torch.tensor(told).log_softmax(-1).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    told=st.lists(st.floats(-2.0, 2.0), min_size=8, max_size=8).map(np.array),
    kind=st.sampled_from([Prior.GAUSSIAN, Prior.SQUASHED_GAUSSIAN]),
    observation=st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3).map(np.array),
)
def test_nothing_learned_is_the_prior_exactly_on_continuous_actions(told, kind, observation):
    rule = sac(continuous_layout(kind, 2))
    mean, log_std = rule.robot_policy().moments(
        observation, BaseDistribution(told, np.zeros((0, 4)))
    )
    assert np.concatenate([mean, log_std]).tolist() == told.tolist()
    block = torch.tensor(told, dtype=torch.float32)
    learned = rule.actor.block(torch.tensor(observation, dtype=torch.float32), block)
    assert torch.equal(learned, block)


def test_with_equal_knobs_and_nothing_learned_the_prior_is_optimal():
    # V_R is 0 whatever the action is, so no gradient leads away from the prior.
    rule = sac(prior_weight=0.3, temperature=0.3)
    told, s = torch.randn(6, 4), torch.randn(6, 3)
    value, _ = rule.policy_value(rule.critic, s, told, torch.zeros(6, 2))
    assert torch.allclose(value, torch.zeros(6), atol=1e-5)


def test_critics_are_asked_about_what_the_robot_executes_and_no_other_action():
    layout = replace(continuous_layout(Prior.GAUSSIAN), residual_bound=(0.2, 0.0))
    wanted = torch.tensor([[3.0, 3.0], [0.4, 0.4], [-3.0, -3.0]])
    base = torch.tensor([[0.9, 0.1], [0.3, 0.1], [-5.0, 0.1]])  # Trained from -1 to 1.
    nothing = torch.full((2,), torch.inf), torch.full((2,), -torch.inf)
    executed = Density(layout).executed(wanted, base, nothing)
    assert torch.allclose(executed, torch.tensor([[1.0, 0.1], [0.4, 0.1], [-4.8, 0.1]]))
    # Robots have wider limits than the demonstrations: what they have executed is known.
    seen = torch.tensor([-1.0, -1.0]), torch.tensor([1.05, 1.0])
    executed = Density(layout).executed(wanted, base, seen)
    assert torch.allclose(executed[0], torch.tensor([1.05, 0.1]))


def test_a_dimension_that_the_residual_may_not_move_counts_for_nothing():
    layout = replace(continuous_layout(Prior.GAUSSIAN), residual_bound=(1.0, 0.0))
    told = torch.tensor([0.1, 0.2, -1.0, -2.0])
    alike = [Density(layout).log_prob(told, torch.tensor([0.3, b])) for b in (0.2, 9.0)]
    assert alike[0] == alike[1]
    with_both = Density(continuous_layout(Prior.GAUSSIAN)).log_prob(told, torch.tensor([0.3, 9.0]))
    assert with_both < alike[0]


@settings(max_examples=25, deadline=None)
@given(told=logits, q=logits)
def test_a_small_prior_weight_is_greedy_on_discrete_actions(told, q):
    rule = soft_q(prior_weight=1e-9, temperature=1e-9)
    with torch.no_grad():
        rule.values.heads.bias.copy_(torch.tensor(q))
    best = np.flatnonzero(q.astype(np.float32) > q.astype(np.float32).max() - 1e-6)
    base = one_hot(0, ACTIONS)
    distribution = BaseDistribution(told, np.zeros((0, 3)))
    policy = rule.robot_policy()
    for rng in (None, np.random.default_rng(0)):
        policy = replace_epsilon(policy, 0.0)
        chosen = base + policy.decide(np.zeros(STATES), base, rng, distribution=distribution)
        assert chosen.sum() == 1.0
        assert int(chosen.argmax()) in best


def replace_epsilon(policy, epsilon):
    return type(policy)(replace(policy.architecture, epsilon=epsilon), policy.tensors)


@settings(max_examples=25, deadline=None)
@given(log_pi=st.floats(-50.0, 5.0), q=st.floats(-5.0, 5.0))
def test_a_small_prior_weight_is_greedy_on_continuous_actions(log_pi, q):
    values = torch.tensor([[q], [q + 1.0]])
    zero = torch.zeros(1)
    assert float(residual_value(values, torch.tensor([log_pi]), zero, 0.0, zero)) == pytest.approx(
        q
    )


def test_without_prior_weight_the_base_counts_for_nothing():
    layout = discrete_layout(prior=Prior.NONE)
    policy = soft_q(layout, prior_weight=0.0).robot_policy()
    assert policy.logits(np.zeros(STATES)).tolist() == [0.0, 0.0, 0.0]
    assert sac(make_layout(), prior_weight=0.0).prior is None


# --- exact optima


def tabular(seed: int) -> tuple[torch.Tensor, ...]:
    """Return transition probabilities (S, A, S), r_R (S, A), log pi (S, A) and knobs."""
    rng = np.random.default_rng(seed)
    moves = rng.dirichlet(np.full(STATES, 0.5), (STATES, ACTIONS))
    reward = rng.normal(size=(STATES, ACTIONS))
    log_pi = torch.tensor(2.0 * rng.normal(size=(STATES, ACTIONS))).log_softmax(-1)
    return torch.tensor(moves), torch.tensor(reward), log_pi, *rng.uniform(0.1, 1.5, 2)


def soft_optimum(moves, reward, weight_log_pi, alpha, gamma) -> torch.Tensor:
    """Return Q of the augmented MDP, whose reward is r_R + omega' log pi: soft value iteration."""
    q = torch.zeros_like(reward)
    for _ in range(400):
        value = alpha * torch.logsumexp(q / alpha, -1)
        q = reward + weight_log_pi + gamma * moves @ value
    return q


@pytest.mark.parametrize('seed', range(10))
def test_the_targets_of_both_rules_converge_to_the_soft_optimum_of_the_augmented_mdp(seed):
    moves, reward, log_pi, weight, alpha = tabular(seed)
    gamma = 0.9
    expected = soft_optimum(moves, reward, weight * log_pi, alpha, gamma) - weight * log_pi
    q = torch.zeros_like(reward)
    for _ in range(400):
        value = soft_value(preferences(q, log_pi, weight), alpha)
        q = td_target(reward, torch.tensor(gamma), moves @ value)
    assert (q - expected).abs().max() < 1e-3
    # SAC: the policy of these values, and the mean of V_R over its actions.
    q = torch.zeros_like(reward)
    for _ in range(400):
        log_policy = (preferences(q, log_pi, weight) / alpha).log_softmax(-1)
        each = residual_value(q[None], log_pi, log_policy, weight, torch.tensor(alpha))
        q = td_target(reward, torch.tensor(gamma), moves @ (log_policy.exp() * each).sum(-1))
    assert (q - expected).abs().max() < 1e-3


def test_the_updates_of_residual_soft_q_find_the_soft_optimum_of_a_table():
    layout = discrete_layout()
    rng = np.random.default_rng(3)
    goes = rng.integers(STATES, size=(STATES, ACTIONS))
    reward, told = rng.normal(size=(STATES, ACTIONS)), rng.normal(size=(STATES, ACTIONS))
    rule = soft_q(
        layout,
        hidden_sizes=(),
        batch_size=64,
        gamma=0.7,
        prior_weight=0.8,
        temperature=0.5,
        reward='basic',
        learning_rate=0.03,
        target_interval=10,
        normalize_observations=False,
    )
    for s in range(STATES):
        for a in range(ACTIONS):
            rule.observe(
                make_transition(
                    layout,
                    reward=float(reward[s, a]),
                    observation=one_hot(s, STATES),
                    next_observation=one_hot(goes[s, a], STATES),
                    base_action=one_hot(0, ACTIONS),
                    executed_action=one_hot(a, ACTIONS),
                    prior=told[s],
                    next_prior=told[goes[s, a]],
                )
            )
    for _ in range(900):
        rule.update()
    moves = torch.tensor(np.eye(STATES)[goes])
    log_pi = torch.tensor(told).log_softmax(-1)
    expected = soft_optimum(moves, torch.tensor(reward), 0.8 * log_pi, 0.5, 0.7) - 0.8 * log_pi
    found = rule.values(torch.eye(STATES)).detach()
    assert (found - expected).abs().max() < 1e-3


def test_residual_sac_finds_the_closed_form_of_a_linear_reward():
    # omega' log N(a; mu, s^2) + c a at temperature alpha^ is best served by
    # N(mu + c s^2 / omega', s^2 alpha^ / omega').
    layout = make_layout(
        decision_steps=1,
        action_names=('a',),
        action_min=(-5.0,),
        action_max=(5.0,),
        residual_bound=(10.0,),
        prior=Prior.GAUSSIAN,
    )
    rule = sac(
        layout,
        hidden_sizes=(),
        batch_size=128,
        prior_weight=0.5,
        temperature=0.25,
        reward='basic',
        learning_rate=0.01,
        critic_normalization='none',
        normalize_observations=False,
    )
    told, rng = np.array([0.4, np.log(0.8)]), np.random.default_rng(0)
    for _ in range(256):
        action = rng.uniform(-3.0, 3.0, 1)
        rule.observe(
            make_transition(
                layout,
                reward=float(0.3 * action[0]),
                terminated=True,
                observation=np.zeros(3),
                executed_action=action,
                prior=told,
                next_prior=told,
            )
        )
    for _ in range(500):
        rule.update()
    mean, log_std = rule.robot_policy().moments(
        np.zeros(3), BaseDistribution(told, np.zeros((0, 1)))
    )
    assert float(mean[0]) == pytest.approx(0.4 + 0.3 * 0.64 / 0.5, abs=0.05)
    assert float(log_std[0]) == pytest.approx(np.log(0.8 * np.sqrt(0.5)), abs=0.05)


# --- a learner's life


def fill(rule: Any, count: int = 20) -> None:
    rng = np.random.default_rng(1)
    layout = rule.layout
    for step in range(count):
        n, p = layout.observation_size, layout.prior_size
        executed = (
            one_hot(int(rng.integers(3)), 3)
            if layout.discrete
            else rng.uniform(-0.5, 0.5, layout.decision_size)
        )
        rule.observe(
            make_transition(
                layout,
                step=step,
                observation=rng.normal(size=n),
                next_observation=rng.normal(size=n),
                executed_action=executed,
                prior=rng.normal(size=p),
                next_prior=rng.normal(size=p),
            )
        )
    rule.prepare(lambda: None)


MAKERS = {
    'soft_q': lambda **changes: soft_q(reward='basic', epsilon_transitions=40, **changes),
    'sac': lambda **changes: sac(reward='basic', tune_temperature=True, **changes),
    'sac_from_nothing': lambda **changes: sac(
        make_layout(), prior_weight=0.0, hold_noise=True, reward='basic', **changes
    ),
}


@pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
def test_a_restored_rule_goes_on_as_the_saved_one_does(make):
    rule, other = make(), make()
    fill(rule)
    for _ in range(3):
        rule.update()
    other.memory.restore(rule.memory.export())
    other.memory._rng.bit_generator.state = rule.memory._rng.bit_generator.state
    other.load_state_dict(rule.state_dict())
    first, second = rule.update(), other.update()
    assert {name: float(value) for name, value in first.items()} == {
        name: float(value) for name, value in second.items()
    }
    own, its = rule.robot_policy(), other.robot_policy()
    assert own.architecture == its.architecture
    assert all(np.array_equal(own.tensors[name], its.tensors[name]) for name in own.tensors)
    assert rule.diagnose().keys() == other.diagnose().keys()


@pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
def test_a_robot_policy_travels_and_decides_as_its_torch_twin(make):
    rule = make()
    fill(rule)
    for _ in range(30):
        rule.update()
    _, policy = decode_weights(
        encode_weights(rule.robot_policy(), WeightsHeader(1, 0, Exploration()))
    )
    layout, rng = rule.layout, np.random.default_rng(2)
    observation, told = rng.normal(size=layout.observation_size), rng.normal(size=layout.prior_size)
    distribution = BaseDistribution(told, np.zeros((0, layout.decision_size)))
    s, block = (torch.tensor(each, dtype=torch.float32) for each in (observation, told))
    with torch.no_grad():
        if layout.discrete:
            twin = rule.preferences(rule.values(s[None]), block[None])[0] / rule.config.temperature
            found = policy.logits(observation, distribution)
        else:
            twin = rule.actor.block(s, block)
            found = np.concatenate(policy.moments(observation, distribution))
    np.testing.assert_allclose(found, twin.numpy(), rtol=1e-4, atol=1e-5)


def test_noise_that_is_held_is_the_same_until_the_next_message():
    rule = MAKERS['sac_from_nothing']()
    fill(rule)
    policy, rng = rule.robot_policy(), np.random.default_rng(0)
    first, second = (policy.decide(np.zeros(3), np.zeros(4), rng) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, policy.decide(np.zeros(3), np.zeros(4), None))
    state = rule._generator.get_state()
    again = rule.robot_policy().decide(np.zeros(3), np.zeros(4), rng)
    assert np.array_equal(first, again), 'looking at it changes nothing'
    assert torch.equal(state, rule._generator.get_state())
    fill(rule)
    later = rule.robot_policy().decide(np.zeros(3), np.zeros(4), rng)
    assert not np.array_equal(first, later)


def test_samples_of_the_robot_have_the_learned_density():
    rule = sac(continuous_layout(Prior.GAUSSIAN))
    policy, rng = rule.robot_policy(), np.random.default_rng(0)
    told = np.array([0.2, -0.1, -2.0, -3.0])
    alone = BaseDistribution(told, np.zeros((0, 2)))
    base = np.array([0.2, -0.1])
    drawn = np.array(
        [
            base + np.array([2.0, 1.0]) * policy.decide(np.zeros(3), base, rng, distribution=alone)
            for _ in range(2000)
        ]
    )
    np.testing.assert_allclose(drawn.mean(0), told[:2], atol=0.01)
    np.testing.assert_allclose(np.log(drawn.std(0)), told[2:], atol=0.06)


def test_epsilon_falls_to_its_end_and_explores_uniformly():
    rule = soft_q(epsilon=0.1, epsilon_transitions=40, reward='basic')
    assert rule.epsilon == 1.0
    fill(rule, 20)
    assert rule.epsilon == pytest.approx(0.55)
    fill(rule, 60)
    assert rule.epsilon == 0.1
    policy = replace_epsilon(rule.robot_policy(), 1.0)
    told = BaseDistribution(np.array([50.0, 0.0, 0.0]), np.zeros((0, 3)))
    base, rng = one_hot(0, 3), np.random.default_rng(0)
    drawn = [
        base + policy.decide(np.zeros(STATES), base, rng, distribution=told) for _ in range(600)
    ]
    assert np.abs(np.mean(drawn, 0) - 1.0 / 3.0).max() < 0.06


def test_a_warm_start_weighs_the_prior_more_at_first():
    rule = soft_q(prior_weight=0.5, warm_start_transitions=10, warm_start_scale=4.0, reward='basic')
    assert rule.prior_weight == 2.0
    fill(rule, 10)
    assert rule.prior_weight == 0.5


def test_updates_are_due_in_blocks():
    rule = soft_q(utd=0.5, update_block=256)
    assert [rule.updates_due(count) for count in (255, 256, 511, 512)] == [0, 128, 128, 256]


def test_another_add_on_is_learned_from_the_next_update_on():
    layout = discrete_layout()
    rule = soft_q(layout)
    fill(rule)
    batch, none = rule.sample()
    assert not none.any()
    rule.set_add_on('[{name: side_preference, position: s1, side: high}]', 2.0)
    batch, reward = rule.sample()
    expected = 2.0 * batch.next_observation[:, 1].clamp(-1.0, 1.0)
    torch.testing.assert_close(reward, expected)


# --- what is refused


@pytest.mark.parametrize(
    ('make', 'cause'),
    [
        (lambda: soft_q(continuous_layout()), 'use residual_sac'),
        (lambda: sac(discrete_layout()), 'use residual_soft_q'),
        (lambda: soft_q(discrete_layout(decision_steps=2)), 'decision_steps is 2, expected 1'),
        (lambda: soft_q(discrete_layout(prior=Prior.NONE)), 'tells no density'),
        (lambda: sac(make_layout()), 'tells no density'),
    ],
)
def test_a_robot_or_base_that_does_not_fit_is_refused(make, cause):
    with pytest.raises(ConfigError, match=cause):
        make()


@pytest.mark.parametrize(
    'changes',
    [
        {'temperature': 0.0},
        {'temperature': float('nan')},
        {'prior_weight': -1.0},
        {'epsilon': 1.5},
        {'prior_weight': 1},
        {'layout': discrete_layout(prior=Prior.NONE)},
        {'layout': discrete_layout(decision_steps=2)},
        {'layout': continuous_layout()},
        {'hidden_sizes': (0,)},
    ],
)
def test_a_wrong_architecture_of_a_weight_message_is_refused(changes):
    architecture = soft_q().robot_policy().architecture
    with pytest.raises(ValueError):  # noqa: PT011
        replace(architecture, **changes).tensor_shapes()


def test_summed_decisions_are_refused_by_name():
    (problem,) = ResidualSoftQConfig(n_step=3).problems()
    assert 'n_step is 3, expected 1' in problem


def test_a_density_of_a_rule_is_that_of_its_prior():
    rule = sac(continuous_layout(Prior.GAUSSIAN))
    assert rule.policy.kind is Prior.GAUSSIAN
    assert isinstance(rule.prior, Density)
