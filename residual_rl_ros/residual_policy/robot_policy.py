# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the robot runs and how it explores: the protocol of robot policies, and their registry.

A weight message names the kind of its policy. The policy node builds it from the message and knows
this protocol alone. Torch is not needed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import metadata
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.distribution import NO_DISTRIBUTION, BaseDistribution
from residual_rl_ros.errors import shown
from residual_rl_ros.numerics import Array, Float32, is_one_hot, within
from residual_rl_ros.rewards.composition import AddOns
from residual_rl_ros.transitions.layout import MAX_OBSERVATION, TransitionLayout


@dataclass(frozen=True)
class Exploration:
    """Travels in the header of every weight message."""

    residual_probability: float = 1.0
    """Probability that a decision takes the actor's residual; 0 during warm-up. Policy Decorator
    lets it grow (arXiv 2412.13630)."""
    uniform_noise: float = 0.0
    """Half width of a uniform residual on the other decisions, in units of the bound (ResFiT); of
    discrete actions, the probability that any of them replaces one."""
    bound_scale: float = 1.0
    """Share of the residual bound in use."""
    full_bound_cost: float = 0.0
    """Cost to go of the base action, -Q(s, b), from which on all of that is in use; of a base
    action that costs less, being nearer to success, a share in proportion. 0: all of it always.
    Only policies with critics tell the cost."""
    wide_noise_share: float = 0.0
    """Share of episodes with wider noise."""
    wide_noise_scale: float = 1.0
    """In these, the largest factor on the actor's noise; drawn log-uniformly from 1 to this."""
    wide_bound_scale: float = 1.0
    """In these, the share of the residual bound in use."""
    base_only_share: float = 0.0
    """Share of episodes without any residual, for the guard to compare with."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: one is violated; weight messages come from outside.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            limit = math.inf if field.name in ('wide_noise_scale', 'full_bound_cost') else 1.0
            if type(value) is not float or not (math.isfinite(value) and 0.0 <= value <= limit):
                raise ValueError(f'exploration {field.name} is {value!r}, expected 0 to {limit:g}')
        if self.wide_noise_scale < 1.0:
            raise ValueError(
                f'exploration wide_noise_scale is {self.wide_noise_scale}, expected >= 1'
            )

    def base_only(self, rng: np.random.Generator) -> bool:
        """Draw whether an episode runs without residual."""
        return bool(rng.random() < self.base_only_share)

    def noise_scale(self, rng: np.random.Generator) -> float:
        """Draw an episode's factor on the actor's noise."""
        wide, exponent = rng.random(2)
        return float(self.wide_noise_scale**exponent) if wide < self.wide_noise_share else 1.0

    def sample(
        self, noise_scale: float, blend_ratio: float, weight: float = 1.0
    ) -> ExplorationSample:
        """Return how a decision explores.

        Args:
            noise_scale: the episode's factor on the actor's noise.
            blend_ratio: multiplier on the residual, in [0, 1].
            weight: of the add-on reward.
        """
        share = blend_ratio * (self.bound_scale if noise_scale == 1.0 else self.wide_bound_scale)
        return ExplorationSample(noise_scale, share, self.full_bound_cost, weight)


@dataclass(frozen=True)
class ExplorationSample:
    """How one decision explores."""

    noise_scale: float = 1.0
    """Factor on the actor's noise."""
    bound_scale: float = 1.0
    """Share of the residual bound in use. Critics that choose judge what it leaves of a residual;
    the residual itself stays in units of the bound."""
    full_bound_cost: float = 0.0
    """As in `Exploration`."""
    weight: float = 1.0
    """Weight of the add-on reward, for robot policies that customise the base at the decision."""


WARM_UP = Exploration(residual_probability=0.0)
"""The base policy alone."""
RESIDUAL = Exploration()
"""The actor at every decision, with its own noise."""
FULL_SAMPLE = ExplorationSample()
"""The actor's own noise, and all of the bound."""


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
    if kind not in ROBOT_POLICIES:
        for entry in installed_kinds():
            entry.load()
    if kind not in ROBOT_POLICIES:
        known = ', '.join(sorted(ROBOT_POLICIES))
        raise ValueError(f'kind is {shown(kind)}, expected one of {known}')
    return ROBOT_POLICIES[kind]


PROBE_REACH = 10.0
"""So many standard deviations from the mean observation an actor is tried, beside the largest
observations that there are."""


def decides_numbers(policy: RobotPolicy, exploration: Exploration) -> bool:
    """Return whether a robot policy decides by numbers: tried before it may act.

    Finite weights can overflow float32. The policy is tried on its mean observation, around it and
    on the largest observations that a transition may hold, with base actions from one end of the
    trained range to the other, with and without noise. Of discrete actions it must choose one.

    Args:
        policy: the policy.
        exploration: how it is to act.
    """
    layout = policy.architecture.layout
    n, km = layout.observation_size, layout.decision_size
    rng = np.random.default_rng(0)
    mean, std = (
        policy.tensors.get(f'normalizer.{name}', np.full(n, default)).astype(np.float64)
        for name, default in (('mean', 0.0), ('std', 1.0))
    )
    low, high = (
        np.tile(values, layout.decision_steps) for values in (layout.action_min, layout.action_max)
    )
    signs = rng.choice([-1.0, 1.0], (3, n))
    observations = [mean, *(mean + PROBE_REACH * signs[:2] * std), MAX_OBSERVATION * signs[2]]
    bases = [0.5 * (low + high), low, high, low + (high - low) * rng.random(km)]
    others = rng.uniform(low, high, (layout.proposals - 1, km))
    if layout.discrete:
        size = (4 + layout.proposals - 1, layout.decision_steps)
        chosen = np.eye(layout.action_size)[rng.integers(layout.action_size, size=size)]
        bases, others = list(chosen[:4].reshape(4, km)), chosen[4:].reshape(-1, km)
    widest = ExplorationSample(exploration.wide_noise_scale, 1.0, exploration.full_bound_cost)
    told = BaseDistribution(np.zeros(layout.prior_size), others)
    bound = np.tile(layout.residual_bound, layout.decision_steps)

    def usable(action: Array, base: Array) -> bool:
        if not (is_residual(action, km) and layout.discrete):
            return is_residual(action, km)
        return is_one_hot((base + bound * action).reshape(-1, layout.action_size))

    with np.errstate(all='ignore'):
        return all(
            usable(policy.decide(observation, base, noise, sample, told), base)
            for observation, base in zip(observations, bases, strict=True)
            for noise, sample in ((None, FULL_SAMPLE), (rng, widest))
        )


def is_residual(action: Array, size: int) -> bool:
    """Return whether an action is a residual: so many numbers in [-1, 1]."""
    return action.shape == (size,) and within(action, 1.0)
