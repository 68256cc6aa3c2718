# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Diffusion policies: a chunk of actions out of noise, by the features of a window."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from residual_rl_ros.importing.networks.ddim import NoiseSchedule, ddim_steps, denoise
from residual_rl_ros.importing.networks.unet_1d import ConditionalUnet1d
from residual_rl_ros.importing.networks.window_encoder import WindowEncoder


class ChunkDiffusion(nn.Module):
    """The whole policy; inputs are observation, noise (batch, horizon, m), pictures.

    Args:
        from_robot: first layer, of the state.
        encoder: of the window of observations.
        network: predicts what `schedule` says.
        schedule: of the training.
        steps: of the unrolled loop.
        scale, offset: of the action after that, shape (m,).
        to_robot: last layer.

    Raises:
        PolicyImportError: the schedule is unknown.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        from_robot: nn.Module,
        encoder: WindowEncoder,
        network: ConditionalUnet1d,
        schedule: NoiseSchedule,
        steps: int,
        scale: Tensor,
        offset: Tensor,
        to_robot: nn.Module,
    ) -> None:
        super().__init__()
        self.from_robot, self.encoder, self.network = from_robot, encoder, network
        self.schedule, self.steps = schedule, ddim_steps(schedule, steps)
        self.to_robot = to_robot
        self.register_buffer('scale', scale)
        self.register_buffer('offset', offset)

    def forward(self, observation: Tensor, noise: Tensor, *pictures: Tensor) -> tuple[Tensor, ...]:
        """Return action (batch, horizon, m), and the features of each camera."""
        features, seen = self.encoder(self.from_robot(observation), pictures)
        condition = torch.flatten(features, 1)

        def predict(chunk: Tensor, step: Tensor) -> Tensor:
            prediction: Tensor = self.network(chunk, step, condition)
            return prediction

        chunk = denoise(predict, noise, self.steps, self.schedule)
        return (self.to_robot(chunk * self.scale + self.offset), *seen)
