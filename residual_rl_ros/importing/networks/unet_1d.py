# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The conditional U-Net over time of diffusion policies (Chi et al., arXiv 2303.04137).

Parameters have the names of LeRobot's. Those of diffusion_policy and robomimic differ in two places
(`blocks.0` and `blocks.1` are `conv1` and `conv2`; down and up sampling has a further `conv`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn


class StepEmbedding(nn.Module):
    """Sines and cosines of a diffusion step (Vaswani et al., arXiv 1706.03762)."""

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        half = size // 2
        exponent = np.float32(-math.log(10000) / (half - 1))
        frequencies = np.exp(np.arange(half, dtype=np.float32) * exponent)
        self.register_buffer('frequencies', torch.from_numpy(frequencies), persistent=False)

    def forward(self, step: Tensor) -> Tensor:
        """Return the embedding (batch, size) of steps (batch,)."""
        phase = step[:, None] * self.frequencies[None]
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class ConvBlock(nn.Module):
    """Convolution over time, group normalisation, Mish."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, groups: int = 8) -> None:
        super().__init__()
        self.inputs, self.outputs, self.padding = inputs, outputs, kernel_size // 2
        self.block = nn.Sequential(
            nn.Conv1d(inputs, outputs, kernel_size, padding=self.padding),
            nn.GroupNorm(groups, outputs),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, outputs, time) of (batch, inputs, time).

        The batch is put behind one another in time, with zeros between, and convolved at once: ONNX
        Runtime reads the weights, which take most of the time, for each of a batch again.
        """
        convolution, norm, activation = self.block
        time = int(x.shape[2])
        apart = nn.functional.pad(x, (0, self.padding)).transpose(0, 1)
        convolved = convolution(apart.reshape(1, self.inputs, -1))
        cut = convolved.reshape(self.outputs, -1, time + self.padding)[:, :, :time]
        result: Tensor = activation(norm(cut.transpose(0, 1)))
        return result


class ResidualBlock(nn.Module):
    """Two convolutions, the condition added between them (FiLM, arXiv 1709.07871)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        condition: int,
        kernel_size: int,
        groups: int,
        scales: bool,
    ) -> None:
        super().__init__()
        self.scales = scales
        self.conv1 = ConvBlock(inputs, outputs, kernel_size, groups)
        self.cond_encoder = nn.Sequential(
            nn.Mish(), nn.Linear(condition, 2 * outputs if scales else outputs)
        )
        self.conv2 = ConvBlock(outputs, outputs, kernel_size, groups)
        self.residual_conv = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return (batch, outputs, time)."""
        out = self.conv1(x)
        film = self.cond_encoder(condition)[:, :, None]
        scale, shift = film.chunk(2, dim=1) if self.scales else (1.0, film)
        out = scale * out + shift
        result: Tensor = self.conv2(out) + self.residual_conv(x)
        return result


class ConditionalUnet1d(nn.Module):
    """Predicts noise, or the clean chunk, from a noisy chunk of actions.

    Args:
        actions: numbers m of an action.
        condition: size of the observation's features.
        widths: channels of each stage; the time is halved between two stages.
        kernel_size: of the convolutions over time.
        groups: of the group normalisations.
        step_size: size of the embedding of the diffusion step.
        scales: the condition also scales, not only shifts.
    """

    def __init__(
        self,
        actions: int,
        condition: int,
        widths: Sequence[int],
        kernel_size: int,
        groups: int,
        step_size: int,
        scales: bool,
    ) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(
                inputs, outputs, step_size + condition, kernel_size, groups, scales
            )

        self.diffusion_step_encoder = nn.Sequential(
            StepEmbedding(step_size),
            nn.Linear(step_size, 4 * step_size),
            nn.Mish(),
            nn.Linear(4 * step_size, step_size),
        )
        stages = list(pairwise([actions, *widths]))
        self.down_modules = nn.ModuleList(
            nn.ModuleList(
                [
                    block(inputs, outputs),
                    block(outputs, outputs),
                    # The last stage keeps the time.
                    nn.Conv1d(outputs, outputs, 3, 2, 1)
                    if index < len(stages) - 1
                    else nn.Identity(),
                ]
            )
            for index, (inputs, outputs) in enumerate(stages)
        )
        self.mid_modules = nn.ModuleList(block(widths[-1], widths[-1]) for _ in range(2))
        self.up_modules = nn.ModuleList(
            nn.ModuleList(
                [
                    # Twice: what comes from below, and what went around.
                    block(2 * inputs, outputs),
                    block(outputs, outputs),
                    nn.ConvTranspose1d(outputs, outputs, 4, 2, 1),
                ]
            )
            for outputs, inputs in reversed(stages[1:])
        )
        self.final_conv = nn.Sequential(
            ConvBlock(widths[0], widths[0], kernel_size), nn.Conv1d(widths[0], actions, 1)
        )

    def forward(self, chunk: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Return the prediction (batch, time, m).

        Args:
            chunk: noisy actions, shape (batch, time, m).
            step: diffusion step of each, shape (batch,).
            condition: features of the observation, shape (batch, condition).
        """
        x = chunk.transpose(1, 2)
        features = torch.cat([self.diffusion_step_encoder(step), condition], dim=-1)
        around = []
        for first, second, down in _triples(self.down_modules):
            x = second(first(x, features), features)
            around.append(x)
            x = down(x)
        for middle in self.mid_modules:
            x = middle(x, features)
        for first, second, up in _triples(self.up_modules):
            x = torch.cat([x, around.pop()], dim=1)
            x = up(second(first(x, features), features))
        result: Tensor = self.final_conv(x).transpose(1, 2)
        return result


def _triples(stages: nn.ModuleList) -> Iterable[tuple[nn.Module, nn.Module, nn.Module]]:
    for stage in stages:
        assert isinstance(stage, nn.ModuleList)
        first, second, resample = stage
        yield first, second, resample
