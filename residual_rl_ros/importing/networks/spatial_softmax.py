# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keypoints of a feature map (Finn et al., arXiv 1509.06113)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class SpatialSoftmax(nn.Module):
    """Where the softmax of each channel has its mean, in [-1, 1] over the map.

    Args:
        channels: channels of the feature map.
        height: its rows.
        width: its columns.
        keypoints: a convolution makes as many channels first; None takes those that are there.
        temperature: divides the map before the softmax.
    """

    pos_grid: Tensor

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        keypoints: int | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.nets = None if keypoints is None else nn.Conv2d(channels, keypoints, 1)
        self.cells = height * width
        self.keypoints = channels if keypoints is None else keypoints
        self.temperature = temperature
        x, y = np.meshgrid(np.linspace(-1.0, 1.0, width), np.linspace(-1.0, 1.0, height))
        grid = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
        self.register_buffer('pos_grid', torch.from_numpy(grid))

    def forward(self, features: Tensor) -> Tensor:
        """Return keypoints (batch, keypoints, 2) as (x, y) of (batch, channels, height, width)."""
        if self.nets is not None:
            features = self.nets(features)
        flat = features.reshape(-1, self.cells) / self.temperature
        points = torch.softmax(flat, dim=-1) @ self.pos_grid
        return points.reshape(-1, self.keypoints, 2)
