# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An ensemble of Q functions evaluated as one batched network."""

from __future__ import annotations

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


class Critic(nn.Module):
    """Q(s, a) of an ensemble: Linear -> LayerNorm -> ReLU blocks and a linear head (DAWN, B.3).

    Args:
        heads: number of Q functions.
        inputs: features of (normalised observation, scaled executed action).
        hidden_sizes: widths of the hidden layers.
        layer_norm: normalise every hidden layer.
    """

    def __init__(
        self, heads: int, inputs: int, hidden_sizes: tuple[int, ...], layer_norm: bool = True
    ) -> None:
        super().__init__()
        self.heads = heads
        layers: list[nn.Module] = []
        for width in hidden_sizes:
            layers.append(EnsembleLinear(heads, inputs, width))
            if layer_norm:
                layers.append(EnsembleLayerNorm(heads, width))
            layers.append(nn.ReLU())
            inputs = width
        layers.append(EnsembleLinear(heads, inputs, 1))
        self.net = nn.Sequential(*layers)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return Q, shape (heads, batch), of normalised observations and scaled actions."""
        x = torch.cat([observation, action], dim=-1)
        q: Tensor = self.net(x.expand(self.heads, *x.shape))
        return q.squeeze(-1)
