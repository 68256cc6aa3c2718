# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Observation normalisation as a module, so that it travels with the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalizer(nn.Module):
    """Standardises the last dimension with statistics fitted now and then.

    Args:
        size: number of features.
        min_std: floor of the standard deviation; keeps a constant feature finite.
        clip: bound on the normalised value.
    """

    mean: Tensor
    """Mean per feature, shape (size,)."""
    std: Tensor
    """Standard deviation per feature, shape (size,)."""

    def __init__(self, size: int, min_std: float = 1e-4, clip: float = 10.0) -> None:
        super().__init__()
        self._min_std = min_std
        self._clip = clip
        self.register_buffer('mean', torch.zeros(size))
        self.register_buffer('std', torch.ones(size))

    def fit(self, data: Tensor) -> None:
        """Take the statistics of data, shape (samples, size)."""
        self.mean.copy_(data.mean(0))
        self.std.copy_(data.std(0).clamp_min(self._min_std))

    def forward(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std, clipped, shape (..., size)."""
        return ((x - self.mean) / self.std).clamp(-self._clip, self._clip)
