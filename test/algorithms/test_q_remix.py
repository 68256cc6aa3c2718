# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The Q-remix must choose what its values say, among what the base proposes, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from transition_builders import make_layout, make_transition

from residual_rl_ros.algorithms.q_remix import QRemix, proposal_cql_loss, remixed_value
from residual_rl_ros.base_policy.distribution import BaseDistribution
from residual_rl_ros.config.preset import load_preset
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.exploration import Exploration, ExplorationSample
from residual_rl_ros.residual_policy.q_remix import QRemixArchitecture, QRemixPolicy
from residual_rl_ros.residual_policy.weights import WeightsHeader, decode_weights, encode_weights
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Success, Transition

LAYOUT = make_layout(proposals=4, residual_bound=(2.0, 1.0))
KM = LAYOUT.decision_size
BASE = np.linspace(-0.2, 0.2, KM)
SMALL = {'batch_size': 32, 'hidden_sizes': [16], 'offline_updates': 0, 'learning_rate': 3e-3}


def make_rule(layout: TransitionLayout = LAYOUT, seed: int = 0, **overrides: Any) -> QRemix:
    config = load_preset('q_remix', {**SMALL, **overrides})
    rule = config.make_rule(
        layout, torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    )
    assert isinstance(rule, QRemix)
    return rule


def opinionated(**overrides: Any) -> QRemix:
    """Return a rule whose critics have opinions."""
    rule = make_rule(**overrides)
    with torch.no_grad():
        for value in rule.critics.parameters():
            value += 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    rule.critics.normalizer.fit(torch.tensor([[0.0, 1.0, 2.0], [2.0, 2.0, 5.0]]))
    return rule


def others(rows: int = 3, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (rows, KM))


def told(rows: int = 3) -> BaseDistribution:
    return BaseDistribution(np.zeros(0), others(rows))


def bandit(count: int, seed: int = 0) -> list[Transition]:
    """Return decisions of one step each: actions whose first number is positive are rewarded."""
    rng = np.random.default_rng(seed)
    stream = []
    for episode in range(count):
        proposals = rng.uniform(-0.5, 0.5, (4, KM))
        reward = float(proposals[0, 0] > 0.0)
        stream.append(
            make_transition(
                LAYOUT,
                episode=episode,
                step=0,
                reward=reward,
                terminated=True,
                success=Success(int(reward)),
                observation=rng.normal(0.0, 1.0, 3),
                base_action=proposals[0],
                residual_action=np.zeros(KM),
                executed_action=proposals[0],
                proposals=proposals[1:].ravel(),
            )
        )
    return stream


def test_the_value_of_the_remix_lies_between_that_of_the_base_and_the_best_proposal() -> None:
    q = torch.tensor([[0.0, 1.0, 2.0, 5.0]])
    assert remixed_value(q, 0.0).item() == pytest.approx(2.0)
    weights = np.exp(0.5 * np.array([0.0, 1.0, 2.0, 5.0]))
    by_hand = (weights * q[0].numpy()).sum() / weights.sum()
    assert remixed_value(q, 0.5).item() == pytest.approx(by_hand, rel=1e-6)
    assert remixed_value(q, 1e4).item() == pytest.approx(5.0)


def test_the_conservative_term_is_the_log_mean_of_the_proposals_less_the_executed_value() -> None:
    q_proposals = torch.tensor([[[0.0, 1.0]], [[2.0, 2.0]]])  # Two heads, one row.
    q = torch.tensor([[0.5], [1.0]])
    by_hand = np.log((1.0 + np.e) / 2.0) - 0.5 + (2.0 - 1.0)
    assert proposal_cql_loss(q_proposals, q).item() == pytest.approx(by_hand, rel=1e-6)


def test_it_learns_from_a_recording_alone_which_proposal_is_worth_more() -> None:
    rule = make_rule(offline_updates=250)
    for transition in bandit(400):
        rule.observe(transition)
    rule.prepare(lambda: None)
    policy = rule.robot_policy()
    rng = np.random.default_rng(9)
    chosen = []
    for _ in range(60):
        proposals = rng.uniform(-0.5, 0.5, (4, KM))
        distribution = BaseDistribution(np.zeros(0), proposals[1:])
        residual = policy.decide(
            rng.normal(0.0, 1.0, 3), proposals[0], None, distribution=distribution
        )
        chosen.append((proposals[0] + residual * np.tile([2.0, 1.0], 2))[0])
    # By chance half of them are positive; of four proposals 94 % have one that is.
    assert np.mean(np.array(chosen) > 0.0) > 0.85


def test_the_robot_computes_the_advantages_that_the_learner_computes() -> None:
    rule = opinionated(critic_heads=3)
    proposals = np.vstack([BASE[None], others()])
    observation = np.array([0.3, 1.7, 2.5])
    advantages = rule.robot_policy().advantages(observation, proposals)
    with torch.no_grad():
        seen = torch.tensor(observation, dtype=torch.float32)[None]
        q = rule.critics(seen, torch.tensor(proposals, dtype=torch.float32)[None])[:, 0]
    expected = (q - q[:, :1]).amin(0).numpy()
    np.testing.assert_allclose(advantages, expected, atol=1e-5)
    assert np.ptp(advantages) > 0.05


