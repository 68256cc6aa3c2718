# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Best-of-N residual selection.

Draw N residuals, execute the one with the largest advantage over the base action (minimum over
critics), or none if no advantage is positive. A residual that has failed is not repeated as soon as
the critics know, long before the actor has unlearned it. After EXPO (Dong et al., arXiv 2507.07986)
and IBRL (Hu et al., arXiv 2311.02198).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.distribution import NO_DISTRIBUTION, BaseDistribution
from residual_rl_ros.numerics import Array, Float32
from residual_rl_ros.residual_policy.architecture import (
    MAX_CANDIDATES,
    ActorArchitecture,
    CriticArchitecture,
)
from residual_rl_ros.residual_policy.exploration import FULL_SAMPLE, ExplorationSample
from residual_rl_ros.residual_policy.numpy_actor import LAYER_NORM_EPS, GaussianActor
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy, register_policy
from residual_rl_ros.transitions.layout import TransitionLayout

Layer = tuple[Float32, Float32, tuple[Float32, Float32] | None]
"""Weight, bias and scale and shift of a LayerNorm, each with the heads first."""
CRITIC = 'critic.'
"""Prefix of the names of the critics' tensors."""


class NumpyCritics:
    """Critics on the robot, from their first layer on, which a caller computes as suits its inputs.

    Args:
        sizes: of the critics.
        tensors: theirs, by name, each name after `CRITIC`.
    """

    def __init__(self, sizes: CriticArchitecture, tensors: Mapping[str, Float32]) -> None:
        self._tensors = tensors
        self._on_sphere = sizes.normalization == 'hyperspherical'
        self._layers = [self._layer(linear, norm) for linear, norm, _ in sizes.body_layers()]
        self._value = tensors[f'{CRITIC}head.weight']
        self.bias = tensors[f'{CRITIC}head.bias'].ravel()
        """Of the output, shape (heads,)."""

    @property
    def first(self) -> tuple[Float32, Float32]:
        """Weight (heads, inputs, width) and bias (heads, 1, width) of the first layer."""
        weight, bias, _ = self._layers[0]
        return weight, bias

    def _layer(self, linear: str, norm: str) -> Layer:
        weight, bias = (self._tensors[f'{CRITIC}{linear}.{part}'] for part in ('weight', 'bias'))
        if not norm:
            return weight, bias, None
        # That LayerNorm centres its input is linear too, and done here once.
        scale, shift = (self._tensors[f'{CRITIC}{norm}.{part}'] for part in ('weight', 'bias'))
        return (
            weight - weight.mean(-1, keepdims=True),
            bias - bias.mean(-1, keepdims=True),
            (scale, shift),
        )

    def values(self, x: Float32) -> Float32:
        """Return Q_i without its output's bias, shape (heads, rows).

        Args:
            x: what the first layer's linear map gives, (heads, rows, width); it is overwritten.
        """
        for index, (weight, bias, norm) in enumerate(self._layers):
            if index:
                x = x @ weight
                x += bias
            if norm is not None:
                scale, shift = norm
                variance = np.square(x).sum(-1, keepdims=True) / np.float32(x.shape[-1])
                x *= 1.0 / np.sqrt(variance + LAYER_NORM_EPS)
                x *= scale
                x += shift
            elif self._on_sphere:
                length = np.sqrt(np.square(x).sum(-1, keepdims=True))
                x *= np.float32(x.shape[-1] ** 0.5) / np.maximum(length, np.float32(1e-12))
            np.maximum(x, 0.0, out=x)
        return np.asarray((x @ self._value)[..., 0], dtype=np.float32)


class ResidualCritics(NumpyCritics):
    """Critics of base actions with residuals.

    The first layer's input is (1, normalised state and base, residual): linear in each, so its bias
    is a weight too, and a held residual enters with the sum of its steps' weights.

    Args:
        actor: sizes of the actor whose residuals are judged.
        critic: sizes of the critics.
        tensors: theirs, by name, each name after `CRITIC`.
    """

    def __init__(
        self,
        actor: ActorArchitecture,
        critic: CriticArchitecture,
        tensors: Mapping[str, Float32],
    ) -> None:
        super().__init__(critic, tensors)
        n, km = actor.observation_size, actor.decision_size
        first, bias = self.first
        of_action = first[:, n : n + km]
        ratio = actor.residual_bound / actor.action_half_range
        of_residual = of_action * ratio[:, None]
        if critic.sees_residual:
            of_residual = of_residual + first[:, n + km :]
        heads, _, width = first.shape
        by_step = of_residual.reshape(heads, actor.repeats, actor.outputs, width)
        of_residual = by_step.sum(1) * actor.active[:, None]
        self._known_size = n + km
        self._first: Float32 = np.concatenate([bias, first[:, : n + km], of_residual], axis=1)

    def of_residuals(self, known: Float32, residuals: Array) -> Float32:
        """Return Q_i without its output's bias, shape (heads, rows).

        Args:
            known: normalised observation and base action, one or one a row, (..., n + k * m).
            residuals: shape (rows, outputs).
        """
        rows = np.ones((len(residuals), self._first.shape[1]), dtype=np.float32)
        rows[:, 1 : 1 + self._known_size] = known
        rows[:, 1 + self._known_size :] = residuals
        return self.values(rows @ self._first)


