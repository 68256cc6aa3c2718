# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The sizes of a residual actor and of the critics that advise it: learner and robot must agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Range of the learned logarithm of the standard deviation."""
OBSERVATION_CLIP = 10.0
"""Bound on a normalised observation."""
MAX_CANDIDATES = 64
"""Most residuals that may be drawn for a decision: it must fit into a control step."""
CRITIC_NORMALIZATIONS = ('none', 'layer', 'hyperspherical')
"""What may follow a hidden layer of a critic."""


@dataclass(frozen=True)
class ActorArchitecture:
    """All that is needed to rebuild an actor; travels with its weights."""

    observation_size: int
    """Size n of the observation."""
    decision_size: int
    """Size k * m of the residual."""
    hidden_sizes: tuple[int, ...]
    """Widths of the hidden layers."""
    sees_base_action: bool
    """Whether the base action of the decision is an input too."""
    outputs: int
    """Size of the residual that is decided: k * m, or m if it is held over the k steps."""
    layer_norm: bool = False
    """LayerNorm before every activation."""
    exploration_std: float | None = None
    """Standard deviation of the noise added after tanh; None learns one before tanh instead."""
    layout: str = ''
    """Label of the transition layout it is for: names, action range and bound of the residual."""

    def __post_init__(self) -> None:
        """Check that every size is a positive integer and that they fit.

        Raises:
            ValueError: one is not; weight messages come from outside.
        """
        sizes = (self.observation_size, self.decision_size, self.outputs, *self.hidden_sizes)
        if not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError(f'actor sizes are {sizes}, expected positive integers')
        if self.decision_size % self.outputs:
            raise ValueError(f'{self.outputs} outputs do not divide {self.decision_size}')
        for name in ('sees_base_action', 'layer_norm'):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f'{name} is {getattr(self, name)!r}, expected a boolean')
        if type(self.layout) is not str:
            raise ValueError(f'layout is {self.layout!r}, expected a label')
        std = self.exploration_std
        if std is not None and not (type(std) is float and math.isfinite(std) and std >= 0.0):
            raise ValueError(f'exploration_std is {std!r}, expected a number >= 0 or null')

    @property
    def repeats(self) -> int:
        """How many times the decided residual is executed in one decision."""
        return self.decision_size // self.outputs

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor of an actor."""
        n, km = self.observation_size, self.decision_size
        shapes: dict[str, tuple[int, ...]] = {
            'action_center': (km,),
            'action_half_range': (km,),
            'active': (self.outputs,),
            'normalizer.mean': (n,),
            'normalizer.std': (n,),
        }
        width = n + (km if self.sees_base_action else 0)
        for linear, norm, hidden in self.body_layers():
            shapes |= {f'{linear}.weight': (hidden, width), f'{linear}.bias': (hidden,)}
            if norm:
                shapes |= {f'{norm}.weight': (hidden,), f'{norm}.bias': (hidden,)}
            width = hidden
        heads = self.outputs * (2 if self.exploration_std is None else 1)
        return shapes | {'heads.weight': (heads, width), 'heads.bias': (heads,)}

    def body_layers(self) -> list[tuple[str, str, int]]:
        """Return the names of the linear map and of the LayerNorm ('' without), and the width.

        One for each hidden layer, as an `nn.Sequential` numbers them.
        """
        stride = 3 if self.layer_norm else 2
        return [
            (f'body.{stride * i}', f'body.{stride * i + 1}' if self.layer_norm else '', hidden)
            for i, hidden in enumerate(self.hidden_sizes)
        ]


@dataclass(frozen=True)
class CriticArchitecture:
    """All that is needed to rebuild critics that choose among an actor's residuals."""

    candidates: int
    """Residuals drawn for a decision, from which the critics choose one or the base alone."""
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
        sizes = (self.candidates, self.heads, *self.hidden_sizes)
        if not all(type(size) is int and size > 0 for size in sizes) or not self.hidden_sizes:
            raise ValueError(f'critic sizes are {sizes}, expected positive integers')
        if self.candidates > MAX_CANDIDATES:
            raise ValueError(f'candidates is {self.candidates}, expected <= {MAX_CANDIDATES}')
        if self.normalization not in CRITIC_NORMALIZATIONS:
            raise ValueError(f'critic normalization is {self.normalization!r}')
        if type(self.sees_residual) is not bool:
            raise ValueError(f'sees_residual is {self.sees_residual!r}, expected a boolean')

    def tensor_shapes(self, actor: ActorArchitecture) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor of the critics that advise an actor."""
        km = actor.decision_size
        width = actor.observation_size + (2 if self.sees_residual else 1) * km
        shapes: dict[str, tuple[int, ...]] = {'bound': (km,)}
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
        """Return the names of the linear map and of the LayerNorm ('' without), and the width.

        One for each hidden layer, as an `nn.Sequential` numbers them.
        """
        stride = 2 if self.normalization == 'none' else 3
        return [
            (
                f'body.{stride * i}',
                f'body.{stride * i + 1}' if self.normalization == 'layer' else '',
                hidden,
            )
            for i, hidden in enumerate(self.hidden_sizes)
        ]
