# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Targets and losses of critics, which several rules share.

Notation: s observation, a executed action, r the n-step sum of rewards over j decisions, a prime
for the decision after them.
"""

from __future__ import annotations

from torch import Tensor

from residual_rl_ros.transitions.batch import Batch


def bellman_target(batch: Batch, value: Tensor, reward_offset: float) -> Tensor:
    """Return y = r + offset + gamma^j V(s'), shape (batch,); a termination has no V(s').

    One that is labelled a failure goes on with the offset for ever: to fail soon must not be
    cheaper than to succeed late.
    """
    paid = batch.reward + reward_offset * batch.reward_weight
    return td_target(paid, batch.bootstrap, value)


def td_target(reward: Tensor, bootstrap: Tensor, value: Tensor) -> Tensor:
    """Return y = r + gamma^j V(s'), shape (batch,); a termination has no V(s')."""
    return reward + bootstrap * value


def critic_loss(q: Tensor, y: Tensor) -> Tensor:
    """Return the sum over heads of the mean over the batch of (Q_i(s, a) - y)^2."""
    return (q - y).square().mean(1).sum(0)


def neutral_prior_loss(advantage: Tensor) -> Tensor:
    """Return the sum over heads of the mean of the squared advantage of random residuals."""
    return advantage.square().mean(1).sum(0)