@dataclass(frozen=True)
class BestOfNArchitecture:
    """Sizes of an actor and of the critics that choose among its residuals."""

    tells_cost: ClassVar[bool] = True
    """Whether the policy tells the cost to go of a base action: the critics do."""

    actor: ActorArchitecture
    critic: CriticArchitecture
    candidates: int
    """Residuals drawn for a decision (N)."""

    def __post_init__(self) -> None:
        """Check the number.

        Raises:
            ValueError: it is out of range; weight messages come from outside.
        """
        if type(self.candidates) is not int or not 0 < self.candidates <= MAX_CANDIDATES:
            raise ValueError(f'candidates is {self.candidates!r}, expected 1 to {MAX_CANDIDATES}')

    @property
    def layout(self) -> TransitionLayout:
        """Names, sizes and scales of the decisions that it is for."""
        return self.actor.layout

    def to_mapping(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            'actor': self.actor.to_mapping(),
            'critic': asdict(self.critic),
            'candidates': self.candidates,
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> BestOfNArchitecture:
        """Return what `to_mapping` gave, JSON between; see `Architecture.from_mapping`."""
        return cls(
            ActorArchitecture.from_mapping(values['actor']),
            CriticArchitecture.from_mapping(values['critic']),
            values['candidates'],
        )

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor."""
        critics = self.critic.tensor_shapes(self.actor)
        return self.actor.tensor_shapes() | {f'{CRITIC}{k}': shape for k, shape in critics.items()}


@register_policy('best_of_n', BestOfNArchitecture)
class BestOfNActor(RobotPolicy):
    """An actor with the critics that choose among its residuals.

    The advantage of a residual is the smallest that any critic gives it: Q_i(s, b + lambda u) -
    Q_i(s, b) of the same critic, so that what critics think of the *state* does not matter.

    Args:
        architecture: sizes.
        tensors: float32 arrays by their names, those of the critics after `CRITIC`.
    """

    architecture: BestOfNArchitecture

    def __init__(self, architecture: BestOfNArchitecture, tensors: Mapping[str, Float32]) -> None:
        super().__init__(architecture, tensors)
        sizes, critics = architecture.actor, architecture.critic
        self._actor = GaussianActor(sizes, tensors)
        self._critics = ResidualCritics(sizes, critics, tensors)

    @classmethod
    def of(
        cls,
        actor: GaussianActor,
        critic: CriticArchitecture,
        tensors: Mapping[str, Float32],
        n: int,
    ) -> BestOfNActor:
        """Put an actor and critics together.

        Args:
            actor: draws the residuals.
            critic: sizes of the critics.
            tensors: the critics' tensors.
            n: residuals drawn for a decision.
        """
        named = {f'{CRITIC}{name}': value for name, value in tensors.items()}
        architecture = BestOfNArchitecture(actor.architecture, critic, n)
        return cls(architecture, {**actor.tensors, **named})

    def decide(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
        distribution: BaseDistribution = NO_DISTRIBUTION,
    ) -> Array:
        """Return the residual that the critics choose, shape (k * m,); zero is the base action.

        NaN if they choose none and float32 has overflowed.

        See `RobotPolicy.decide` for the arguments. Without `rng` the choice is between tanh(mean)
        and the base action. With `full_bound_cost` residuals are the smaller the nearer the base
        action is to success: where it works there is little to gain from another one, and
        everything to lose.
        """
        known = self._actor.normalize(observation, base_action)
        residuals = self._actor.draw(known, rng, sample.noise_scale, self.architecture.candidates)
        if sample.full_bound_cost > 0.0:
            residuals *= sample.share_at(-self._base_value(known))
        advantages = self._advantages(known, sample.bound_scale * residuals)
        best = int(np.fmax(advantages, 0.0).argmax())  # What is no number is no advantage.
        self.advantage = max(float(advantages[best]), 0.0)
        if not advantages[best] > 0.0:
            nothing = np.nan if np.isnan(advantages).any() else 0.0
            return np.full(self.architecture.actor.decision_size, nothing)
        return self._actor.hold(residuals[best])

    def uniform(self, half_width: float, rng: np.random.Generator) -> Array:
        """Return one uniform residual in [-half_width, half_width], shape (k * m,)."""
        return self._actor.uniform(half_width, rng)

    def advantages(
        self, observation: npt.ArrayLike, base_action: npt.ArrayLike, residuals: Array
    ) -> Float32:
        """Return min_i Q_i(s, b + lambda u) - Q_i(s, b) for each of the residuals, shape (rows,).

        Args:
            observation: shape (n,).
            base_action: shape (k * m,).
            residuals: u, shape (rows, outputs).
        """
        return self._advantages(self._actor.normalize(observation, base_action), residuals)

    def base_value(self, observation: npt.ArrayLike, base_action: npt.ArrayLike) -> float:
        """Return the mean over the critics of Q_i(s, b)."""
        return self._base_value(self._actor.normalize(observation, base_action))

    def _advantages(self, known: Float32, residuals: Array) -> Float32:
        q = self._values(known, residuals)
        advantages: Float32 = (q[:, 1:] - q[:, :1]).min(0)
        return advantages

    def _base_value(self, known: Float32) -> float:
        nothing = np.zeros((0, self.architecture.actor.outputs))
        return float((self._values(known, nothing)[:, 0] + self._critics.bias).mean())

    def _values(self, known: Float32, residuals: Array) -> Float32:
        """Return Q_i of base and residuals, shape (heads, 1 + rows), without its output's bias."""
        nothing = np.zeros((1, self.architecture.actor.outputs))  # Row 0 is the base.
        return self._critics.of_residuals(known, np.concatenate([nothing, residuals]))
