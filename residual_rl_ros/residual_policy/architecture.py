# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The sizes of a residual actor and of critics: learner and robot must agree on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.metadata import UNUSED_RANGE
from residual_rl_ros.errors import shown
from residual_rl_ros.numerics import Float32
from residual_rl_ros.transitions.layout import TransitionLayout

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Range of the learned logarithm of the standard deviation."""
OBSERVATION_CLIP = 10.0
"""Bound on a normalised observation."""
MAX_CANDIDATES = 64
"""Most residuals that may be drawn for a decision: it must fit into a control step."""
MAX_HIDDEN_SIZE = 8192
"""Widest hidden layer that a preset may ask for."""
MAX_HIDDEN_LAYERS = 32
"""Most hidden layers of a network: weight messages come from outside."""
CRITIC_NORMALIZATIONS = ('none', 'layer', 'hyperspherical')
"""What may follow a hidden layer of a critic."""


def _fixed(values: Float32) -> Float32:
    values.flags.writeable = False
    return values


def trained_range(
    layout: TransitionLayout, kind: type[np.floating[Any]] = np.float32
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return centre and half range of the base policy's trained actions, as networks see actions.

    Of a dimension that the base never uses, the half range is 1: an operator may move it, and a
    thousandth would make 200 of two tenths.

    Args:
        layout: tells the range.
        kind: type of the numbers.

    Returns:
        Repeated k times, shape (k * m,) each.
    """
    low, high = np.tile(
        np.array([layout.action_min, layout.action_max], dtype=kind), layout.decision_steps
    )
    span = np.tile(np.subtract(layout.action_max, layout.action_min), layout.decision_steps)
    # The floor keeps the input finite where the base moves a little.
    half = np.maximum((high - low) / kind(2.0), kind(1e-3))
    return (low + high) / kind(2.0), np.where(span < UNUSED_RANGE, kind(1.0), half)


def check_sizes(network: str, sizes: tuple[int, ...]) -> None:
    """Refuse what no network has.

    Args:
        network: its name, for the error.
        sizes: number of outputs or heads, then the widths of the hidden layers.

    Raises:
        ValueError: a size is no positive integer, or there are too many.
    """
    if len(sizes) > 1 + MAX_HIDDEN_LAYERS:
        raise ValueError(
            f'{network} has {len(sizes) - 1} hidden layers, expected <= {MAX_HIDDEN_LAYERS}'
        )
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f'{network} sizes are {shown(sizes)}, expected positive integers')


def body_layers(hidden_sizes: tuple[int, ...], normalization: str) -> list[tuple[str, str, int]]:
    """Return the names of linear map and LayerNorm ('' without) and the width of hidden layers.

    They are numbered as an `nn.Sequential` of linear map, normalisation if any, and ReLU.
    """
    stride = 2 if normalization == 'none' else 3
    return [
        (f'body.{stride * i}', f'body.{stride * i + 1}' if normalization == 'layer' else '', hidden)
        for i, hidden in enumerate(hidden_sizes)
    ]


