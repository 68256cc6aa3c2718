# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The targets, against numbers worked out by hand: a wrong sign in one still learns something."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learner_builders import fill, make_rule
from torch import Tensor
from transition_builders import make_layout, random_transitions

from residual_rl_ros.algorithms.sac import Sac
from residual_rl_ros.algorithms.td3 import Td3
from residual_rl_ros.transitions.batch import Batch

LAYOUT = make_layout()
Q = torch.tensor([[1.0, 5.0], [3.0, 4.0], [2.0, 9.0]])
"""Three target critics on two states."""


def batch() -> Batch:
    """Return two n-step returns: of two decisions at gamma 0.9 that go on, and one that ends."""
    n, km = LAYOUT.observation_size, LAYOUT.decision_size
    return Batch(
        observation=torch.zeros(2, n),
        base_action=torch.zeros(2, km),
        executed_action=torch.zeros(2, km),
        reward=torch.tensor([1.0, 0.5]),
        reward_weight=torch.tensor([1.9, 1.0]),
        bootstrap=torch.tensor([0.81, 0.0]),
        next_observation=torch.ones(2, n),
        next_base_action=torch.full((2, km), 0.25),
        prior=torch.zeros(2, 0),
        proposals=torch.zeros(2, 0),
        next_prior=torch.zeros(2, 0),
        next_proposals=torch.zeros(2, 0),
        row=np.zeros(2, dtype=np.int64),
    )


@pytest.mark.parametrize(
    ('entropy', 'first'), [(True, -0.9 + 0.81 * (1.0 - 0.5 * -3.0)), (False, -0.09)]
)
def test_the_soft_target_is_r_plus_gamma_j_times_minimum_minus_alpha_log_pi(
    entropy: bool, first: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = {'critic_heads': 3, 'critic_target_heads': 3}
    changes = {'initial_alpha': 0.5, 'base_in_target': False, **heads}
    rule = make_rule('best_of_n', entropy_in_target=entropy, **changes)
    assert isinstance(rule, Sac)
    u = torch.full((2, LAYOUT.decision_size), 0.5)
    monkeypatch.setattr(rule.actor, 'sample', lambda *_: (u, torch.tensor([-3.0, 100.0])))
    seen: list[Tensor] = []
    rule.target_critic = lambda s, x: seen.append(x) or Q.clone()  # type: ignore[assignment]
    # 1.0 - 1.9 = -0.9 and 0.5 - 1 = -0.5; what has terminated bootstraps from nothing.
    torch.testing.assert_close(rule.soft_target(batch()), torch.tensor([first, -0.5]))
    executed = 0.25 + 0.5 * torch.tensor(LAYOUT.residual_bound).repeat(LAYOUT.decision_steps)
    expected = rule.critic_action(
        torch.full((2, LAYOUT.decision_size), 0.25), executed.expand(2, -1)
    )
    torch.testing.assert_close(seen[0], expected)


def test_the_minimum_is_taken_over_the_heads_that_were_drawn() -> None:
    rule = make_rule('resfit', critic_heads=3, critic_target_heads=2)
    rule.target_critic = lambda s, x: Q.clone()
    base = u = torch.zeros(2, LAYOUT.decision_size)
    found = set()
    for seed in range(20):
        rule._generator.manual_seed(seed)
        drawn = torch.randperm(3, generator=torch.Generator().manual_seed(seed))[:2]
        value = rule.target_value(torch.zeros(2, LAYOUT.observation_size), base, u)
        assert torch.equal(value, Q[drawn].min(0).values)
        found.add(tuple(value.tolist()))
    assert found == {(1.0, 4.0), (1.0, 5.0), (2.0, 4.0)}


def test_wsrl_draws_heads_with_replacement_and_trains_the_actor_on_four_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule = make_rule('wsrl', critic_heads=3, actor_batch_size=32)
    fill(rule, random_transitions(LAYOUT, 40))
    rows, draw = [], rule.memory.sample

    def sample(*size: int) -> Batch:
        batch = draw(*size)
        rows.append(len(batch.row))
        return batch

    monkeypatch.setattr(rule.memory, 'sample', sample)
    for _ in range(4):
        rule.update()
    assert rows == [8, 8, 8, 8, 32]
    rule.target_critic = lambda s, x: Q.clone()
    base = u = torch.zeros(2, LAYOUT.decision_size)
    found = {
        tuple(rule.target_value(torch.zeros(2, LAYOUT.observation_size), base, u).tolist())
        for _ in range(60)
    }
    assert found == {(1.0, 4.0), (1.0, 5.0), (2.0, 4.0), *map(tuple, Q.tolist())}


def test_a_target_with_the_base_takes_the_larger_minimum_of_the_same_heads() -> None:
    rule = make_rule('resfit', critic_heads=3, critic_target_heads=2, base_in_target=True)
    q_base = torch.tensor([[1.5, 6.0], [2.5, 4.5], [1.75, 3.0]])
    rule.target_critic = lambda s, x: torch.cat([Q, q_base], dim=1)
    base = u = torch.zeros(2, LAYOUT.decision_size)
    for seed in range(20):
        rule._generator.manual_seed(seed)
        drawn = torch.randperm(3, generator=torch.Generator().manual_seed(seed))[:2]
        value = rule.target_value(torch.zeros(2, LAYOUT.observation_size), base, u)
        expected = torch.maximum(Q[drawn].min(0).values, q_base[drawn].min(0).values)
        assert torch.equal(value, expected)


def test_the_entropy_counts_only_where_the_residual_is_preferred_to_the_base(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule = make_rule('best_of_n', initial_alpha=0.5, base_in_target=True)
    u = torch.zeros(2, LAYOUT.decision_size)
    monkeypatch.setattr(rule.actor, 'sample', lambda *_: (u, torch.tensor([-3.0, -3.0])))
    residual, base = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 2.0]])
    rule.target_critic = lambda s, x: torch.cat([residual, base], dim=1)
    both = batch()
    both.bootstrap[:], both.reward[:], both.reward_weight[:] = 1.0, 0.0, 0.0
    assert rule.soft_target(both).tolist() == [2.0 + 0.5 * 3.0, 2.0]


