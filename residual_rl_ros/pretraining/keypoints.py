# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keypoints of an image: a small convolutional network with a spatial softmax.

Levine et al., arXiv 1504.00702.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Keypoints(nn.Module):
    """Image to keypoints in [-1, 1]: where each feature map of a small network is bright.

    Args:
        keypoints: feature maps of the last layer.
        channels: feature maps of the hidden layers.
        size: height and width of the image, even [px].
        stride: of the second layer; 2 is faster and, with the same features, coarser.
    """

    grid: Tensor
    """Horizontal and vertical coordinate of every cell, shape (2, cells)."""

    def __init__(
        self, keypoints: int, channels: int, size: tuple[int, int], stride: int = 1
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *_block(3, channels, 5, stride=2, padding=2),
            *_block(channels, channels, 3, stride=stride, padding=1),
            *_block(channels, channels, 3, padding=2, dilation=2),
            nn.Conv2d(channels, keypoints, 1),
        )
        v, u = torch.meshgrid(
            torch.linspace(-1.0, 1.0, size[0] // 2 // stride),
            torch.linspace(-1.0, 1.0, size[1] // 2 // stride),
            indexing='ij',
        )
        self.register_buffer('grid', torch.stack([u.flatten(), v.flatten()]))

    def forward(self, image: Tensor) -> Tensor:
        """Return features (batch, 2 * keypoints), u and v of each, of uint8 RGB images.

        Args:
            image: shape (batch, height, width, 3).
        """
        x = image.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        weights = self.net(x).flatten(2).softmax(-1)
        keypoints: Tensor = weights @ self.grid.T
        return keypoints.flatten(1)


def keypoint_names(keypoints: int) -> tuple[str, ...]:
    """Return the names of what `Keypoints` returns."""
    return tuple(f'keypoint{index}.{axis}' for index in range(keypoints) for axis in 'uv')


def _block(inputs: int, outputs: int, kernel: int, **options: int) -> tuple[nn.Module, ...]:
    """Return convolution, batch normalisation (folded away in the exported graph) and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)  # type: ignore[arg-type]
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
