# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""log pi of every kind of prior, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from transition_builders import make_layout

from residual_rl_ros.algorithms.prior import Density
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.transitions.layout import TransitionLayout

CENTRE, HALF = np.array([0.5, 0.0] * 2), np.array([1.5, 0.5] * 2)


def layout(kind: Prior) -> TransitionLayout:
    if kind is Prior.CATEGORICAL:
        return make_layout(
            action_names=('left', 'right', 'stay'),
            action_min=(0.0,) * 3,
            action_max=(1.0,) * 3,
            residual_bound=(1.0,) * 3,
            prior=kind,
            discrete=True,
        )
    return make_layout(action_min=(-1.0, -0.5), action_max=(2.0, 0.5), prior=kind)


def density(kind: Prior) -> Density:
    return Density(layout(kind)).double()


four = st.lists(st.floats(-3.0, 3.0), min_size=4, max_size=4).map(np.array)


@settings(max_examples=30, deadline=None)
@given(mean=four, log_std=four, z=four)
def test_a_gaussian_prior_is_that_of_scipy(mean, log_std, z):
    told = torch.tensor(np.concatenate([mean, log_std]))
    expected = stats.norm.logpdf(z, mean, np.exp(log_std)).sum()
    prior = density(Prior.GAUSSIAN)
    assert float(prior.log_prob(told, torch.tensor(z))) == pytest.approx(expected, rel=1e-9)
    entropy = stats.norm.entropy(mean, np.exp(log_std)).sum()
    assert float(prior.entropy(told)) == pytest.approx(entropy)


@settings(max_examples=30, deadline=None)
@given(mean=four, log_std=four, z=four)
def test_a_squashed_gaussian_prior_has_the_exact_change_of_variables(mean, log_std, z):
    told = torch.tensor(np.concatenate([mean, log_std]))
    action = CENTRE + HALF * np.tanh(z)
    jacobian = np.log(HALF) - 2.0 * np.log(np.cosh(z))
    expected = (stats.norm.logpdf(z, mean, np.exp(log_std)) - jacobian).sum()
    prior = density(Prior.SQUASHED_GAUSSIAN)
    assert float(prior.log_prob(told, torch.tensor(action))) == pytest.approx(expected, rel=1e-6)
    assert float(prior.log_prob_of(told, torch.tensor(z))) == pytest.approx(expected, rel=1e-9)


