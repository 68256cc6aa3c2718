# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A network of an observation, in NumPy: normaliser, hidden layers, heads.

Its torch twin, with tensors of the same names, is `torch_networks.Perceptron`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from residual_rl_ros.residual_policy.architecture import (
    OBSERVATION_CLIP,
    Float32,
    body_layers,
    check_sizes,
)

Array = npt.NDArray[np.float64]


def perceptron_shapes(
    inputs: int, hidden_sizes: tuple[int, ...], outputs: int
) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor.

    Raises:
        ValueError: a size is none; weight messages come from outside.
    """
    check_sizes('network', (outputs, *hidden_sizes))
    shapes: dict[str, tuple[int, ...]] = {
        'normalizer.mean': (inputs,),
        'normalizer.std': (inputs,),
    }
    for linear, _, hidden in body_layers(hidden_sizes, 'none'):
        shapes |= {f'{linear}.weight': (hidden, inputs), f'{linear}.bias': (hidden,)}
        inputs = hidden
    return shapes | {'heads.weight': (outputs, inputs), 'heads.bias': (outputs,)}


class Perceptron:
    """One observation at a time.

    Args:
        hidden_sizes: widths of the hidden layers.
        tensors: by the names and of the shapes of `perceptron_shapes`.
    """

    def __init__(self, hidden_sizes: tuple[int, ...], tensors: Mapping[str, Float32]) -> None:
        self._mean, self._std = tensors['normalizer.mean'], tensors['normalizer.std']
        names = [linear for linear, _, _ in body_layers(hidden_sizes, 'none')]
        self._layers = [(tensors[f'{each}.weight'], tensors[f'{each}.bias']) for each in names]
        self._heads = tensors['heads.weight'], tensors['heads.bias']

    def __call__(self, observation: npt.ArrayLike) -> Array:
        """Return the output for one observation (n,), shape (outputs,)."""
        x = (np.asarray(observation, dtype=np.float32) - self._mean) / self._std
        x = np.clip(x, -OBSERVATION_CLIP, OBSERVATION_CLIP)
        for weight, bias in self._layers:
            x = np.maximum(weight.dot(x) + bias, np.float32(0.0))
        weight, bias = self._heads
        out: Array = (weight.dot(x) + bias).astype(np.float64)
        return out
