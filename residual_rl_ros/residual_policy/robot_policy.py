# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the robot runs: the protocol of robot policies, and their registry by kind.

A weight message names the kind of its policy. The policy node builds it from the message and knows
this protocol alone. Torch is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from residual_rl_ros.residual_policy.exploration import FULL_SAMPLE, ExplorationSample
from residual_rl_ros.transitions.transition import TransitionLayout

Array = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]


class Architecture(Protocol):
    """All that is needed to rebuild a robot policy from its tensors; travels with them."""

    @property
    def layout(self) -> TransitionLayout:
        """Names, sizes and scales of the decisions that it is for."""

    @property
    def tells_cost(self) -> bool:
        """Whether the policy tells the cost to go of a base action (`full_bound_cost`)."""

    def to_mapping(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Architecture:
        """Return what `to_mapping` gave, JSON between.

        Raises:
            ConfigError: the layout is none.
            KeyError: something is missing; or `TypeError` or `ValueError`, something is wrong.
        """

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor."""


class RobotPolicy(Protocol):
    """A policy over residual actions that does not change.

    Args:
        architecture: sizes.
        tensors: float32 arrays by their names, with the shapes of `tensor_shapes`.
    """

    kind: ClassVar[str]
    """Name in the registry and in weight messages."""

    def __init__(self, architecture: Any, tensors: Mapping[str, Float32]) -> None: ...

    @property
    def architecture(self) -> Architecture:
        """Its sizes."""

    @property
    def tensors(self) -> Mapping[str, Float32]:
        """Its numbers."""

    def decide(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
    ) -> Array:
        """Return the residual action of a decision, shape (k * m,), in [-1, 1].

        Args:
            observation: shape (n,).
            base_action: base action of the decision, flattened to (k * m,), command units.
            rng: source of the exploration noise; None decides without noise.
            sample: how this decision explores.
        """

    def uniform(self, half_width: float, rng: np.random.Generator) -> Array:
        """Return one uniform residual in [-half_width, half_width], shape (k * m,)."""


ROBOT_POLICIES: dict[str, tuple[type[Any], type[Any]]] = {}
"""Class and architecture of every kind."""
_Class = TypeVar('_Class', bound=type[Any])


def register_policy(kind: str, architecture: type[Any]) -> Callable[[_Class], _Class]:
    """Register a class that answers `RobotPolicy`, with the class of its architecture."""

    def add(policy: _Class) -> _Class:
        policy.kind = kind
        ROBOT_POLICIES[kind] = policy, architecture
        return policy

    return add
