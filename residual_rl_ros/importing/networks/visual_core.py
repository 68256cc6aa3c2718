# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Features of a camera: crop, residual network, pooling and a linear layer.

`named_as_here` renames the weights of robomimic's VisualCore, which holds each of them twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from residual_rl_ros.errors import PolicyImportError, shown
from residual_rl_ros.importing.networks.resnet import ResNet, feature_map_size
from residual_rl_ros.importing.networks.spatial_softmax import SpatialSoftmax

PARTS = ('conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2', 'layer3', 'layer4')
"""Layers of a residual network by the number that they have in a sequence."""
ALIASES = ('backbone.', 'pool.')
"""Second names of weights that are below `nets.` too."""


@dataclass(frozen=True)
class VisualCoreSpec:
    """What a camera's network is made of.

    Args:
        height, width: of the picture [px].
        variant: of the residual network.
        norm: its normalisation, `batch` or `group`.
        crop: height and width of the crop at the centre [px]; None takes the whole picture.
        crop_rounds: half a pixel rounds to the even side, as in torchvision, else down.
        keypoints: of the spatial softmax; None takes one for each channel.
        temperature: of the spatial softmax.
        pooling: `SpatialSoftmax`, `mean` or `none`.
        features: outputs of the linear layer; None has none.
    """

    height: int
    width: int
    variant: str = 'resnet18'
    norm: str = 'batch'
    crop: tuple[int, int] | None = None
    crop_rounds: bool = False
    keypoints: int | None = 32
    temperature: float = 1.0
    pooling: str = 'SpatialSoftmax'
    features: int | None = 64


class CentreCrop(nn.Module):
    """The middle of a picture."""

    def __init__(self, spec: VisualCoreSpec) -> None:
        super().__init__()
        self.height, self.width = spec.crop or (spec.height, spec.width)
        if not (0 < self.height <= spec.height and 0 < self.width <= spec.width):
            raise PolicyImportError(
                f'the crop of {self.height} x {self.width} pixels is larger than the picture of '
                f'{spec.height} x {spec.width}'
            )
        rounded = round if spec.crop_rounds else math.floor
        self.top = rounded((spec.height - self.height) / 2)
        self.left = rounded((spec.width - self.width) / 2)

    def forward(self, image: Tensor) -> Tensor:
        """Return the crop of images (batch, 3, height, width)."""
        return image[:, :, self.top : self.top + self.height, self.left : self.left + self.width]


class VisualCore(nn.Module):
    """Features of pictures.

    Raises:
        PolicyImportError: network or pooling are unknown.
    """

    def __init__(self, spec: VisualCoreSpec) -> None:
        super().__init__()
        self.crop = CentreCrop(spec)
        self.backbone = ResNet(spec.variant, spec.norm)
        rows, columns = feature_map_size(self.crop.height, self.crop.width)
        self.pool: nn.Module
        if spec.pooling == 'SpatialSoftmax':
            self.pool = SpatialSoftmax(
                self.backbone.channels, rows, columns, spec.keypoints, spec.temperature
            )
            self.features = 2 * (spec.keypoints or self.backbone.channels)
        elif spec.pooling == 'mean':
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.features = self.backbone.channels
        elif spec.pooling == 'none':
            self.pool = nn.Identity()
            self.features = self.backbone.channels * rows * columns
        else:
            raise PolicyImportError(
                f'pool_class is {shown(spec.pooling)}, expected SpatialSoftmax or null'
            )
        self.linear = (
            nn.Identity() if spec.features is None else nn.Linear(self.features, spec.features)
        )
        self.features = spec.features or self.features

    def forward(self, image: Tensor) -> Tensor:
        """Return features (batch, f) of images (batch, 3, height, width) in the network's range."""
        pooled = self.pool(self.backbone(self.crop(image)))
        features: Tensor = self.linear(torch.flatten(pooled, 1))
        return features


def named_as_here(tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Return the weights of robomimic's VisualCore under the names of `VisualCore`.

    Raises:
        PolicyImportError: a weight differs from its second name, or the positions of the softmax
            are others.
    """
    made: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(ALIASES):
            twin = re.sub('^backbone', 'nets.0', re.sub('^pool', 'nets.1', name))
            if twin not in tensors or not torch.equal(tensors[twin], tensor):
                raise PolicyImportError(
                    f'{what} has {name} and {twin}, which should be the same weight; the '
                    'checkpoint is damaged'
                )
            continue
        part = re.fullmatch(r'nets\.0\.nets\.(\d+)\.(.+)', name)
        if part and int(part[1]) < len(PARTS):
            made[f'backbone.{PARTS[int(part[1])]}.{part[2]}'] = tensor
        elif match := re.fullmatch(r'nets\.1\.nets\.(weight|bias)', name):
            made[f'pool.nets.{match[1]}'] = tensor
        elif match := re.fullmatch(r'nets\.[123]\.(weight|bias)', name):
            made[f'linear.{match[1]}'] = tensor
        elif name not in ('nets.1.temperature', 'nets.1.pos_x', 'nets.1.pos_y'):
            made[name] = tensor  # It fits nowhere; who loads it says so.
    if 'nets.1.pos_x' in tensors:
        positions = [tensors['nets.1.pos_x'].ravel(), tensors['nets.1.pos_y'].ravel()]
        made['pool.pos_grid'] = torch.stack(positions, dim=1)
    return made
