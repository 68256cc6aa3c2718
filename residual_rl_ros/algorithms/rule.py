# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an update rule is to the learner, and the registry of rules.

A rule owns its networks, optimisers and memory. The learner counts transitions, decides when the
warm-up ends and when weights are published, and asks the rule for the rest; it never inspects one.
A package of its own adds a rule with the entry point group `residual_rl_ros.algorithms`, whose
entries name modules that call `register`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from residual_rl_ros.errors import ConfigError, ResourceError
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.resources import load_entry_point
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Source, Transition

ENTRY_POINTS = 'residual_rl_ros.algorithms'
BASIC, ADD_ON, TOTAL = 'basic', 'add_on', 'total'
"""Rewards to learn from: what the environment or robot tells, an add-on to it, and both."""
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class RuleConfig:
    """Numbers of an update rule; each rule derives its own."""

    section: ClassVar[str] = ''
    """Section of a preset in which the keys that a class adds stand."""
    proposals_advice: ClassVar[str] = ''
    """What to set for a rule that chooses among proposals of the base, if there is but one; empty
    for a rule that does not."""
    adds_residuals: ClassVar[bool] = True
    """Whether the robot policy adds residuals; else it chooses only among proposals of the base."""

    @property
    def in_bfloat16(self) -> bool:
        """Whether products are computed in bfloat16 on this computer."""
        return False

    @property
    def tells_cost(self) -> bool:
        """Whether the robot policy tells the cost to go of a base action."""
        return False

    @property
    def reward(self) -> str:
        """What is learned from: `BASIC`, `ADD_ON` or `TOTAL`."""
        return BASIC

    @property
    def add_on(self) -> tuple[dict[str, Any], ...]:
        """Add-ons to begin with, as `AddOns.of` reads them."""
        return ()

    @property
    def samples_demonstrations(self) -> bool:
        """Whether recorded demonstrations are of use."""
        return False

    @property
    def learns_offline(self) -> bool:
        """Whether it learns from the warm-up before the residual acts, and then forgets it."""
        return False

    @property
    def on_policy(self) -> bool:
        """Whether it learns only from decisions that its own actor drew, with its own noise."""
        return False

    @property
    def preparation_updates(self) -> int:
        """Number of updates that `Rule.prepare` takes."""
        return 0

    @property
    def relearning_updates(self) -> int:
        """Number of updates that are due at once when the add-on reward has changed."""
        return 0

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together, a sentence each that names the key."""
        yield from ()


class Memory(Protocol):
    """The transitions that a rule keeps."""

    def __len__(self) -> int:
        """Return how many transitions of the robot there are."""

    @property
    def nbytes(self) -> int:
        """Memory when it is full [byte]."""

    @property
    def demonstrations(self) -> int:
        """Number of demonstrations."""

    @property
    def episode_decisions(self) -> float:
        """Mean number of decisions of a robot's episode; 0 before the first."""

    def extend(self, table: TransitionTable, robot: str = '', demonstrations: bool = False) -> None:
        """Store many transitions of one robot, in order."""

    def add_demonstration(self, transition: Transition, robot: str = '') -> None:
        """Store a recorded demonstration; it is no experience of the robot."""

    def keep_newest(self, count: int) -> None:
        """Forget all but the newest transitions of the robot."""

    def composition(self) -> dict[Source, float]:
        """Return the share of each source among the transitions of the robot."""

    def export(self) -> dict[str, Arrays]:
        """Return the contents for a checkpoint, by file."""

    def restore(self, contents: Mapping[str, Arrays]) -> None:
        """Load what `export` returned."""


class Rule(Protocol):
    """An update rule.

    Args:
        config: its numbers.
        layout: transition layout.
        generator: source of random numbers of initialisation and updates.
        rng: source of the draws from the memory.
    """

    def __init__(
        self,
        config: Any,
        layout: TransitionLayout,
        generator: torch.Generator,
        rng: np.random.Generator,
    ) -> None: ...

    remark: str
    """What a user must know of the last `prepare`; empty if nothing."""

    @property
    def memory(self) -> Memory:
        """Its transitions."""

    def observe(self, transition: Transition, robot: str = '') -> None:
        """Store a transition of a robot.

        Args:
            transition: the transition.
            robot: namespace of the robot that made it.
        """

    def prepare(self, pulse: Callable[[], None]) -> dict[str, Tensor]:
        """Use what the warm-up has collected, before the residual is switched on.

        Args:
            pulse: called before every update, to stay responsive and to count; what it raises ends
                the updates.

        Returns:
            Metrics of the last update, if there was one.
        """

    def updates_due(self, transitions: int) -> int:
        """Return how many updates are due in all after so many transitions since the warm-up."""

    def update(self) -> dict[str, Tensor]:
        """Take one gradient step and return scalar metrics, detached.

        Empty if there is nothing to learn from, as after the last step on a rollout.
        """

    def derived(self) -> dict[str, float]:
        """Return the numbers that follow from the warm-up, by their names in a preset."""

    def diagnose(self) -> dict[str, float]:
        """Return metrics that cost as much as several updates."""

    def robot_policy(self) -> RobotPolicy:
        """Return a copy of what is learned, as the robot runs it."""

    def published(self, version: tuple[int, int]) -> None:
        """Note that robots may act from now on with what is learned by now.

        Args:
            version: its (epoch, sequence), by which transitions name it.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor needed to continue, by name; the memory is saved on its own."""

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            RuntimeError: the tensors are of another architecture.
            KeyError: one is missing.
        """


@runtime_checkable
class Customisable(Protocol):
    """A rule that learns an add-on reward, which may change meanwhile."""

    def set_add_on(self, text: str, weight: float = 1.0) -> None:
        """Learn for another add-on from now on.

        Args:
            text: as YAML; empty is none.
            weight: factor on it.

        Raises:
            ConfigError: the text is no add-on, or the robot lacks what it names.
        """


RULES: dict[str, tuple[type[Any], type[RuleConfig]]] = {}
"""Class and configuration of every registered rule, by name."""
_Class = TypeVar('_Class', bound=type[Any])


def register(name: str, config: type[RuleConfig]) -> Callable[[_Class], _Class]:
    """Register a class that answers `Rule` under the name that a preset gives.

    Args:
        name: the name.
        config: its numbers.

    Raises:
        ConfigError: another class has the name.
    """

    def add(kind: _Class) -> _Class:
        taken = RULES.setdefault(name, (kind, config))[0]
        if taken.__qualname__ != kind.__qualname__ or taken.__module__ != kind.__module__:
            raise ConfigError(f'algorithm {name!r} is registered twice: {taken} and {kind}')
        RULES[name] = kind, config
        return kind

    return add


def find_rule(name: Any) -> tuple[type[Any], type[RuleConfig]]:
    """Return class and configuration of a rule.

    Raises:
        ConfigError: no rule has the name.
    """
    broken = []
    if name not in RULES:
        for entry in metadata.entry_points(group=ENTRY_POINTS):
            try:
                load_entry_point(entry)
            except ResourceError as error:  # It may not be the one.
                broken.append(f'; {error}')
    if name not in RULES:
        known = ', '.join(sorted(RULES))
        raise ConfigError(f'algorithm is {name!r}, expected one of {known}{"".join(broken)}')
    return RULES[name]
