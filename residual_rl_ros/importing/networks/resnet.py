# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Residual networks up to their last feature map (He et al., arXiv 1512.03385).

Parameters have the names of torchvision's, with which all formats store them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from residual_rl_ros.errors import PolicyImportError

Norm = Callable[[int], nn.Module]

LAYERS = {
    'resnet18': (False, (2, 2, 2, 2)),
    'resnet34': (False, (3, 4, 6, 3)),
    'resnet50': (True, (3, 4, 6, 3)),
    'resnet101': (True, (3, 4, 23, 3)),
    'resnet152': (True, (3, 8, 36, 3)),
}
"""Variants: whether their blocks have a bottleneck, and how many blocks the four stages have."""
STEM = 64
"""Channels after the first convolution."""
WIDTHS = (64, 128, 256, 512)
"""Channels of the stages, without the expansion of a bottleneck."""
BOTTLENECK_EXPANSION = 4


class FrozenBatchNorm(nn.Module):
    """Batch normalisation whose statistics are constants."""

    EPSILON = 1e-5
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer('weight', torch.ones(channels))
        self.register_buffer('bias', torch.zeros(channels))
        self.register_buffer('running_mean', torch.zeros(channels))
        self.register_buffer('running_var', torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map, shape (batch, channels, height, width)."""
        scale = self.weight * (self.running_var + self.EPSILON).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def group_norm(channels: int) -> nn.Module:
    """Return the group normalisation of diffusion policies: 16 channels a group."""
    return nn.GroupNorm(channels // 16, channels)


NORMS: dict[str, Norm] = {
    'batch': nn.BatchNorm2d,
    'frozen_batch': FrozenBatchNorm,
    'group': group_norm,
}


class _Block(nn.Module):
    """Two or three convolutions and a way around them."""

    def __init__(
        self, inputs: int, width: int, stride: int, bottleneck: bool, dilation: int, norm: Norm
    ) -> None:
        super().__init__()
        outputs = width * BOTTLENECK_EXPANSION if bottleneck else width
        wide = {'kernel_size': 3, 'padding': dilation, 'dilation': dilation, 'bias': False}
        if bottleneck:
            self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
            self.bn1 = norm(width)
            self.conv2 = nn.Conv2d(width, width, stride=stride, **wide)  # type: ignore[arg-type]
            self.bn2 = norm(width)
            self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
            self.bn3 = norm(outputs)
        else:
            self.conv1 = nn.Conv2d(inputs, width, stride=stride, **wide)  # type: ignore[arg-type]
            self.bn1 = norm(width)
            self.conv2 = nn.Conv2d(width, width, **wide)  # type: ignore[arg-type]
            self.bn2 = norm(width)
        self.bottleneck = bottleneck
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), norm(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the next feature map."""
        around = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        if self.bottleneck:
            x = self.bn3(self.conv3(torch.relu(x)))
        return torch.relu(x + around)


class ResNet(nn.Module):
    """The network without its classifier.

    Args:
        variant: a name of `LAYERS`.
        norm: a name of `NORMS`.
        dilate_last: the last stage has a dilation instead of a stride (bottlenecks alone).

    Raises:
        PolicyImportError: there is no such variant.
    """

    def __init__(self, variant: str, norm: str, dilate_last: bool = False) -> None:
        super().__init__()
        if variant not in LAYERS:
            raise PolicyImportError(
                f'vision_backbone is {variant!r}, expected one of {", ".join(LAYERS)}'
            )
        bottleneck, counts = LAYERS[variant]
        if dilate_last and not bottleneck:
            raise PolicyImportError(
                f'replace_final_stride_with_dilation is true with {variant}, which has no dilation'
            )
        make = NORMS[norm]
        self.conv1 = nn.Conv2d(3, STEM, 7, stride=2, padding=3, bias=False)
        self.bn1 = make(STEM)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = STEM
        for index, (width, count) in enumerate(zip(WIDTHS, counts, strict=True)):
            blocks = []
            for place in range(count):
                stride = 2 if index > 0 and place == 0 else 1
                dilation = 1
                if dilate_last and index == 3:
                    stride, dilation = 1, 1 if place == 0 else 2
                blocks.append(_Block(channels, width, stride, bottleneck, dilation, make))
                channels = width * BOTTLENECK_EXPANSION if bottleneck else width
            setattr(self, f'layer{index + 1}', nn.Sequential(*blocks))
        self.channels = channels
        """Channels of the feature map."""

    def forward(self, image: Tensor) -> Tensor:
        """Return the last feature map of images, shape (batch, 3, height, width)."""
        for layer in self.children():
            image = layer(image)
        return image

    def sequential(self) -> nn.Sequential:
        """Return the same layers by number, as formats store them that cut the classifier off."""
        return nn.Sequential(*self.children())


def feature_map_size(height: int, width: int, dilate_last: bool = False) -> tuple[int, int]:
    """Return height and width of the feature map of an image."""
    halvings = 4 if dilate_last else 5
    for _ in range(halvings):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width
