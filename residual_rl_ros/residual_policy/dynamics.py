# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A learned model of the robot, for planners: what a decision leads to, and what the base does.

Two small networks in NumPy, many rows at a time. The dynamics tell the change of the observation
over one decision. The distilled prior stands for the base policy where only a model can tell the
observation: it is fitted to what the base policy said of the observations of the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from residual_rl_ros.errors import shown
from residual_rl_ros.numerics import Float32
from residual_rl_ros.residual_policy.architecture import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    MAX_HIDDEN_LAYERS,
    OBSERVATION_CLIP,
    trained_range,
)
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.transitions.layout import TransitionLayout

NETWORKS = ('dynamics', 'prior')
"""Names of the networks, at the head of the names of their tensors."""
SQUASH_LIMIT = np.float32(1.0 - 1e-6)
"""Largest |tanh| whose inverse is taken: actions at their limits have a density too."""
LOG_TWO_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class ModelSizes:
    """All that is needed to rebuild a model from its tensors."""

    dynamics: tuple[int, ...]
    """Widths of the hidden layers of the dynamics."""
    prior: tuple[int, ...]
    """Widths of the hidden layers of the distilled prior."""
    density: Prior
    """What the distilled prior is: `none` has a mean alone."""

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            ValueError: one is wrong; weight messages come from outside.
        """
        for name in NETWORKS:
            widths = getattr(self, name)
            whole = all(type(width) is int and width > 0 for width in widths)
            if not whole or len(widths) > MAX_HIDDEN_LAYERS:
                raise ValueError(
                    f'{name} sizes are {shown(widths)}, expected up to {MAX_HIDDEN_LAYERS} '
                    'positive integers'
                )
        if self.density is Prior.CATEGORICAL:
            raise ValueError('density is categorical, expected one of continuous actions')

    def tensor_shapes(self, layout: TransitionLayout) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor, for the decisions of a layout."""
        n, km = layout.observation_size, layout.decision_size
        shapes: dict[str, tuple[int, ...]] = {
            f'{name}.{part}': (n,) for name in ('normalizer', 'change') for part in ('mean', 'std')
        }
        for name, inputs, outputs in (('dynamics', n + km, n), ('prior', n, 2 * km)):
            widths = (inputs, *getattr(self, name), outputs)
            for index, (rows, columns) in enumerate(pairwise(widths)):
                shapes[f'{name}.{2 * index}.weight'] = (columns, rows)
                shapes[f'{name}.{2 * index}.bias'] = (columns,)
        return shapes


class DynamicsModel:
    """Predicts; every method takes and returns rows, float32.

    Inputs and changes are normalised: units of observations differ by orders of magnitude, and the
    largest would else rule the loss. Actions are scaled by the trained range.

    Args:
        sizes: of the networks.
        layout: of the decisions.
        tensors: by name, as `ModelSizes.tensor_shapes` says.
    """

    def __init__(
        self, sizes: ModelSizes, layout: TransitionLayout, tensors: Mapping[str, Float32]
    ) -> None:
        self.density = sizes.density
        self.center, self.half_range = trained_range(layout)
        self._mean, self._std, self._change_mean, self._change_std = (
            tensors[f'{name}.{part}']
            for name in ('normalizer', 'change')
            for part in ('mean', 'std')
        )
        reach = np.float32(OBSERVATION_CLIP) * self._std
        self._lower, self._upper = self._mean - reach, self._mean + reach
        self._layers = {
            name: [
                (tensors[f'{name}.{2 * index}.weight'].T, tensors[f'{name}.{2 * index}.bias'])
                for index in range(len(getattr(sizes, name)) + 1)
            ]
            for name in NETWORKS
        }

    def step(self, observation: Float32, action: Float32) -> Float32:
        """Return the observations after decisions, shape (rows, n).

        Args:
            observation: shape (rows, n).
            action: executed action of each decision, shape (rows, k * m).
        """
        known = [self._normalized(observation), (action - self.center) / self.half_range]
        change = self._run('dynamics', np.concatenate(known, axis=1))
        change *= self._change_std
        change += self._change_mean
        change += observation
        return self.within(change)

    def within(self, observation: Float32) -> Float32:
        """Return observations no further from the data than the networks tell apart."""
        return np.asarray(np.minimum(np.maximum(observation, self._lower), self._upper))

    def prior(self, observation: Float32) -> tuple[Float32, Float32]:
        """Return mean and log standard deviation of the base's action, (rows, k * m) each.

        In command units; before tanh if the density is `squashed_gaussian`.
        """
        out = self._run('prior', self._normalized(observation))
        mean, log_std = np.split(out, 2, axis=1)
        np.tanh(log_std, out=log_std)
        log_std *= np.float32(0.5 * (LOG_STD_MAX - LOG_STD_MIN))
        log_std += np.float32(0.5 * (LOG_STD_MAX + LOG_STD_MIN))
        if self.density is not Prior.SQUASHED_GAUSSIAN:
            mean = self.center + self.half_range * mean
            log_std += np.log(self.half_range)
        return mean, log_std

    def deterministic(self, mean: Float32) -> Float32:
        """Return the action that a mean stands for, in command units."""
        if self.density is Prior.SQUASHED_GAUSSIAN:
            return np.asarray(self.center + self.half_range * np.tanh(mean), dtype=np.float32)
        return mean

    def log_density(self, action: Float32, mean: Float32, log_std: Float32) -> Float32:
        """Return log pi(action), shape (rows,); see `prior` for mean and log_std."""
        volume = 0.5 * LOG_TWO_PI + log_std
        if self.density is Prior.SQUASHED_GAUSSIAN:
            squashed = (action - self.center) / self.half_range
            np.clip(squashed, -SQUASH_LIMIT, SQUASH_LIMIT, out=squashed)
            volume = volume + np.log1p(-squashed * squashed) + np.log(self.half_range)
            action = np.arctanh(squashed)
        distance = (action - mean) * np.exp(-log_std)
        return np.asarray((-0.5 * distance * distance - volume).sum(axis=1), dtype=np.float32)

    def _normalized(self, observation: Float32) -> Float32:
        return (self.within(observation) - self._mean) / self._std

    def _run(self, network: str, x: Float32) -> Float32:
        """Return the output of a network with ReLU between its linear maps."""
        *hidden, (weight, bias) = self._layers[network]
        for inner, offset in hidden:
            x = x @ inner
            x += offset
            np.maximum(x, 0.0, out=x)
        out: Float32 = x @ weight
        out += bias
        return out
