# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Forward passes of one sample in numpy.

At batch size 1 torch spends most of its time on dispatch: this is what the control loop calls.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

Float32 = npt.NDArray[np.float32]


def values(tensor: Tensor) -> Float32:
    """Return a tensor's values, without a copy."""
    array: Float32 = (tensor.detach() if tensor.requires_grad else tensor).numpy()
    return array


def forward(layers: Iterable[nn.Module], x: Float32) -> Float32:
    """Return the output for one input, shape (features,).

    Args:
        layers: `Linear`, `LayerNorm` and `ReLU` modules.
        x: input, shape (features,).

    Raises:
        TypeError: another kind of layer.
    """
    for layer in layers:
        if isinstance(layer, nn.Linear):
            x = values(layer.weight) @ x
            x += values(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            x = x - x.mean()
            x *= values(layer.weight) / np.sqrt((x * x).mean() + np.float32(layer.eps))
            x += values(layer.bias)
        elif isinstance(layer, nn.ReLU):
            x = np.maximum(x, 0.0)
        else:
            raise TypeError(f'no numpy forward pass for {type(layer).__name__}')
    return x
