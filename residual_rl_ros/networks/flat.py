# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""All parameters of a network in one tensor.

An optimiser step, a gradient norm or a step of a target network costs a small network more for
every tensor it is called on than for the arithmetic.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FlatParameters:
    """The parameters of a network side by side in one tensor, of which they become views.

    Args:
        module: the network. A copy of it made later shares nothing with this, and what replaces
            its tensors (`to`, `load_state_dict(assign=True)`) takes it away from this.
        heads: size of the first dimension of every parameter, for an ensemble.
    """

    vector: nn.Parameter
    """Shape (heads, parameters of one head)."""

    def __init__(self, module: nn.Module, heads: int = 1) -> None:
        self._parameters = list(module.parameters())
        rows = [parameter.detach().reshape(heads, -1) for parameter in self._parameters]
        self.vector = nn.Parameter(torch.cat(rows, dim=1))
        pieces = torch.split(self.vector.detach(), [row.shape[1] for row in rows], dim=1)
        for parameter, piece in zip(self._parameters, pieces, strict=True):
            parameter.data = piece.view(parameter.shape)

    def differentiate(self, loss: Tensor, limit: float = math.inf) -> Tensor:
        """Set the gradient to that of a loss.

        Args:
            loss: a scalar.
            limit: largest norm of the gradient of a head.

        Returns:
            Norm of the gradient of each head before it was limited, shape (heads,).
        """
        heads = len(self.vector)
        gradients = torch.autograd.grad(loss, self._parameters)
        self.vector.grad = torch.cat([each.reshape(heads, -1) for each in gradients], dim=1)
        norms: Tensor = torch.linalg.vector_norm(self.vector.grad, dim=1)
        if (norms > limit).any():
            self.vector.grad *= (limit / norms).clamp_max(1.0).unsqueeze(1)
        return norms

    @torch.no_grad()
    def follow(self, fast: FlatParameters, step: float) -> None:
        """Move towards the parameters of another network by a share of the distance."""
        self.vector.lerp_(fast.vector, step)
