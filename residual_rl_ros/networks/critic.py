# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An ensemble of Q functions evaluated as one batched network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class EnsembleLinear(nn.Module):
    """`heads` independent linear layers in one batched product.

    Initialised as `nn.Linear` initialises each.

    Args:
        heads: number of ensemble members.
        inputs: input features.
        outputs: output features.
    """

    def __init__(self, heads: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(heads, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map (heads, batch, inputs) to (heads, batch, outputs)."""
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleLayerNorm(nn.Module):
    """Layer normalisation with an affine transform of its own for each ensemble member."""

    def __init__(self, heads: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, 1, features))
        self.bias = nn.Parameter(torch.zeros(heads, 1, features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of (heads, batch, features)."""
        normal = nn.functional.layer_norm(x, x.shape[-1:])
        return torch.addcmul(self.bias, normal, self.weight)


class Hypersphere(nn.Module):
    """Project the last dimension on the unit sphere, scaled to unit variance per feature.

    With the weight columns kept at length one (`Critic.project`) neither features nor weights can
    grow, after SimbaV2 (arXiv 2502.15280).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x / |x| * sqrt(features)."""
        return nn.functional.normalize(x, dim=-1) * math.sqrt(x.shape[-1])


class Critic(nn.Module):
    """Q(s, a) of an ensemble: Linear -> normalisation -> ReLU blocks and a linear head (DAWN, B.3).

    Args:
        heads: number of Q functions.
        inputs: features of (normalised observation, scaled executed action).
        hidden_sizes: widths of the hidden layers.
        normalization: of every hidden layer: `none`, `layer` or `hyperspherical`.
    """

    def __init__(
        self, heads: int, inputs: int, hidden_sizes: tuple[int, ...], normalization: str = 'layer'
    ) -> None:
        super().__init__()
        self.heads = heads
        self._on_sphere = normalization == 'hyperspherical'
        layers: list[nn.Module] = []
        for width in hidden_sizes:
            layers.append(EnsembleLinear(heads, inputs, width))
            if normalization == 'layer':
                layers.append(EnsembleLayerNorm(heads, width))
            elif self._on_sphere:
                layers.append(Hypersphere())
            layers.append(nn.ReLU(inplace=True))
            inputs = width
        self.body = nn.Sequential(*layers)
        self.head = EnsembleLinear(heads, inputs, 1)
        self.project()

    def features(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the last hidden layer, shape (heads, batch, width)."""
        x = torch.cat([observation, action], dim=-1)
        hidden: Tensor = self.body(x.expand(self.heads, *x.shape))
        return hidden

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return Q, shape (heads, batch), of normalised observations and scaled actions."""
        q: Tensor = self.head(self.features(observation, action))
        return q.squeeze(-1)

    @torch.no_grad()
    def project(self) -> None:
        """Bring hidden weights back to the sphere; due after every optimiser step."""
        if self._on_sphere:
            for layer in self.body:
                if isinstance(layer, EnsembleLinear):
                    layer.weight.copy_(nn.functional.normalize(layer.weight, dim=1))