@pytest.mark.parametrize('beta', [0.0, 1.0])
@pytest.mark.parametrize('weight', [0.0, 1.0])
@pytest.mark.parametrize('rng', [None, np.random.default_rng(0)])
def test_without_weight_or_beta_it_is_the_base_bit_for_bit(
    beta: float, weight: float, rng: np.random.Generator | None
) -> None:
    policy = opinionated(beta=beta, beta_start=beta, critic_heads=2).robot_policy()
    sample = ExplorationSample(weight=weight)
    draws = [policy.decide(np.ones(3), BASE, rng, sample, told()) for _ in range(20)]
    assert any(residual.any() for residual in draws) is bool(beta * weight)
    assert not policy.decide(np.ones(3), BASE, rng, sample).any(), 'without proposals'


def test_with_noise_it_draws_proposals_in_proportion_to_exp_beta_q() -> None:
    rule = opinionated(temperature=0.5)
    policy = rule.robot_policy()
    proposals = np.vstack([BASE[None], others()])
    weights = np.exp(1.5 * policy.advantages(np.ones(3), proposals).astype(float) / 0.5)
    rng, counts = np.random.default_rng(3), np.zeros(4)
    bound = np.tile([2.0, 1.0], 2)
    for _ in range(3000):
        residual = policy.decide(np.ones(3), BASE, rng, ExplorationSample(weight=1.5), told())
        counts[np.abs(proposals - BASE - bound * residual).sum(1).argmin()] += 1
    np.testing.assert_allclose(counts / 3000, weights / weights.sum(), atol=0.03)


def test_what_is_chosen_is_a_proposal_and_survives_the_way_to_the_robot() -> None:
    policy = opinionated().robot_policy()
    _, read = decode_weights(encode_weights(policy, WeightsHeader(1, 0, Exploration())))
    assert isinstance(read, QRemixPolicy)
    residual = read.decide(np.ones(3), BASE, None, distribution=told())
    assert np.array_equal(residual, policy.decide(np.ones(3), BASE, None, distribution=told()))
    executed = BASE + np.tile([2.0, 1.0], 2) * residual
    assert np.abs(np.vstack([BASE, others()]) - executed).max(1).min() < 1e-12
    assert not read.uniform(1.0, np.random.default_rng(0)).any()


def test_overflow_is_no_number_for_the_controller_to_refuse() -> None:
    policy = opinionated().robot_policy()
    huge = {name: value * np.float32(1e30) for name, value in policy.tensors.items()}
    with np.errstate(all='ignore'):
        residual = QRemixPolicy(policy.architecture, huge).decide(
            np.ones(3), BASE, None, distribution=told()
        )
    assert np.isnan(residual).all()


@pytest.mark.parametrize('change', [{'beta': 1.5}, {'beta': None}, {'temperature': 0.0}])
def test_hostile_architectures_are_refused(change: dict[str, Any]) -> None:
    good = opinionated().robot_policy().architecture.to_mapping()
    assert QRemixArchitecture.from_mapping(json.loads(json.dumps(good)))
    with pytest.raises(ValueError, match=next(iter(change))):
        QRemixArchitecture.from_mapping({**good, **change})


def test_a_residual_that_cannot_reach_the_proposals_is_refused_with_its_remedy() -> None:
    with pytest.raises(ConfigError, match='set residual_scale to 2'):
        make_rule(make_layout(proposals=4))
    make_rule(make_layout())  # Of old recordings there are no proposals to reach.


def test_a_recording_without_proposals_still_gives_the_value_of_the_base() -> None:
    layout = make_layout()
    rule = make_rule(layout, offline_updates=3)
    for index in range(40):
        rule.observe(make_transition(layout, episode=index, terminated=True, reward=1.0))
    metrics = rule.prepare(lambda: None)
    assert all(torch.isfinite(value) for value in metrics.values())
    assert rule.diagnose()['base_preferred_share'] == 1.0


def test_beta_grows_with_the_online_transitions_and_resumes() -> None:
    rule = make_rule(beta=0.8, beta_start=0.2, beta_transitions=10)
    for transition in bandit(20):
        rule.observe(transition)
    rule.prepare(lambda: None)
    assert rule.beta == pytest.approx(0.2)
    for transition in bandit(5, seed=1):
        rule.observe(transition)
    assert rule.beta == pytest.approx(0.5)
    again = make_rule(beta=0.8, beta_start=0.2, beta_transitions=10)
    again.memory.restore(rule.memory.export())
    again.load_state_dict(rule.state_dict())
    assert again.beta == pytest.approx(0.5)
    for transition in bandit(50, seed=2):
        rule.observe(transition)
    assert rule.beta == pytest.approx(0.8)


def test_the_density_is_that_of_the_proposals_so_prior_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match='proposals of the base stand for its density'):
        load_preset('q_remix', {'prior_weight': 1.0})
