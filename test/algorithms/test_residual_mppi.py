# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The model that residual-MPPI learns, and its losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence
from transition_builders import make_layout

from residual_rl_ros.algorithms.residual_mppi import (
    ModelNetworks,
    Sequences,
    dynamics_loss,
    prior_loss,
)
from residual_rl_ros.residual_policy.dynamics import DynamicsModel, ModelSizes
from residual_rl_ros.robot.prior import Prior

LAYOUT = make_layout()


def networks(density: Prior = Prior.SQUASHED_GAUSSIAN) -> ModelNetworks:
    """Return networks with random weights everywhere."""
    made = ModelNetworks(ModelSizes((7, 5), (6,), density), LAYOUT)
    generator = torch.Generator().manual_seed(0)
    for name, value in made.state_dict().items():
        value.copy_(torch.randn(value.shape, generator=generator))
        if name.endswith('std'):
            value.abs_().add_(0.1)
    return made


def sequences(steps: int = 3, batch: int = 4) -> Sequences:
    generator = torch.Generator().manual_seed(1)
    follows = torch.ones(batch, steps)
    follows[0, 1:] = 0.0
    return Sequences(
        torch.randn(batch, steps + 1, 3, generator=generator),
        torch.randn(batch, steps, 4, generator=generator),
        follows,
        torch.randn(batch, 8, generator=generator),
    )


@pytest.mark.parametrize('density', [Prior.GAUSSIAN, Prior.SQUASHED_GAUSSIAN])
def test_the_robot_predicts_what_torch_does(density: Prior) -> None:
    twin = networks(density)
    model = DynamicsModel(twin.sizes, LAYOUT, twin.tensors())
    data = sequences()
    state, action = data.observation[:, 0], data.action[:, 0]
    with torch.no_grad():
        step, (mean, log_std) = twin.step(state, action), twin.prior_of(state)
    if density is Prior.GAUSSIAN:
        mean, log_std = mean * twin.half_range + twin.center, log_std + twin.half_range.log()
    close = {'rtol': 1e-4, 'atol': 1e-4}
    within = model.within(step.numpy())  # Predictions of the robot stay near the data.
    np.testing.assert_allclose(model.step(state.numpy(), action.numpy()), within, **close)
    assert 0.2 < (within == step.numpy()).mean() < 1.0
    of_model = model.prior(state.numpy())
    np.testing.assert_allclose(of_model[0], mean, **close)
    np.testing.assert_allclose(of_model[1], log_std, **close)


def test_the_error_over_several_decisions_is_that_of_the_models_own_predictions() -> None:
    twin, data = networks(), sequences()
    total = torch.zeros(())
    for row in range(4):
        state = data.observation[row : row + 1, 0]
        for step in range(3 if row else 1):  # The first row's episode ends after one decision.
            state = twin.step(state, data.action[row : row + 1, step])
            error = (state[0] - data.observation[row, step + 1]) / twin.change.std
            total = total + error.square().mean()
    torch.testing.assert_close(dynamics_loss(twin, data), total / 10.0)


def test_the_distilled_prior_is_judged_by_its_divergence_from_the_base() -> None:
    twin, data = networks(), sequences()
    mean, log_std = twin.prior_of(data.observation[:, 0])
    of_base, log_std_of_base = data.prior.chunk(2, dim=1)
    expected = kl_divergence(
        Normal(of_base, log_std_of_base.exp()), Normal(mean, log_std.exp())
    ).sum(1)
    torch.testing.assert_close(prior_loss(twin, data), expected.mean())


def test_networks_begin_with_the_mean_change_and_a_standard_normal_prior() -> None:
    fresh = ModelNetworks(ModelSizes((5,), (5,), Prior.GAUSSIAN), LAYOUT)
    data = sequences()
    fresh.fit(data.observation[:, 0], data.observation[:, 1])
    change = (data.observation[:, 1] - data.observation[:, 0]).mean(0)
    step = fresh.step(data.observation[:, 0], data.action[:, 0])
    torch.testing.assert_close(step - data.observation[:, 0], change.expand(4, 3))
    assert not fresh.prior_of(data.observation[:, 0])[0].any()