@dataclass(frozen=True)
class NetworkArchitecture:
    """All that is needed to rebuild a policy of one network; travels with its weights."""

    tells_cost: ClassVar[bool] = False
    """Whether the policy tells the cost to go of a base action: not without critics."""

    layout: TransitionLayout
    """Names, sizes and scales of the decisions that it is for."""
    hidden_sizes: tuple[int, ...]
    """Widths of the hidden layers."""

    def to_mapping(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, 'layout': self.layout.to_mapping()}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_mapping` gave, JSON between.

        Raises:
            ConfigError: the layout is none.
            KeyError: something is missing; or `TypeError` or `ValueError`, something is wrong.
        """
        layout = TransitionLayout.from_mapping(values['layout'])
        sizes = tuple(values['hidden_sizes'])
        return cls(**{**values, 'layout': layout, 'hidden_sizes': sizes})


@dataclass(frozen=True)
class ActorArchitecture(NetworkArchitecture):
    """Sizes of an actor that sees its observation, and the base action if it is to."""

    sees_base_action: bool
    """Whether the base action of the decision is an input too."""
    outputs: int
    """Size of the residual that is decided: k * m, or m if it is held over the k steps."""
    layer_norm: bool = False
    """LayerNorm before every activation."""
    exploration_std: float | None = None
    """Standard deviation of the noise added after tanh; None learns one before tanh instead."""

    def __post_init__(self) -> None:
        """Check that every size is a positive integer and that they fit.

        Raises:
            ValueError: one is not; weight messages come from outside.
        """
        check_sizes('actor', (self.outputs, *self.hidden_sizes))
        if self.outputs not in (self.layout.action_size, self.layout.decision_size):
            raise ValueError(
                f'outputs is {self.outputs}, expected {self.layout.action_size} (m) or '
                f'{self.layout.decision_size} (k * m)'
            )
        for name in ('sees_base_action', 'layer_norm'):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f'{name} is {getattr(self, name)!r}, expected a boolean')
        std = self.exploration_std
        if std is not None and not (type(std) is float and math.isfinite(std) and std >= 0.0):
            raise ValueError(f'exploration_std is {std!r}, expected a number >= 0 or null')

    @property
    def observation_size(self) -> int:
        """Size n of the observation."""
        return self.layout.observation_size

    @property
    def decision_size(self) -> int:
        """Size k * m of the residual."""
        return self.layout.decision_size

    @property
    def input_size(self) -> int:
        """Size of the input: n, and k * m if it sees the base action."""
        return self.observation_size + (self.decision_size if self.sees_base_action else 0)

    @property
    def repeats(self) -> int:
        """How many times the decided residual is executed in one decision."""
        return self.decision_size // self.outputs

    @cached_property
    def action_center(self) -> Float32:
        """Centre of the base policy's trained actions, repeated k times, shape (k * m,)."""
        return _fixed(trained_range(self.layout)[0])

    @cached_property
    def action_half_range(self) -> Float32:
        """Half range of the base policy's trained actions, repeated k times, shape (k * m,)."""
        return _fixed(trained_range(self.layout)[1])

    @cached_property
    def residual_bound(self) -> Float32:
        """Largest residual, repeated k times, shape (k * m,)."""
        bound = np.array(self.layout.residual_bound, dtype=np.float32)
        return _fixed(np.tile(bound, self.layout.decision_steps))

    @cached_property
    def active(self) -> Float32:
        """1 where the residual has a bound, 0 where it has none, shape (outputs,).

        An output without effect must not count in the entropy.
        """
        return _fixed((self.residual_bound[: self.outputs] > 0.0).astype(np.float32))

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor of an actor."""
        n = self.observation_size
        shapes: dict[str, tuple[int, ...]] = {'normalizer.mean': (n,), 'normalizer.std': (n,)}
        width = self.input_size
        for linear, norm, hidden in self.body_layers():
            shapes |= {f'{linear}.weight': (hidden, width), f'{linear}.bias': (hidden,)}
            if norm:
                shapes |= {f'{norm}.weight': (hidden,), f'{norm}.bias': (hidden,)}
            width = hidden
        heads = self.outputs * (2 if self.exploration_std is None else 1)
        return shapes | {'heads.weight': (heads, width), 'heads.bias': (heads,)}

    def body_layers(self) -> list[tuple[str, str, int]]:
        """Return what `body_layers` does."""
        return body_layers(self.hidden_sizes, 'layer' if self.layer_norm else 'none')


@dataclass(frozen=True)
class CriticArchitecture:
    """All that is needed to rebuild critics."""

    heads: int
    """Number of Q functions."""
    hidden_sizes: tuple[int, ...]
    """Widths of the hidden layers of each."""
    normalization: str
    """One of `CRITIC_NORMALIZATIONS`."""
    sees_residual: bool
    """Whether the residual, in units of its bound, is an input beside the executed action."""

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            ValueError: one is wrong; weight messages come from outside.
        """
        check_sizes('critic', (self.heads, *self.hidden_sizes))
        if not self.hidden_sizes:
            raise ValueError('a critic has no hidden layer, expected at least one')
        if self.normalization not in CRITIC_NORMALIZATIONS:
            raise ValueError(f'critic normalization is {shown(self.normalization)}')
        if type(self.sees_residual) is not bool:
            raise ValueError(f'sees_residual is {self.sees_residual!r}, expected a boolean')

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> CriticArchitecture:
        """Return what `dataclasses.asdict` gave, JSON between.

        Raises:
            KeyError: something is missing; or `TypeError` or `ValueError`, something is wrong.
        """
        return cls(**{**values, 'hidden_sizes': tuple(values['hidden_sizes'])})

    def tensor_shapes(
        self, sizes: ActorArchitecture | TransitionLayout
    ) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor of critics.

        Args:
            sizes: says how many observations and actions they see.
        """
        km = sizes.decision_size
        width = sizes.observation_size + (2 if self.sees_residual else 1) * km
        shapes: dict[str, tuple[int, ...]] = {}
        for linear, norm, hidden in self.body_layers():
            shapes |= self._linear(linear, width, hidden)
            if norm:
                shapes |= {f'{norm}.{part}': (self.heads, 1, hidden) for part in ('weight', 'bias')}
            width = hidden
        return shapes | self._linear('head', width, 1)

    def _linear(self, name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        return {
            f'{name}.weight': (self.heads, inputs, outputs),
            f'{name}.bias': (self.heads, 1, outputs),
        }

    def body_layers(self) -> list[tuple[str, str, int]]:
        """Return what `body_layers` does."""
        return body_layers(self.hidden_sizes, self.normalization)
