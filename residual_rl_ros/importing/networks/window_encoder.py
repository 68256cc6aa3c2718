# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Features of a window of observations: numbers and images, in the order of the checkpoint.

`named_as_here` renames the weights of robomimic's VisualCore, which holds each of them twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from residual_rl_ros.errors import PolicyImportError, shown
from residual_rl_ros.importing.networks.resnet import ResNet, feature_map_size


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


PARTS = ('conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2', 'layer3', 'layer4')
"""Layers of a residual network by the number that they have in a sequence."""
ALIASES = ('backbone.', 'pool.')
"""Second names of weights that are below `nets.` too."""


@dataclass(frozen=True)
class VisualCoreSpec:
    """What a camera's network is made of.

    Args:
        height, width: of the image [px].
        variant: of the residual network.
        norm: its normalisation, `batch` or `group`.
        crop: height and width of the crop at the centre [px]; None takes the whole image.
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
    """The middle of an image."""

    def __init__(self, spec: VisualCoreSpec) -> None:
        super().__init__()
        self.height, self.width = spec.crop or (spec.height, spec.width)
        if not (0 < self.height <= spec.height and 0 < self.width <= spec.width):
            raise PolicyImportError(
                f'the crop of {self.height} x {self.width} pixels is larger than the image of '
                f'{spec.height} x {spec.width}'
            )
        rounded = round if spec.crop_rounds else math.floor
        self.top = rounded((spec.height - self.height) / 2)
        self.left = rounded((spec.width - self.width) / 2)

    def forward(self, image: Tensor) -> Tensor:
        """Return the crop of images (batch, 3, height, width)."""
        return image[:, :, self.top : self.top + self.height, self.left : self.left + self.width]


class VisualCore(nn.Module):
    """Features of images.

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


@dataclass(frozen=True)
class Numbers:
    """A part of the state vector that is a feature as it is: indices `start` to `stop`."""

    start: int
    stop: int


class Camera(nn.Module):
    """Images as a network wants them, and the network.

    Args:
        core: of images (batch, 3, height, width) to features (batch, f).
        scale, offset: of a pixel in [0, 1]; one number or one for each colour.
        mean, std: of a pixel after that, likewise.
        size: height and width to which an image is brought first; None leaves it.
    """

    scale: Tensor
    offset: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        core: nn.Module,
        scale: Sequence[float] = (1.0,),
        offset: Sequence[float] = (0.0,),
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.core = core
        self.size = size
        for name, values in (('scale', scale), ('offset', offset), ('mean', mean), ('std', std)):
            self.register_buffer(
                name, torch.tensor([*values], dtype=torch.float32).reshape(-1, 1, 1)
            )

    def forward(self, images: Tensor) -> Tensor:
        """Return features (batch x time, f) of uint8 (batch, time, height, width, 3)."""
        image = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
        image = image * self.scale + self.offset
        if self.size is not None:
            image = nn.functional.interpolate(image, self.size, mode='bilinear')
        features: Tensor = self.core((image - self.mean) / self.std)
        return features


class WindowEncoder(nn.Module):
    """Features of each observation of a window.

    Args:
        parts: numbers and cameras, in the order in which their features are concatenated.
        scale, offset: of the state's numbers, shape (n,).
        activation: of the features of cameras.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        parts: Sequence[Numbers | Camera],
        scale: Tensor,
        offset: Tensor,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.parts = tuple(part if isinstance(part, Numbers) else None for part in parts)
        self.cameras = nn.ModuleList(part for part in parts if isinstance(part, Camera))
        self.activation = activation or nn.Identity()
        self.register_buffer('scale', scale)
        self.register_buffer('offset', offset)

    def forward(self, state: Tensor, images: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return features, and those of each camera's newest image.

        Args:
            state: shape (batch, time, n), in units of the checkpoint.
            images: of each camera in its order, uint8 (batch, time, height, width, 3).

        Returns:
            Features (batch, time, f), and for each camera (batch, its features).
        """
        time = state.shape[1]
        numbers = state * self.scale + self.offset
        seen = [
            self.activation(camera(each)).unflatten(0, (-1, time))
            for camera, each in zip(self.cameras, images, strict=True)
        ]
        waiting = list(seen)
        features = [
            waiting.pop(0) if part is None else numbers[:, :, part.start : part.stop]
            for part in self.parts
        ]
        return torch.cat(features, dim=-1), [each[:, -1] for each in seen]


@dataclass(frozen=True)
class Observations:
    """Names and sizes of what a policy observes, and the encoder."""

    encoder: WindowEncoder
    size: int
    """Numbers of the features of one observation."""
    names: tuple[str, ...]
    """Of the state's numbers."""
    centre: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    """Usual state and its standard deviation, shape (n,) each."""
    cameras: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Height and width of each [px]."""
    features: Mapping[str, int] = field(default_factory=dict)
    """Numbers of the features of each."""
    remarks: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    """Beginnings of the names of the encoder's weights."""
