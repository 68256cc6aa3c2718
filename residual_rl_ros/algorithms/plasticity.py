# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a critic can still learn: dormant units and the rank of its features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

DORMANT_BELOW = 0.025
"""A unit is dormant if its mean activation is below this share of its layer's average
(Sokar et al., arXiv 2302.12902)."""


def plasticity(features: Tensor) -> dict[str, float]:
    """Return metrics of the last hidden layer of critics.

    `critic_rank` is the number of singular values that hold 99 % of the features' sum (Kumar et
    al., arXiv 2010.14498), over their width, of the first critic.

    Args:
        features: activations, shape (heads, batch, width).
    """
    activity = features.abs().mean(1)
    dormant = activity <= DORMANT_BELOW * activity.mean(-1, keepdim=True)
    return {
        'critic_dormant_share': float(dormant.float().mean()),
        'critic_rank': effective_rank(features[0]) / features.shape[-1],
    }


def effective_rank(features: Tensor) -> float:
    """Return the number of singular values that hold 99 % of their sum.

    NaN where there are none to compute: a metric must not end the learner.

    Args:
        features: shape (batch, width).
    """
    try:
        singular = torch.linalg.svdvals(features)
    except RuntimeError:  # LinAlgError is one.
        return math.nan
    share = singular.cumsum(0) / singular.sum().clamp_min(1e-12)
    return float(int((share < 0.99).sum()) + 1) if bool(share.isfinite().all()) else math.nan
