# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Features of a window of observations: numbers and pictures, in the order of the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Numbers:
    """A part of the state vector that is a feature as it is: indices `start` to `stop`."""

    start: int
    stop: int


class Camera(nn.Module):
    """Pictures as a network wants them, and the network.

    Args:
        core: of pictures (batch, 3, height, width) to features (batch, f).
        scale, offset: of a pixel in [0, 1]; one number or one for each colour.
        mean, std: of a pixel after that, likewise.
        size: height and width to which a picture is brought first; None leaves it.
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

    def forward(self, pictures: Tensor) -> Tensor:
        """Return features (batch x time, f) of uint8 (batch, time, height, width, 3)."""
        image = pictures.flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
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

    def forward(self, state: Tensor, pictures: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return features, and those of each camera's newest picture.

        Args:
            state: shape (batch, time, n), in units of the checkpoint.
            pictures: of each camera in its order, uint8 (batch, time, height, width, 3).

        Returns:
            Features (batch, time, f), and for each camera (batch, its features).
        """
        time = state.shape[1]
        numbers = state * self.scale + self.offset
        seen = [
            self.activation(camera(each)).unflatten(0, (-1, time))
            for camera, each in zip(self.cameras, pictures, strict=True)
        ]
        waiting = list(seen)
        features = [
            waiting.pop(0) if part is None else numbers[:, :, part.start : part.stop]
            for part in self.parts
        ]
        return torch.cat(features, dim=-1), [each[:, -1] for each in seen]
