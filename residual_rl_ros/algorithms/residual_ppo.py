# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Residual policy gradient with PPO: on-policy customisation of a base policy with a density.

Wang et al., "Residual Policy Gradient: A Reward View of KL-regularized Objective", arXiv
2503.11019. Notation of `customisation`, and: pi_b the actor that drew an action, pi_o the actor at
the beginning of a phase of updates, V the value of pi_b, A its advantage.

The entropy is part of the reward, so that no loss has a bonus for it. Robots act with the actor
before the latest one for a while; the surrogate therefore has two ratios (Hilton et al., arXiv
2110.00641): pi / pi_o, which is clipped, and pi_o / pi_b, which says how much a row counts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from residual_rl_ros.transitions.replay_buffer import NONE

MAX_WEIGHT = 2.0
"""Most that a row counts, pi_o / pi_b: an action that an older actor hardly ever draws."""


def augmented_reward(
    reward: Tensor, log_prior: Tensor, log_pi: Tensor, prior_weight: float, temperature: float
) -> Tensor:
    """Return r = r_R + omega' log pi(a|s) - alpha^ log pi_b(a|s), shape (rows,)."""
    return reward + prior_weight * log_prior - temperature * log_pi


def generalised_advantage(
    td_error: npt.NDArray[np.float64], following: npt.NDArray[np.int64], decay: float
) -> npt.NDArray[np.float64]:
    """Return A_t = delta_t + gamma lambda A_(t+1), shape (rows,); GAE, arXiv 1506.02438.

    Args:
        td_error: delta_t = r_t + gamma V(s_(t+1)) - V(s_t), without V at a termination; rows in the
            order of time.
        following: row of t + 1, `NONE` where the sum ends: delta_t has V(s_(t+1)) there already.
        decay: gamma lambda.
    """
    advantage = td_error.copy()
    for row in range(len(advantage) - 1, -1, -1):
        if following[row] != NONE:
            advantage[row] += decay * advantage[following[row]]
    return advantage


def clipped_surrogate(
    log_pi: Tensor, log_proximal: Tensor, advantage: Tensor, weight: Tensor, clip_range: float
) -> Tensor:
    """Return the mean of -w min(rho A, clip(rho, 1 - eps, 1 + eps) A) with rho = pi / pi_o.

    Args:
        log_pi: log pi(a|s) of the actor, shape (batch,).
        log_proximal: that of pi_o.
        advantage: A, shape (batch,).
        weight: w = pi_o / pi_b, shape (batch,).
        clip_range: eps.
    """
    ratio = (log_pi - log_proximal).exp()
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -(weight * torch.minimum(ratio * advantage, clipped * advantage)).mean()


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Return half the mean of (V(s) - (A + V_o(s)))^2."""
    return 0.5 * (value - target).square().mean()
