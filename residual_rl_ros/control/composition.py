# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bounded composition: executed action = base action + blend x bound x residual action.

The blend ratio fades the residual in after activation, a takeover or a rollback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.metadata import UNUSED_RANGE, BasePolicyMetadata
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Array, clamp
from residual_rl_ros.transitions.layout import TransitionLayout

LOWEST, HIGHEST = np.array(-1.0), np.array(1.0)
"""Range of a residual, as arrays: numpy would make them of numbers for every command."""


@dataclass(frozen=True)
class ResidualBound:
    """Largest residual per dimension, in command units.

    bound = lambda x half range of the actions the base policy was trained on.
    """

    values: Array
    """Bound per dimension, shape (m,), >= 0."""

    @classmethod
    def from_metadata(
        cls,
        metadata: BasePolicyMetadata,
        residual_scale: float | npt.ArrayLike,
        discrete: bool = False,
    ) -> ResidualBound:
        """Scale the half range of the training actions.

        Args:
            metadata: the base policy's metadata.
            residual_scale: lambda, scalar or one per action dimension.
            discrete: the commands are one-hot vectors: the bound is 1, whatever lambda is above 0.

        Raises:
            ConfigError: wrong number of values, a negative or non-finite one.
        """
        half_range = (np.array(metadata.action_max) - np.array(metadata.action_min)) / 2.0
        scale = np.asarray(residual_scale, dtype=np.float64)
        if scale.shape not in ((), (1,), half_range.shape):
            raise ConfigError(
                f'residual_scale has {scale.size} values, expected 1 or {half_range.size} (one '
                f'per action: {", ".join(metadata.action_names)})'
            )
        if not np.isfinite(scale).all() or (scale < 0.0).any():
            raise ConfigError(f'residual_scale is {scale.tolist()}, expected finite values >= 0')
        if discrete:
            if len(set((scale > 0.0).ravel().tolist())) > 1:
                raise ConfigError(
                    f'residual_scale is {scale.tolist()}, expected all above 0 or all 0: one '
                    'discrete action replaces another'
                )
            return cls(np.where(scale > 0.0, 1.0, 0.0) * np.ones(half_range.shape))
        half_range[2.0 * half_range < UNUSED_RANGE] = 0.0
        return cls(scale * half_range)

    def words(self, names: Sequence[str], decision_steps: int) -> str:
        """Return how far a residual may go, which a scale alone tells nobody.

        Args:
            names: of the actions.
            decision_steps: control steps for which one is held.
        """
        parts = [
            f'{bound:.3g} for {name}'
            for name, bound in zip(names, self.values, strict=True)
            if bound
        ]
        if not parts:
            return 'there is no residual'
        steps = f'{decision_steps} control steps' if decision_steps > 1 else 'each control step'
        return f'the residual is up to {", ".join(parts)}, and decided for {steps}'

    def compose(self, base: npt.ArrayLike, residual: npt.ArrayLike, bound_scale: float) -> Array:
        """Return base + bound_scale x bound x residual, shape (..., m).

        Args:
            base: base actions in command units, shape (..., m).
            residual: actor output; clipped to [-1, 1], shape (..., m).
            bound_scale: share of the bound in use; 0 gives the base action bit for bit.
        """
        base = np.asarray(base, dtype=np.float64)
        if bound_scale <= 0.0:
            return base.copy()
        offset = clamp(np.asarray(residual, dtype=np.float64), LOWEST, HIGHEST) * self.values
        return base + min(bound_scale, 1.0) * offset


def residual_scale(layout: TransitionLayout) -> tuple[float, ...]:
    """Return lambda per dimension, as it was when the bounds of a layout were made of it."""
    limits = zip(layout.residual_bound, layout.action_min, layout.action_max, strict=True)
    return tuple(_lambda(bound, (high - low) / 2.0) for bound, low, high in limits)


def _lambda(bound: float, half_range: float) -> float:
    """Return the number whose product with the half range is the bound, to the last bit."""
    exact = bound / half_range if half_range else 0.0
    short = float(f'{exact:.12g}')  # As somebody wrote it.
    return short if short * half_range == bound else exact


class BlendRamp:
    """A ratio that rises linearly from 0 to a ceiling.

    Args:
        duration_s: length of the ramp [s]; 0 is always the ceiling.
        ceiling: the largest ratio, in [0, 1].
    """

    def __init__(self, duration_s: float, ceiling: float = 1.0) -> None:
        self.duration_s = duration_s
        self.ceiling = ceiling
        self._start_s: float | None = None

    def restart(self) -> None:
        """Begin a ramp with the next ratio."""
        self._start_s = None

    def set_ceiling(self, ceiling: float) -> None:
        """Take another ceiling; a higher one begins a ramp, a lower one holds at once."""
        if ceiling > self.ceiling:
            self.restart()
        self.ceiling = ceiling

    def ratio(self, now_s: float) -> float:
        """Return the blend ratio in [0, 1] at a time of any clock [s]."""
        if self._start_s is None:
            self._start_s = now_s
        if self.duration_s <= 0.0:
            return self.ceiling
        return self.ceiling * min(max((now_s - self._start_s) / self.duration_s, 0.0), 1.0)
