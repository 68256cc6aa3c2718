# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras of LeRobot's policies: from pixels to what a network takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.lerobot.statistics import Normalisation
from residual_rl_ros.importing.networks.resnet import ResNet, feature_map_size
from residual_rl_ros.importing.networks.window_encoder import SpatialSoftmax


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
