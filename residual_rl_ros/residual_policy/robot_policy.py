# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the robot runs: the protocol of robot policies, and their registry.

A weight message names the kind of its policy. The policy node builds it from the message and knows
this protocol alone. Torch is not needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.distribution import NO_DISTRIBUTION, BaseDistribution
from residual_rl_ros.errors import ResourceError, shown
from residual_rl_ros.numerics import Array, Float32
from residual_rl_ros.residual_policy.exploration import FULL_SAMPLE, ExplorationSample
from residual_rl_ros.resources import load_entry_point
from residual_rl_ros.rewards.composition import AddOns
from residual_rl_ros.transitions.layout import TransitionLayout


class Architecture(Protocol):
    """All that is needed to rebuild a robot policy from its tensors; travels with them."""

    @property
    def layout(self) -> TransitionLayout:
        """Names, sizes and scales of the decisions that it is for."""

    tells_cost: ClassVar[bool]
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


class Decider(ABC):
    """What decides over residual actions."""

    acts_whole: ClassVar[bool] = False
    """Whether a residual that fades in acts whole, in a share of the decisions, as with discrete
    actions; else it is scaled in all of them."""
    advantage: float | None = None
    """What the latest decision is worth more than the base action, where critics have chosen; for
    those who look on."""

    @abstractmethod
    def decide(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
        distribution: BaseDistribution = NO_DISTRIBUTION,
    ) -> Array:
        """Return the residual action of a decision, shape (k * m,), in [-1, 1].

        What is no number in [-1, 1] is the base action, for the robot.

        Args:
            observation: shape (n,).
            base_action: base action of the decision, flattened to (k * m,), command units.
            rng: source of the exploration noise; None decides without noise.
            sample: how this decision explores.
            distribution: what else the base policy tells, as much as the layout says.
        """

    @abstractmethod
    def uniform(self, half_width: float, rng: np.random.Generator) -> Array:
        """Return one uniform residual in [-half_width, half_width], shape (k * m,)."""


class RobotPolicy(Decider):
    """A policy over residual actions that does not change, and that a weight message can carry.

    Args:
        architecture: sizes.
        tensors: float32 arrays by their names, with the shapes of `tensor_shapes`.
    """

    kind: ClassVar[str]
    """Name in the registry and in weight messages."""

    def __init__(self, architecture: Any, tensors: Mapping[str, Float32]) -> None:
        self.architecture: Architecture = architecture
        self.tensors = tensors


class Planner(Decider):
    """What takes longer than a control step to decide: it plans.

    Where a simulator waits, `decide` is waited for. In real time the plan for a decision is ordered
    at the decision before, from what that leads to, and computed in a thread.
    """

    @abstractmethod
    def decide_ahead(
        self,
        observation: npt.ArrayLike,
        action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
    ) -> Array:
        """Return the residual action of the decision after one, shape (k * m,), in [-1, 1].

        Args:
            observation: at the decision that is executed, shape (n,).
            action: what it executes, shape (k * m,), command units.
            rng: source of random choices, of the decision that is planned.
            sample: how it explores.
        """

    @abstractmethod
    def for_add_on(self, add_on: AddOns) -> Planner:
        """Return a planner that wants something else of the same robot: it needs no training."""


@dataclass(frozen=True)
class Choice:
    """Which proposal of the base a decision takes, and the residual around it."""

    proposal: int
    """Its index; 0 is the base action."""
    residual: Array
    """Shape (k * m,), in [-1, 1]."""


class Chooser(Decider):
    """What chooses a proposal of the base and puts a residual around it.

    The residual is around the chosen proposal, however far that is from the base action: the bound
    limits how far a decision leaves what the base would do, not which of these things it does. In
    a share of the decisions in which the residual fades in, the base action is the only proposal.
    """

    @abstractmethod
    def choose(
        self,
        observation: npt.ArrayLike,
        proposals: Array,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
    ) -> Choice:
        """Return the choice of a decision.

        Args:
            observation: shape (n,).
            proposals: shape (N, k * m), command units; the first is the base action.
            rng: source of the exploration noise; None decides without noise.
            sample: how this decision explores.
        """

    def decide(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
        distribution: BaseDistribution = NO_DISTRIBUTION,
    ) -> Array:
        """Return the residual of the choice; see `Decider.decide` for the arguments."""
        proposals = all_proposals(base_action, distribution)
        return self.choose(observation, proposals, rng, sample).residual


def all_proposals(base_action: npt.ArrayLike, distribution: BaseDistribution) -> Array:
    """Return the proposals of a decision, the base action first, shape (N, k * m)."""
    base = np.asarray(base_action, dtype=np.float64).reshape(1, -1)
    return np.concatenate([base, distribution.proposals.reshape(-1, base.size)])


ENTRY_POINTS = 'residual_rl_ros.robot_policies'
"""Entry points of modules that register kinds; a policy node loads what is installed there."""
ROBOT_POLICIES: dict[str, tuple[type[Any], type[Any]]] = {}
"""Class and architecture of every kind."""
_Class = TypeVar('_Class', bound=type[Any])


def register_policy(kind: str, architecture: type[Any]) -> Callable[[_Class], _Class]:
    """Register a class that derives from `RobotPolicy`, with the class of its architecture."""

    def add(policy: _Class) -> _Class:
        policy.kind = kind
        ROBOT_POLICIES[kind] = policy, architecture
        return policy

    return add


@cache
def installed_kinds() -> tuple[metadata.EntryPoint, ...]:
    """Return what other packages register. The first look, at every package's files, takes long."""
    return tuple(metadata.entry_points(group=ENTRY_POINTS))


def find_policy(kind: Any) -> tuple[type[Any], type[Any]]:
    """Return the class and the architecture of a kind, of another package's too.

    Raises:
        ValueError: there is none; weight messages come from outside.
    """
    broken = []
    if kind not in ROBOT_POLICIES:
        for entry in installed_kinds():
            try:
                load_entry_point(entry)
            except ResourceError as error:  # It may not be the one.
                broken.append(f'; {error}')
    if kind not in ROBOT_POLICIES:
        known = ', '.join(sorted(ROBOT_POLICIES))
        raise ValueError(f'kind is {shown(kind)}, expected one of {known}{"".join(broken)}')
    return ROBOT_POLICIES[kind]
