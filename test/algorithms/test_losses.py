# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The losses are the papers' equations, on numbers that one can follow by hand."""

from __future__ import annotations

import math

import pytest
import torch

from residual_rl_ros.algorithms import cal_ql, losses, sac, td3

Q = torch.tensor([[1.0, 4.0], [3.0, 2.0]])
"""Two critics on two states."""


def test_the_critics_loss_is_the_mean_squared_error_summed_over_heads() -> None:
    y = torch.tensor([2.0, 2.0])
    assert float(losses.critic_loss(Q, y)) == pytest.approx((1 + 4) / 2 + (1 + 0) / 2)


def test_the_neutral_prior_is_the_mean_squared_advantage_summed_over_heads() -> None:
    assert float(losses.neutral_prior_loss(Q)) == pytest.approx((1 + 16) / 2 + (9 + 4) / 2)


def test_the_actors_loss_is_the_cost_of_its_entropy_less_the_value() -> None:
    log_pi, alpha = torch.tensor([-1.0, 2.0]), torch.tensor(0.5)
    mean = ((-0.5 - 1.0) + (1.0 - 2.0)) / 2
    assert float(sac.actor_loss(Q, log_pi, alpha)) == pytest.approx(mean)
    mean = ((-0.5 - 2.0) + (1.0 - 3.0)) / 2
    assert float(sac.actor_loss(Q, log_pi, alpha, 'mean')) == pytest.approx(mean)


@pytest.mark.parametrize(('target', 'gradient'), [(-2.0, 2.5), (3.0, -2.5)])
def test_the_temperature_falls_above_the_target_entropy_and_rises_below(
    target: float, gradient: float
) -> None:
    log_alpha = torch.tensor(0.3, requires_grad=True)
    loss = sac.temperature_loss(log_alpha, torch.tensor([-1.0, 0.0]), target)  # H = 0.5
    assert float(torch.autograd.grad(loss, log_alpha)[0]) == pytest.approx(gradient)


def test_the_deterministic_actor_climbs_the_mean_of_all_critics() -> None:
    assert float(td3.actor_loss(Q)) == -2.5


def test_the_conservative_loss_is_calibrated_for_the_policys_samples_alone() -> None:
    q, density = torch.zeros(1, 1), torch.zeros(2, 1)
    sampled = torch.tensor([[[-5.0], [-5.0]]])
    ours, returns = torch.tensor([False, True]), torch.tensor([1.0])

    def loss(known: torch.Tensor) -> float:
        return float(cal_ql.calibrated_cql_loss(q, sampled, density, ours, known))

    assert loss(torch.tensor([-math.inf])) == pytest.approx(-5.0)
    assert loss(returns) == pytest.approx(math.log((math.exp(-5.0) + math.exp(1.0)) / 2.0))
