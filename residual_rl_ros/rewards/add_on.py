# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an add-on reward is, how it finds its numbers by name, and the registry of add-ons.

An add-on of this package is a frozen dataclass of `parameter` fields, its keys, with a method
`bind`. One of another package is a factory: `factory(observation_names, action_names, **keys)`
returns `reward(observation, action, next_observation)`. It is named by an entry point of the group
`residual_rl_ros.add_ons`, or as `package.module:factory`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ConfigError, ResidualRLError, RewardError, shown
from residual_rl_ros.numerics import Array
from residual_rl_ros.schema import did_you_mean, from_mapping

Columns = npt.NDArray[np.intp]
ENTRY_POINTS = 'residual_rl_ros.add_ons'
"""Entry points of factories; the name of one is that of its add-on."""
MAX_LISTED_NAMES = 40
"""So many names that a robot has are listed for one that it has not."""


class BoundAddOn(Protocol):
    """An add-on reward that knows where its numbers are; pure, and vectorised over all rows."""

    def __call__(self, observation: Array, action: Array, next_observation: Array) -> Array:
        """Return the reward of a control step, shape (...,).

        Args:
            observation: shape (..., n).
            action: executed action, shape (..., m), command units.
            next_observation: shape (..., n).
        """

    def of_decision(self, observation: Array, actions: Array, next_observation: Array) -> Array:
        """Return the reward of a decision of k control steps, shape (...,).

        Args:
            observation: at the decision, shape (..., n).
            actions: executed actions in step order, shape (..., k, m).
            next_observation: after the last step, shape (..., n).
        """


@dataclass(frozen=True)
class StepReward:
    """An add-on whose decisions are worth the sum of their steps: most are."""

    function: Callable[[Array, Array, Array], Array]
    """As `BoundAddOn.__call__`."""

    def __call__(self, observation: Array, action: Array, next_observation: Array) -> Array:
        """Return the reward of a control step, shape (...,)."""
        return self.function(observation, action, next_observation)

    def of_decision(self, observation: Array, actions: Array, next_observation: Array) -> Array:
        """Return the sum over the steps; each has the observations of the whole decision."""
        steps = actions.shape[-2]
        before, after = (
            np.broadcast_to(each[..., None, :], (*each.shape[:-1], steps, each.shape[-1]))
            for each in (observation, next_observation)
        )
        # Step by step: the order of a sum over an axis depends on how many rows there are.
        values = self.function(before, actions, after)
        total: Array = np.zeros(values.shape[:-1])
        for step in range(steps):
            total = total + values[..., step]
        return total


@dataclass(frozen=True)
class Names:
    """The names of a robot's numbers, in the order of its transitions."""

    observation: tuple[str, ...]
    action: tuple[str, ...]
    decision_steps: int = 1
    """Control steps from an observation to the next one (k)."""

    def of_observation(self, names: Sequence[str]) -> Columns:
        """Return the columns of names of the observation.

        Raises:
            ConfigError: one is not there; the error lists what there is.
        """
        return self._columns('observation', self.observation, names)

    def of_action(self, names: Sequence[str]) -> Columns:
        """Return the columns of names of the action; see `of_observation`."""
        return self._columns('action', self.action, names)

    @staticmethod
    def _columns(kind: str, known: Sequence[str], names: Sequence[str]) -> Columns:
        for name in names:
            if name not in known:
                question = did_you_mean(name, known)
                hint = f'{question} ' if question else ''
                listed = ', '.join(known[:MAX_LISTED_NAMES])
                more = len(known) - MAX_LISTED_NAMES
                rest = f' and {more} more' if more > 0 else ''
                raise ConfigError(
                    f'the robot has no {kind} {shown(name)}; {hint}it has {listed}{rest}'
                )
        return np.array([known.index(name) for name in names], dtype=np.intp)


class AddOn(Protocol):
    """The keys of an add-on: a frozen dataclass of `parameter` fields."""

    def bind(self, names: Names) -> BoundAddOn:
        """Look its names up.

        Raises:
            ConfigError: the robot lacks an observation or action that it names.
        """


ADD_ONS: dict[str, type[Any]] = {}
"""The add-ons of this package, by name."""
_Class = TypeVar('_Class', bound=type[Any])


def register(name: str) -> Callable[[_Class], _Class]:
    """Register the keys of an add-on under a name."""

    def add(kind: _Class) -> _Class:
        ADD_ONS[name] = kind
        return kind

    return add


@dataclass(frozen=True)
class ForeignAddOn:
    """An add-on of another package."""

    name: str
    factory: Callable[..., Any]
    keys: Mapping[str, Any]

    def bind(self, names: Names) -> BoundAddOn:
        """Make the reward, and check what it answers.

        Raises:
            ConfigError: a name is missing, the factory failed or returned nothing to call.
        """
        try:
            reward = self.factory(names.observation, names.action, **self.keys)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(f'cannot be made: {type(error).__name__}: {error}') from error
        if not callable(reward):
            raise ConfigError(f'the factory returned {shown(reward)}, nothing to call')

        def checked(observation: Array, action: Array, next_observation: Array) -> Array:
            answer = self._foreign('failed', lambda: reward(observation, action, next_observation))
            try:
                values = np.asarray(answer, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise RewardError(
                    f'add-on {self.name!r} returned {shown(answer)}, expected numbers'
                ) from error
            rows = np.broadcast_shapes(observation.shape[:-1], action.shape[:-1])
            if values.shape != rows:
                raise RewardError(
                    f'add-on {self.name!r} returned shape {values.shape} for rows of shape {rows}, '
                    'expected a number for each row'
                )
            return values

        return StepReward(checked)

    def _foreign(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ResidualRLError:
            raise
        except Exception as error:
            reason = f'{type(error).__name__}: {error}'
            raise RewardError(f'add-on {self.name!r} {what}: {reason}') from error


def find_add_on(name: str, keys: Mapping[str, Any]) -> AddOn:
    """Return an add-on with its keys.

    Args:
        name: of an add-on of this package or of an entry point, or `package.module:factory`. The
            last two are code, and are run: name only what you trust.
        keys: its keys, as in YAML.

    Raises:
        ConfigError: there is none of the name, or a key is unknown, missing or wrong.
    """
    if name in ADD_ONS:
        made: AddOn = from_mapping(ADD_ONS[name], keys, f'add-on {name!r}')
        return made
    installed = {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINTS)}
    module, colon, attribute = name.partition(':')
    try:
        if name in installed:
            factory = installed[name].load()
        elif colon:
            factory = getattr(importlib.import_module(module), attribute)
        else:
            known = ', '.join(sorted({*ADD_ONS, *installed}))
            raise ConfigError(
                f'add-on is {shown(name)}, expected one of {known}, or package.module:factory'
            )
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f'add-on {shown(name)}: {type(error).__name__}: {error}') from error
    if not callable(factory):
        raise ConfigError(f'add-on {shown(name)} is {shown(factory)}, expected a factory to call')
    return ForeignAddOn(name, factory, dict(keys))
