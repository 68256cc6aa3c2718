# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The additive Gaussian residual as the robot runs it: one decision at a time, in NumPy.

At batch size 1 torch spends most of its time on dispatch, and a control step has none to spare.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.distribution import NO_DISTRIBUTION, BaseDistribution
from residual_rl_ros.numerics import Array, Float32, all_finite
from residual_rl_ros.residual_policy.architecture import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    OBSERVATION_CLIP,
    ActorArchitecture,
)
from residual_rl_ros.residual_policy.exploration import FULL_SAMPLE, ExplorationSample
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy, register_policy

LOG_STD_MIDDLE, LOG_STD_REACH = 0.5 * (LOG_STD_MAX + LOG_STD_MIN), 0.5 * (LOG_STD_MAX - LOG_STD_MIN)
LAYER_NORM_EPS = np.float32(1e-5)


@register_policy('gaussian', ActorArchitecture)
class GaussianActor(RobotPolicy):
    """Draws a residual from a tanh-Gaussian, or from a Gaussian around tanh (TD3).

    Args:
        architecture: sizes.
        tensors: float32 arrays by their names, with the shapes of `tensor_shapes`.
    """

    architecture: ActorArchitecture

    def __init__(self, architecture: ActorArchitecture, tensors: Mapping[str, Float32]) -> None:
        super().__init__(architecture, tensors)
        self._n = n = architecture.observation_size
        self._shift, self._scale = (
            np.concatenate([of_state, of_action])
            for of_state, of_action in (
                (tensors['normalizer.mean'], architecture.action_center),
                (tensors['normalizer.std'], architecture.action_half_range),
            )
        )
        self._seen = architecture.input_size
        self._input = np.zeros(len(self._shift), dtype=np.float32)
        self._upper = np.full_like(self._input, np.inf)  # Base actions are not clipped.
        self._upper[:n] = OBSERVATION_CLIP
        self._lower = -self._upper
        self._layers = [
            (
                tensors[f'{linear}.weight'],
                tensors[f'{linear}.bias'],
                (tensors[f'{norm}.weight'], tensors[f'{norm}.bias']) if norm else None,
            )
            for linear, norm, _ in architecture.body_layers()
        ]
        self._heads = tensors['heads.weight'], tensors['heads.bias']
        self._active = architecture.active.astype(np.float64)

    def decide(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
        distribution: BaseDistribution = NO_DISTRIBUTION,
    ) -> Array:
        """Return one residual action, shape (k * m,); without `rng`, tanh(mean).

        See `RobotPolicy.decide` for the arguments. Of the sample only the noise scale is used: the
        controller applies the bound scale.
        """
        known = self.normalize(observation, base_action)
        return self.hold(self.draw(known, rng, sample.noise_scale, 1)[0])

    def draw(
        self, known: Float32, rng: np.random.Generator | None, noise_scale: float, count: int
    ) -> Array:
        """Return residuals, shape (count, outputs); without `rng` one, tanh(mean).

        NaN where float32 overflows: tanh would make a decision of infinity.
        """
        outputs = self.architecture.outputs
        out = self._forward(known)
        if not all_finite(out):
            return np.full((count, outputs), np.nan)
        center = out[:outputs]
        if rng is None:
            return np.tanh(center)[None]
        noise = rng.standard_normal((count, outputs))
        noise *= noise_scale
        if self.architecture.exploration_std is not None:
            residual = np.tanh(center) + self.architecture.exploration_std * noise
            clipped: Array = residual.clip(-1.0, 1.0)
            return clipped
        log_std = LOG_STD_MIDDLE + LOG_STD_REACH * np.tanh(out[outputs:])
        drawn: Array = np.tanh(center + np.exp(log_std) * noise)
        return drawn

    def uniform(self, half_width: float, rng: np.random.Generator) -> Array:
        """Return one uniform residual in [-half_width, half_width], shape (k * m,)."""
        return self.hold(rng.uniform(-half_width, half_width, self.architecture.outputs))

    def normalize(self, observation: npt.ArrayLike, base_action: npt.ArrayLike) -> Float32:
        """Return both as networks see them, shape (n + k * m,), valid until the next call."""
        x: Float32 = self._input
        x[: self._n] = observation
        x[self._n :] = base_action
        x -= self._shift
        x /= self._scale
        np.maximum(x, self._lower, out=x)
        np.minimum(x, self._upper, out=x)
        return x

    def _forward(self, known: Float32) -> Array:
        """Return the heads' output for one input, as `normalize` returns it."""
        x = known[: self._seen]
        for weight, bias, norm in self._layers:
            x = weight.dot(x)
            x += bias
            if norm is not None:
                x -= x.mean()
                x *= norm[0] / np.sqrt((x @ x) / np.float32(len(x)) + LAYER_NORM_EPS)
                x += norm[1]
            np.maximum(x, 0.0, out=x)
        weight, bias = self._heads
        out: Array = (weight.dot(x) + bias).astype(np.float64)
        return out

    def hold(self, residual: Array) -> Array:
        """Repeat a held residual over the steps of its decision, to (k * m,)."""
        held: Array = np.empty((self.architecture.repeats, self.architecture.outputs))
        np.multiply(residual, self._active, out=held)
        return held.ravel()
