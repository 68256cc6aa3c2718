# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The losses of residual PPO are the equations of residual policy gradient."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from residual_rl_ros.algorithms.residual_ppo import (
    augmented_reward,
    clipped_surrogate,
    generalised_advantage,
)

numbers = st.floats(-10.0, 10.0)


@st.composite
def rollouts(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Draw TD errors of rows, and the row that follows each: robots in turn, cut anywhere."""
    count = draw(st.integers(1, 12))
    errors = np.array(draw(st.lists(numbers, min_size=count, max_size=count)))
    following = np.full(count, -1)
    newest: dict[int, int] = {}
    for row in range(count):
        robot = draw(st.integers(0, 2))
        if robot in newest and draw(st.booleans()):
            following[newest[robot]] = row
        newest[robot] = row
    return errors, following


@settings(max_examples=60, deadline=None)
@given(rollouts(), st.floats(0.0, 1.0))
def test_the_advantage_is_the_discounted_sum_of_td_errors_to_the_end_of_its_segment(
    rollout: tuple[np.ndarray, np.ndarray], decay: float
) -> None:
    errors, following = rollout
    for row, found in enumerate(generalised_advantage(errors, following, decay)):
        expected, factor, at = 0.0, 1.0, row
        while at != -1:
            expected += factor * errors[at]
            factor, at = factor * decay, following[at]
        assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(numbers, numbers, numbers, st.floats(0.0, 5.0), st.floats(0.0, 5.0))
def test_the_reward_is_what_the_two_knobs_make_of_add_on_prior_and_entropy(
    r: float, log_prior: float, log_pi: float, omega: float, alpha: float
) -> None:
    values = [torch.tensor([x], dtype=torch.float64) for x in (r, log_prior, log_pi)]
    found = augmented_reward(*values, omega, alpha).item()
    # KL-regularised RL to the prior, and maximum entropy with an add-on, are two of its cases.
    kl, entropy = alpha * (log_pi - log_prior), -alpha * log_pi
    assert found == pytest.approx(r - kl + (omega - alpha) * log_prior, abs=1e-9)
    assert augmented_reward(*values, 0.0, alpha).item() == pytest.approx(r + entropy, abs=1e-9)
    assert augmented_reward(*values, 0.0, 0.0).item() == r


class TabularMdp:
    """A random MDP with the exact soft value of a softmax policy."""

    def __init__(self, seed: int, states: int = 3, actions: int = 3, gamma: float = 0.8) -> None:
        rng = np.random.default_rng(seed)
        shape = (states, actions)
        self.gamma = gamma
        self.reward = torch.tensor(rng.normal(size=shape))
        self.next = torch.tensor(rng.dirichlet(np.ones(states), size=shape))
        self.prior = torch.tensor(rng.normal(size=shape)).log_softmax(-1)
        self.start = torch.tensor(rng.dirichlet(np.ones(states)))
        self.logits = torch.tensor(rng.normal(size=shape))

    def augmented(self, log_pi: Tensor, omega: float, alpha: float) -> Tensor:
        return augmented_reward(self.reward, self.prior, log_pi, omega, alpha)

    def value(self, log_pi: Tensor, omega: float, alpha: float) -> Tensor:
        """Return V(s), that of the policy in the augmented MDP, by a linear solve."""
        pi = log_pi.exp()
        move = torch.einsum('sa,sat->st', pi, self.next)
        reward = (pi * self.augmented(log_pi, omega, alpha)).sum(-1)
        return torch.linalg.solve(torch.eye(len(move)).double() - self.gamma * move, reward)

    def visits(self, log_pi: Tensor) -> Tensor:
        """Return the discounted number of visits of each state."""
        move = torch.einsum('sa,sat->st', log_pi.exp(), self.next)
        identity = torch.eye(len(move)).double()
        return torch.linalg.solve(identity - self.gamma * move.T, self.start)


@pytest.mark.parametrize(
    ('omega', 'alpha'), [(0.0, 0.7), (0.7, 0.7), (1.5, 0.3), (0.0, 0.0)], ids=str
)
@pytest.mark.parametrize('seed', range(3))
def test_the_surrogate_has_the_gradient_of_the_soft_return_without_an_entropy_term(
    seed: int, omega: float, alpha: float
) -> None:
    mdp = TabularMdp(seed)
    logits = mdp.logits.clone().requires_grad_()
    log_pi = logits.log_softmax(-1)
    # J by autograd sees the entropy's own gradient too, which has zero mean.
    soft_return = (mdp.start * mdp.value(log_pi, omega, alpha)).sum()
    (expected,) = torch.autograd.grad(soft_return, logits)

    logits = mdp.logits.clone().requires_grad_()
    log_pi = logits.log_softmax(-1)
    old = log_pi.detach()
    v = mdp.value(old, omega, alpha)
    # One row for each (s, a), which counts as often as the policy comes there.
    error = mdp.augmented(old, omega, alpha) + mdp.gamma * mdp.next @ v - v[:, None]
    weight = mdp.visits(old)[:, None] * old.exp()
    loss = clipped_surrogate(log_pi, old, error, weight, 0.2) * error.numel()
    (found,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(-found, expected)

    # And by differences of J, which know nothing of either derivation.
    step = 1e-6
    for s, a in itertools.islice(itertools.product(range(3), range(3)), 4):
        ends = []
        for sign in (1.0, -1.0):
            moved = mdp.logits.clone()
            moved[s, a] += sign * step
            value = mdp.value(moved.log_softmax(-1), omega, alpha)
            ends.append((mdp.start * value).sum().item())
        assert -found[s, a].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


def test_the_advantage_of_an_older_actor_counts_by_how_likely_its_action_is_now() -> None:
    # Two actions; rows of pi_b, reweighted, have the gradient of rows of pi_o.
    advantage = torch.tensor([1.0, -0.5])
    behaviour, proximal = torch.tensor([0.6, 0.4]), torch.tensor([0.5, 0.5])

    def gradient(drawn: Tensor, weight: Tensor) -> Tensor:
        logits = torch.zeros(2, requires_grad=True)
        log_pi = logits.log_softmax(-1)
        loss = clipped_surrogate(log_pi, proximal.log(), advantage, drawn * weight, 0.2)
        return torch.autograd.grad(loss, logits)[0]

    torch.testing.assert_close(
        gradient(behaviour, proximal / behaviour), gradient(proximal, torch.ones(2))
    )


def test_the_surrogate_has_no_gradient_beyond_the_clip_range() -> None:
    log_pi = torch.tensor([0.3, -0.3, 0.3, -0.3], requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, -1.0, 1.0])
    loss = clipped_surrogate(log_pi, torch.zeros(4), advantage, torch.ones(4), 0.2)
    (found,) = torch.autograd.grad(loss, log_pi)
    assert found[:2].tolist() == [0.0, 0.0]
    assert (found[2:] != 0.0).all()
