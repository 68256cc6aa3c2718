# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Normalisation of diffusion_policy, which is among the weights: scale x + offset for each key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from residual_rl_ros.errors import PolicyImportError, shown
from residual_rl_ros.importing.mapping import Array
from residual_rl_ros.importing.weights import below

PREFIX = 'normalizer.params_dict.'
STATISTICS = ('min', 'max', 'mean', 'std')


@dataclass(frozen=True)
class KeyNormalizer:
    """Normalisation of one key."""

    scale: Array
    """Shape (n,), nowhere 0."""
    offset: Array
    statistics: Mapping[str, Array] = field(default_factory=dict)
    """Of the training data: `STATISTICS`, as far as the checkpoint has them."""

    @property
    def low(self) -> Array:
        """Return the smallest value of the training data, or what -1 or 1 stands for."""
        return self.statistics.get('min', np.minimum(*self._ends()))

    @property
    def high(self) -> Array:
        """Return the largest likewise."""
        return self.statistics.get('max', np.maximum(*self._ends()))

    @property
    def centre(self) -> Array:
        """Return the usual value."""
        return self.statistics.get('mean', -self.offset / self.scale)

    @property
    def spread(self) -> Array:
        """Return the standard deviation around it."""
        return self.statistics.get('std', 0.5 / np.abs(self.scale))

    def _ends(self) -> tuple[Array, Array]:
        return (-1.0 - self.offset) / self.scale, (1.0 - self.offset) / self.scale


def read_normalizer(tensors: Mapping[str, Tensor], key: str, count: int) -> KeyNormalizer:
    """Return the normalisation of a key.

    Args:
        tensors: all weights of the policy.
        key: of the observations, or `action`.
        count: its numbers.

    Raises:
        PolicyImportError: it is missing, of another size, not finite or 0.
    """
    entry = below(tensors, f'{PREFIX}{key}.')
    found: dict[str, Array] = {}
    for name in ('scale', 'offset', *(f'input_stats.{each}' for each in STATISTICS)):
        if name not in entry:
            if name in ('scale', 'offset'):
                raise PolicyImportError(
                    f'the checkpoint has no {PREFIX}{key}.{name}: it was saved before the '
                    'normalizer was fitted'
                )
            continue
        values = entry[name].double().numpy().ravel()
        if values.size != count or not np.isfinite(values).all():
            raise PolicyImportError(
                f'{PREFIX}{key}.{name} has {values.size} numbers, expected {count} that are finite'
            )
        found[name] = values
    if not (found['scale'] != 0.0).all():
        raise PolicyImportError(f'{PREFIX}{shown(key)}.scale holds a 0')
    statistics = {
        name: found[f'input_stats.{name}'] for name in STATISTICS if f'input_stats.{name}' in found
    }
    return KeyNormalizer(found['scale'], found['offset'], statistics)