def test_td3_smooths_its_target_with_clipped_noise_within_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule = make_rule('resfit', target_std=10.0, target_noise_clip=0.3)
    assert isinstance(rule, Td3)
    drawn = []

    def value(s: Tensor, base: Tensor, u: Tensor) -> Tensor:
        drawn.append(u)
        return torch.tensor([10.0, 10.0])

    monkeypatch.setattr(rule, 'target_value', value)
    for bias in (0.0, 5.0):
        with torch.no_grad():
            rule.target_actor.heads.bias.fill_(bias)
        for _ in range(20):
            target = rule.smoothed_target(batch())
    torch.testing.assert_close(target, torch.tensor([1.0 + 8.1, 0.5]))
    centred, shifted = torch.cat(drawn[:20]).abs(), torch.cat(drawn[20:])
    assert float(centred.max()) == pytest.approx(0.3)
    assert float((centred > 0.299).float().mean()) > 0.9, 'noise of 10 is nearly always clipped'
    assert float(shifted.max()) == 1.0
    assert float(shifted.min()) == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize(('target', 'rises'), [(20.0, True), (-20.0, False)])
def test_the_temperature_rises_while_the_entropy_is_below_its_target(
    target: float, rises: bool
) -> None:
    rule = make_rule('best_of_n', target_entropy_per_dimension=target)
    before = float(rule.log_alpha.detach())
    rule.improve(batch(), rule.actor.normalizer(batch().observation))
    assert (float(rule.log_alpha.detach()) > before) is rises


def test_the_actor_of_resfit_starts_at_exactly_no_residual() -> None:
    rule = make_rule('resfit')
    observation = torch.randn(16, LAYOUT.observation_size)
    base = torch.randn(16, LAYOUT.decision_size)
    for actor in (rule.actor, rule.mean_actor, rule.target_actor):
        assert not actor.mean_action(observation, base).any()