def test_a_squashed_density_is_one_in_all():
    prior = Density(make_layout(decision_steps=1, prior=Prior.SQUASHED_GAUSSIAN)).double()
    told = torch.tensor([0.3, -0.2, -0.5, -0.8], dtype=torch.float64)
    axes = [np.linspace(low, -low, 801)[1:-1] for low in (-1.0, -0.5)]
    grid = torch.tensor(np.stack(np.meshgrid(*axes, indexing='ij'), -1))
    mass = prior.log_prob(told, grid).exp().sum() * (2.0 / 800) * (1.0 / 800)
    assert float(mass) == pytest.approx(1.0, abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(
    logits=st.lists(st.floats(-9.0, 9.0), min_size=6, max_size=6),
    chosen=st.tuples(*[st.integers(0, 2)] * 2),
)
def test_a_categorical_prior_is_that_of_scipy(logits, chosen):
    prior = density(Prior.CATEGORICAL)
    told = torch.tensor(logits, dtype=torch.float64)
    table = special.log_softmax(np.reshape(logits, (2, 3)), axis=1)
    action = torch.tensor(np.eye(3)[list(chosen)].ravel())
    expected = sum(table[step, each] for step, each in enumerate(chosen))
    assert float(prior.log_prob(told, action)) == pytest.approx(expected)
    entropy = sum(stats.entropy(np.exp(row)) for row in table)
    assert float(prior.entropy(told)) == pytest.approx(entropy)
    assert prior.mode(told).tolist() == np.eye(3)[table.argmax(1)].ravel().tolist()


@pytest.mark.parametrize('action', [2.0, -1.0, 5.0])
def test_the_edge_of_the_range_has_a_finite_density_in_float32(action):
    prior = Density(layout(Prior.SQUASHED_GAUSSIAN))
    at = torch.tensor([action, 0.5, action, 0.5], requires_grad=True)
    log_pi = prior.log_prob(torch.zeros(8), at)
    (gradient,) = torch.autograd.grad(log_pi, [at])
    assert torch.isfinite(log_pi)
    assert torch.isfinite(gradient).all()
    far = prior.log_prob_of(torch.zeros(8), torch.full((4,), 40.0))
    slope = 2.0 * (np.log(2.0) - 40.0)
    expected = (stats.norm.logpdf(40.0) - slope - np.log(HALF)).sum()
    assert float(far) == pytest.approx(expected, rel=1e-5)


def test_what_never_is_and_what_is_nearly_certain_stay_finite():
    never = density(Prior.CATEGORICAL)
    told = torch.tensor([-1e6, 0.0, 0.0] * 2, dtype=torch.float64)
    assert torch.isfinite(never.log_prob(told, torch.tensor([1.0, 0.0, 0.0] * 2))).all()
    sharp = Density(layout(Prior.GAUSSIAN))
    block = torch.cat([torch.zeros(4), torch.full((4,), -1e6)])
    assert torch.isfinite(sharp.log_prob(block, torch.ones(4)))


@pytest.mark.parametrize('kind', [Prior.GAUSSIAN, Prior.SQUASHED_GAUSSIAN])
def test_log_pi_has_the_gradient_of_finite_differences(kind):
    prior = density(kind)
    told = torch.tensor([0.3, 0.1, -0.4, 0.2, -1.0, 0.2, 0.5, -0.3], dtype=torch.float64)
    action = torch.tensor([0.9, 0.2, -0.1, -0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: prior.log_prob(told, a), (action,))


@pytest.mark.parametrize('kind', [Prior.GAUSSIAN, Prior.SQUASHED_GAUSSIAN, Prior.CATEGORICAL])
def test_samples_have_the_density_that_they_are_given(kind):
    prior = density(kind)
    told = torch.linspace(-0.8, 0.4, prior.size, dtype=torch.float64).expand(4000, -1)
    action, log_pi = prior.sample(told, torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_pi, prior.log_prob(told, action), rtol=1e-5, atol=1e-5)
    if kind is Prior.CATEGORICAL:
        expected = prior.log_probs(told[0]).exp().flatten()
        assert (action.mean(0) - expected).abs().max() < 0.03
        assert abs(float(-log_pi.mean() - prior.entropy(told[0]))) < 0.03
    else:
        z = prior.from_action(action)
        mean, log_std = prior.moments(told[0])
        assert ((z.mean(0) - mean) / log_std.exp()).abs().max() < 0.06
        assert (z.std(0).log() - log_std).abs().max() < 0.06


@pytest.mark.parametrize('kind', [Prior.GAUSSIAN, Prior.SQUASHED_GAUSSIAN])
def test_what_the_residual_bound_cuts_off_counts_as_all_that_is_beyond_it(kind):
    """Of many draws, as many are beyond an end as its probability says."""
    prior = density(kind)
    told = torch.tensor([0.3, -0.2, 0.1, 0.0, -0.5, 0.2, -0.1, 0.4], dtype=torch.float64)
    drawn, _ = prior.sample(told.expand(100_000, -1), torch.Generator().manual_seed(3))
    ends = torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64)
    at = prior.to_action(torch.tensor([0.6, -0.7, 0.1, 0.2], dtype=torch.float64))
    given = prior.log_prob(told, at, ends)
    inner = stats.norm.logpdf(prior.from_action(at), told[:4], told[4:].exp())
    if kind is Prior.SQUASHED_GAUSSIAN:
        z = np.array([0.1, 0.2])
        inner[2:] -= np.log(HALF[2:]) - 2.0 * np.log(np.cosh(z))
    beyond = (drawn[:, 0] >= at[0]).double().mean(), (drawn[:, 1] <= at[1]).double().mean()
    expected = np.log(beyond).sum() + inner[2:].sum()
    assert float(given) == pytest.approx(expected, abs=0.03)


def test_a_dimension_that_the_base_never_moves_has_no_density():
    still = make_layout(
        decision_steps=1,
        action_min=(-1.0, 0.3),
        action_max=(1.0, 0.3),
        residual_bound=(0.1, 0.0),
        prior=Prior.SQUASHED_GAUSSIAN,
    )
    log_pi = Density(still).log_prob(torch.zeros(4), torch.tensor([0.0, 0.3]))
    assert float(log_pi) == pytest.approx(stats.norm.logpdf(0.0), rel=1e-5)


def test_a_base_without_a_density_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match='mean and log_std, or logits'):
        Density(make_layout())


def test_the_entropy_of_a_squashed_gaussian_is_refused():
    with pytest.raises(ConfigError, match='closed form'):
        density(Prior.SQUASHED_GAUSSIAN).entropy(torch.zeros(8))
