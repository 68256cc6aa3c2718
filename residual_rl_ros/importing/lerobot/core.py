# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the networks of LeRobot's policies have in common: numbers, attention, cameras.

Attention is scaled dot-product with several heads (Vaswani et al., arXiv 1706.03762). torch's own
module takes a fused path in inference that has no ONNX form. Parameters have its names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from residual_rl_ros.errors import ConfigError, PolicyImportError
from residual_rl_ros.importing.checkpoint import CONFIG
from residual_rl_ros.importing.lerobot.statistics import Normalisation
from residual_rl_ros.importing.networks.resnet import ResNet, feature_map_size
from residual_rl_ros.importing.networks.window_encoder import SpatialSoftmax
from residual_rl_ros.schema import from_mapping, types_of


class ImagePreparation(nn.Module):
    """Scales pixels to [0, 1], puts colours first and normalises them."""

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        self.normalisation = normalisation

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (batch, n_obs, 3, height, width) of uint8 (batch, n_obs, height, width, 3)."""
        image: Tensor = self.normalisation(pixels.permute(0, 1, 4, 2, 3).float() / 255.0)
        return image


class Resize(nn.Module):
    """Bilinear and antialiased, as torchvision's; two products, which every runtime has.

    ONNX has no antialiasing before opset 18. Resizing is linear, first over rows, then over
    columns: what it makes of unit vectors is all there is to know.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        super().__init__()
        for name, old, new in (
            ('rows', before[0], after[0]),
            ('columns', before[1], after[1]),
        ):
            units = torch.eye(old, device='cpu')[None, None]
            made = nn.functional.interpolate(
                units, size=(new, old), mode='bilinear', antialias=True, align_corners=False
            )
            self.register_buffer(name, made[0, 0], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the image in its new size, shape (batch, 3, height, width)."""
        return self.rows @ image @ self.columns.T


class CenterCrop(nn.Module):
    """The middle of an image, as torchvision's.

    Args:
        before: height and width.
        after: those of the part.

    Raises:
        PolicyImportError: the part is larger.
    """

    def __init__(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        super().__init__()
        if after[0] > before[0] or after[1] > before[1]:
            raise PolicyImportError(
                f'crop_shape is {list(after)}, expected at most the size of the image, '
                f'{list(before)}'
            )
        # Half a pixel rounds to the even side, in Python as in torchvision.
        self.top, self.left = (round((b - a) / 2.0) for b, a in zip(before, after, strict=True))
        self.height, self.width = after

    def forward(self, image: Tensor) -> Tensor:
        """Return the part, shape (batch, 3, height, width)."""
        rows = slice(self.top, self.top + self.height)
        return image[..., rows, self.left : self.left + self.width]


class RgbEncoder(nn.Module):
    """ResNet, spatial softmax and a layer: the cameras of Diffusion and VQ-BeT.

    Args:
        size: height and width of the images.
        variant: of the ResNet.
        groups: group normalisation instead of batch normalisation.
        keypoints: number of keypoints.
        resize: height and width after resizing, or nothing.
        crop: height and width of the middle that is seen, or nothing.
    """

    def __init__(
        self,
        size: tuple[int, int],
        variant: str,
        groups: bool,
        keypoints: int,
        resize: Sequence[int] = (),
        crop: Sequence[int] = (),
    ) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        if resize and tuple(resize) != size:
            steps.append(Resize(size, (resize[0], resize[1])))
        size = (resize[0], resize[1]) if resize else size
        if crop:
            steps.append(CenterCrop(size, (crop[0], crop[1])))
            size = (crop[0], crop[1])
        self.prepare = nn.Sequential(*steps)
        network = ResNet(variant, 'group' if groups else 'batch')
        self.backbone = network.sequential()
        self.pool = SpatialSoftmax(network.channels, *feature_map_size(*size), keypoints)
        self.out = nn.Linear(2 * keypoints, 2 * keypoints)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the policy sees and the keypoints, shape (batch, 2 * keypoints) each.

        Args:
            image: normalised, shape (batch, 3, height, width).
        """
        keypoints = self.pool(self.backbone(self.prepare(image))).flatten(1)
        return torch.relu(self.out(keypoints)), keypoints


def keypoint_names(count: int) -> tuple[str, ...]:
    """Return names of the numbers of so many keypoints: across and down, each in [-1, 1]."""
    return tuple(f'keypoint{index}.{axis}' for index in range(count) for axis in 'uv')


Kind = TypeVar('Kind')


def read_architecture(kind: type[Kind], config: Mapping[str, Any]) -> Kind:
    """Return the architecture that a configuration describes; its other keys are of the training.

    Keys that are null or missing take the default, which is what LeRobot did before there was such
    a key.

    Raises:
        PolicyImportError: a value is of another type or out of range.
    """
    wanted = types_of(kind)
    values = {}
    for item in fields(kind):  # type: ignore[arg-type]
        value = config.get(item.name)
        if value is None:
            continue
        # Older configurations write 0 and 1.
        if wanted[item.name] is bool and value in (0, 1):
            value = bool(value)
        values[item.name] = value
    try:
        return from_mapping(kind, values, CONFIG)
    except ConfigError as error:
        raise PolicyImportError(str(error)) from error


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the attended values, shape (batch, heads, queries, size).

    Args:
        query: shape (batch, heads, queries, size).
        key: shape (batch, heads, keys, size).
        value: likewise.
        mask: added to the scores before the softmax, shape (queries, keys).
    """
    scores = query @ key.transpose(-2, -1) * (1.0 / math.sqrt(query.shape[-1]))
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores, dim=-1) @ value


def split_heads(x: Tensor, heads: int, size: int) -> Tensor:
    """Return (batch, heads, tokens, size) of (batch, tokens, heads * size).

    The number of tokens is a constant of a graph and its batch is not: of sizes that are computed
    while it runs, the exporter may take the batch of its example for the only one.
    """
    return x.reshape(-1, int(x.shape[1]), heads, size).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Return (batch, tokens, heads * size) of (batch, heads, tokens, size)."""
    heads, tokens, size = (int(count) for count in x.shape[1:])
    return x.transpose(1, 2).reshape(-1, tokens, heads * size)


class MultiheadAttention(nn.Module):
    """Attention with the parameters of `torch.nn.MultiheadAttention`, batch first.

    Args:
        width: size of a token.
        heads: number of heads; divides the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads, self.size = width, heads, width // heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return shape (batch, queries, width)."""
        projected = [
            split_heads(nn.functional.linear(x, weight, bias), self.heads, self.size)
            for x, weight, bias in zip(
                (query, key, value),
                torch.split(self.in_proj_weight, self.width),
                torch.split(self.in_proj_bias, self.width),
                strict=True,
            )
        ]
        result: Tensor = self.out_proj(merge_heads(attend(*projected)))
        return result


@dataclass(frozen=True)
class Observed:
    """A normalised window of observations."""

    state: Tensor | None
    """Shape (batch, n_obs_steps, numbers); None if the policy takes none."""
    environment: Tensor | None
    """Of objects, in simulation; likewise."""
    images: tuple[Tensor, ...]
    """Of each camera, shape (batch, n_obs_steps, 3, height, width)."""

    @property
    def batch(self) -> int:
        """Size of the batch; while a graph is made, what it is computed from."""
        numbers = self.state if self.state is not None else self.environment
        return (numbers if numbers is not None else self.images[0]).shape[0]


class Core(nn.Module):
    """A network between the normalisations."""

    def forward(self, observed: Observed, noise: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return the normalised chunk (batch, horizon, m), and features of each newest image.

        Args:
            observed: the window.
            noise: shape (batch, *noise_shape); None of a policy without.
        """
        raise NotImplementedError
