# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An actor that proposes and critics that choose: no residual without a promise of theirs.

For every decision several residuals are drawn, and the one with the largest advantage over the base
action is executed; none, if no advantage is positive. So a residual that has failed is not repeated
as soon as the critics know, long before the actor has unlearned it. After EXPO (Dong et al., arXiv
2507.07986) and IBRL (Hu et al., arXiv 2311.02198).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from residual_rl_ros.residual_policy.architecture import (
    ActorArchitecture,
    CriticArchitecture,
    Float32,
)
from residual_rl_ros.residual_policy.exploration import WHOLE_REACH, Reach
from residual_rl_ros.residual_policy.numpy_actor import LAYER_NORM_EPS, Array, NumpyActor

Layer = tuple[Float32, Float32, tuple[Float32, Float32] | None]
"""Weight, bias and scale and shift of a LayerNorm, each with the heads first."""


class AdvisedActor(NumpyActor):
    """An actor with the critics that choose among its residuals.

    The advantage of a residual is the smallest that any critic gives it: Q_i(s, b + lambda u) -
    Q_i(s, b) of the same critic, so that what critics think of the *state* does not matter.

    Args:
        architecture: sizes of the actor.
        tensors: the actor's tensors.
        critic_architecture: sizes of the critics.
        critic_tensors: float32 arrays by their names, with the shapes of `tensor_shapes`.
    """

    def __init__(
        self,
        architecture: ActorArchitecture,
        tensors: Mapping[str, Float32],
        critic_architecture: CriticArchitecture,
        critic_tensors: Mapping[str, Float32],
    ) -> None:
        super().__init__(architecture, tensors)
        self.critic_architecture = critic_architecture
        self.critic_tensors = critic_tensors
        self._critic_layers = [
            self._layer(linear, norm) for linear, norm, _ in critic_architecture.body_layers()
        ]
        self._value = critic_tensors['head.weight']
        self._bias = critic_tensors['head.bias'].ravel()
        # The first layer's input is (1, normalised state and base, residual): linear in each, so
        # its bias is a weight too, and a held residual enters with the sum of its steps' weights.
        n, km = architecture.observation_size, architecture.decision_size
        first, bias, _ = self._critic_layers[0]
        of_action = first[:, n : n + km]
        ratio = architecture.residual_bound / architecture.action_half_range
        of_residual = of_action * ratio[:, None]
        if critic_architecture.sees_residual:
            of_residual = of_residual + first[:, n + km :]
        heads, _, width = first.shape
        by_step = of_residual.reshape(heads, architecture.repeats, architecture.outputs, width)
        of_residual = by_step.sum(1) * architecture.active[:, None]
        self._first: Float32 = np.concatenate([bias, first[:, : n + km], of_residual], axis=1)

    def _layer(self, linear: str, norm: str) -> Layer:
        weight, bias = (self.critic_tensors[f'{linear}.{part}'] for part in ('weight', 'bias'))
        if not norm:
            return weight, bias, None
        # That LayerNorm centres its input is linear too, and done here once.
        scale, shift = (self.critic_tensors[f'{norm}.{part}'] for part in ('weight', 'bias'))
        return (
            weight - weight.mean(-1, keepdims=True),
            bias - bias.mean(-1, keepdims=True),
            (scale, shift),
        )

    def act(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        reach: Reach = WHOLE_REACH,
    ) -> Array:
        """Return the residual that the critics choose, shape (k * m,); zero is the base alone.

        See `NumpyActor.act` for the arguments. Without `rng` the choice is between tanh(mean) and
        the base. With `reach.full_bound_cost` residuals are the smaller the nearer the base action
        is to success: where it works there is little to gain from another one, and everything to
        lose.
        """
        known = self._normalized(observation, base_action)
        count = self.critic_architecture.candidates
        residuals = self._draw(known, rng, reach.noise_scale, count)
        if reach.full_bound_cost > 0.0:
            cost = -self._base_value(known)
            residuals *= min(max(cost / reach.full_bound_cost, 0.0), 1.0)
        advantages = self._advantages(known, reach.bound_ratio * residuals)
        best = int(np.fmax(advantages, 0.0).argmax())  # What is no number is no advantage.
        if not advantages[best] > 0.0:
            return np.zeros(self.architecture.decision_size)
        return self._hold(residuals[best])

    def advantages(
        self, observation: npt.ArrayLike, base_action: npt.ArrayLike, residuals: Array
    ) -> Float32:
        """Return min_i Q_i(s, b + lambda u) - Q_i(s, b) for each of the residuals, shape (rows,).

        Args:
            observation: shape (n,).
            base_action: shape (k * m,).
            residuals: u, shape (rows, outputs).
        """
        return self._advantages(self._normalized(observation, base_action), residuals)

    def base_value(self, observation: npt.ArrayLike, base_action: npt.ArrayLike) -> float:
        """Return the mean over the critics of Q_i(s, b)."""
        return self._base_value(self._normalized(observation, base_action))

    def _advantages(self, known: Float32, residuals: Array) -> Float32:
        q = self._values(known, residuals)
        advantages: Float32 = (q[:, 1:] - q[:, :1]).min(0)
        return advantages

    def _base_value(self, known: Float32) -> float:
        nothing = np.zeros((0, self.architecture.outputs))
        return float((self._values(known, nothing)[:, 0] + self._bias).mean())

    def _values(self, known: Float32, residuals: Array) -> Float32:
        """Return Q_i of base and residuals, shape (heads, 1 + rows), without its output's bias."""
        rows = np.zeros((len(residuals) + 1, self._first.shape[1]), dtype=np.float32)
        rows[:, 0] = 1.0
        rows[:, 1 : 1 + len(known)] = known
        rows[1:, 1 + len(known) :] = residuals  # Row 0 is the base.
        x = rows @ self._first  # (heads, rows, width)
        for index, (weight, bias, norm) in enumerate(self._critic_layers):
            if index:
                x = x @ weight
                x += bias
            if norm is not None:
                scale, shift = norm
                variance = np.square(x).sum(-1, keepdims=True) / np.float32(x.shape[-1])
                x *= 1.0 / np.sqrt(variance + LAYER_NORM_EPS)
                x *= scale
                x += shift
            elif self.critic_architecture.normalization == 'hyperspherical':
                length = np.sqrt(np.square(x).sum(-1, keepdims=True))
                x *= np.float32(x.shape[-1] ** 0.5) / np.maximum(length, np.float32(1e-12))
            np.maximum(x, 0.0, out=x)
        return np.asarray((x @ self._value)[..., 0], dtype=np.float32)
