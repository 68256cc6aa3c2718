# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several add-ons with weights, as YAML and the command line write them, and their sum.

The reward of a decision of k control steps is the sum over its steps of r(o, a_i, o'): o is the
observation at the decision, a_i the action executed at step i, o' the observation after the last
step. Between these two nothing is looked at. It is a function of a transition alone, so that a bag
can be given another add-on afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ConfigError, FormatError, RewardError, shown
from residual_rl_ros.files.yaml_text import parse_yaml
from residual_rl_ros.numerics import Array
from residual_rl_ros.rewards.add_on import ADD_ONS, AddOn, BoundAddOn, Names, find_add_on
from residual_rl_ros.schema import written_otherwise
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import MAX_REWARD, Transition

MAX_ADD_ONS = 32
"""So many add-ons can be composed."""
MAX_WEIGHT = 1e6
"""Of one of them, either sign."""
MAX_ADD_ON_WEIGHT = 1000.0
"""Of all together: 1 is what was learned, and far more chooses ever more sharply."""
EXAMPLE = 'name, or name:key=value,key=value'
DESCRIPTION = (
    'add-on rewards: a list of maps of name, weight (default 1) and the keys of the add-on'
)


def check_weight(weight: float) -> None:
    """Refuse a common weight of add-ons that is out of range.

    Raises:
        ConfigError: says what was expected.
    """
    if not 0.0 <= weight <= MAX_ADD_ON_WEIGHT:
        raise ConfigError(
            f'add_on_weight is {weight}, expected a number from 0 to {MAX_ADD_ON_WEIGHT:g}'
        )


@dataclass(frozen=True)
class Weighted:
    """One add-on of a composition."""

    name: str
    weight: float
    keys: Mapping[str, Any]
    """Its keys, as they were written."""
    add_on: AddOn


@dataclass(frozen=True)
class AddOns:
    """A composition of add-ons; none is no add-on."""

    parts: tuple[Weighted, ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self.parts)

    @classmethod
    def of(cls, values: Any, source: str = 'add_on') -> AddOns:
        """Return what a list of maps says, as in YAML; a single map is a list of one.

        Raises:
            ConfigError: names what is unknown, missing or wrong.
        """
        listed = [values] if isinstance(values, Mapping) else values
        if listed is None or (isinstance(listed, Sequence) and not len(listed)):
            return cls()
        if not isinstance(listed, Sequence) or isinstance(listed, (str, bytes)):
            raise ConfigError(f'{source} is {shown(values)}, expected a list of maps with a name')
        if len(listed) > MAX_ADD_ONS:
            raise ConfigError(f'{source} has {len(listed)} add-ons, expected <= {MAX_ADD_ONS}')
        return cls(tuple(_weighted(each, source) for each in listed))

    @classmethod
    def from_yaml(cls, text: str, source: str = 'add_on') -> AddOns:
        """Return what a YAML text says, such as a ROS parameter holds; empty is no add-on.

        Raises:
            ConfigError: as `of`; or it is no YAML.
        """
        try:
            return cls.of(parse_yaml(text, source), source)
        except FormatError as error:
            raise ConfigError(str(error)) from error

    @classmethod
    def from_message(cls, text: str) -> AddOns:
        """Return what a YAML text says that comes from outside: it can name no code to import.

        Raises:
            ConfigError: as `from_yaml`; or it names `package.module:factory`.
        """
        try:
            values = parse_yaml(text, 'add_on')
        except FormatError as error:
            raise ConfigError(str(error)) from error
        for each in [values] if isinstance(values, Mapping) else values or ():
            name = each.get('name') if isinstance(each, Mapping) else None
            if isinstance(name, str) and ':' in name:
                raise ConfigError(
                    f'add_on is {shown(name)}, and a running node imports no code: register it '
                    'as an entry point (residual_rl_ros.add_ons)'
                )
        return cls.of(values)

    @classmethod
    def from_options(cls, texts: Sequence[str]) -> AddOns:
        """Return what `--add-on name:key=value,...` options say.

        Raises:
            ConfigError: as `of`; or an option is no such text.
        """
        return cls.of([parse_option(text) for text in texts], '--add-on')

    def to_list(self) -> list[dict[str, Any]]:
        """Return it as YAML and JSON can hold it; `of` reads it."""
        return [{'name': each.name, 'weight': each.weight, **each.keys} for each in self.parts]

    def to_yaml(self) -> str:
        """Return it as one line of YAML, such as a ROS parameter holds; `from_yaml` reads it."""
        return json.dumps(self.to_list()) if self else ''

    def bind(
        self,
        observation_names: Sequence[str],
        action_names: Sequence[str],
        decision_steps: int = 1,
    ) -> BoundAddOns:
        """Look the names of all add-ons up.

        Args:
            observation_names: names of the observation (n).
            action_names: names of the action (m).
            decision_steps: control steps from an observation to the next one (k).

        Raises:
            ConfigError: names the add-on and what the robot has not.
            RewardError: an add-on of another package failed.
        """
        names = Names(tuple(observation_names), tuple(action_names), decision_steps)
        bound = []
        for each in self.parts:
            try:
                bound.append((each.name, each.weight, each.add_on.bind(names)))
            except ConfigError as error:
                raise ConfigError(f'add-on {each.name!r}: {error}') from error
        return BoundAddOns(names, tuple(bound))


def _weighted(values: Any, source: str) -> Weighted:
    """Return one add-on of a list.

    Raises:
        ConfigError: it is no map with a name, or wrong.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get('name'), str):
        raise ConfigError(f'{source}: {shown(values)} is no add-on, expected a map with a name')
    keys = {str(key): value for key, value in values.items() if key not in ('name', 'weight')}
    name, weight = values['name'], values.get('weight', 1.0)
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not abs(weight) <= MAX_WEIGHT:
        raise ConfigError(
            f'{source}: weight of {shown(name)} is {shown(weight)}, expected a number within '
            f'{MAX_WEIGHT:g}{written_otherwise(weight)}'
        )
    return Weighted(name, float(weight), keys, find_add_on(name, keys))


def parse_option(text: str) -> dict[str, Any]:
    """Return the map that `name:key=value,key=value` stands for; values are YAML.

    Raises:
        ConfigError: it is no such text.
    """
    name, *rest = text.split(':')
    if rest and '=' not in rest[0] and name not in ADD_ONS:  # package.module:factory
        name = f'{name}:{rest.pop(0)}'
    values: dict[str, Any] = {'name': name}
    for change in _split(':'.join(rest)):
        key, equals, value = change.partition('=')
        key = key.strip()
        if not equals or key in values:
            how = 'given twice' if equals else 'no assignment'
            raise ConfigError(f'--add-on {text!r}: {change!r} is {how}, expected {EXAMPLE}')
        try:
            values[key] = parse_yaml(value, f'--add-on {text!r}')
        except FormatError as error:
            raise ConfigError(str(error)) from error
    return values


def _split(text: str) -> list[str]:
    """Return the parts of a text between its commas, of which those in brackets are none."""
    parts, depth = [''], 0
    for character in text:
        depth += (character in '[{') - (character in ']}')
        if character == ',' and depth == 0:
            parts.append('')
        else:
            parts[-1] += character
    return parts if text else []


@dataclass(frozen=True)
class BoundAddOns:
    """The weighted sum of add-ons for one robot: pure, vectorised, and never NaN."""

    names: Names
    parts: tuple[tuple[str, float, BoundAddOn], ...]
    """Name, weight and reward of each."""

    def __call__(
        self,
        observation: npt.ArrayLike,
        action: npt.ArrayLike,
        next_observation: npt.ArrayLike,
    ) -> Array:
        """Return the reward of a control step, shape (...,).

        Args:
            observation: shape (..., n).
            action: executed action, shape (..., m), command units.
            next_observation: shape (..., n).

        Raises:
            RewardError: an add-on failed, or its reward is not finite or beyond `MAX_REWARD`.
        """
        arrays = _float64(observation, action, next_observation)
        each = [(name, weight, reward(*arrays)) for name, weight, reward in self.parts]
        return self._sum(each, *arrays)

    def of_decision(
        self,
        observation: npt.ArrayLike,
        executed_action: npt.ArrayLike,
        next_observation: npt.ArrayLike,
    ) -> Array:
        """Return the reward of a decision of k control steps, shape (...,).

        Args:
            observation: at the decision, shape (..., n).
            executed_action: executed actions in step order, shape (..., k * m).
            next_observation: after the last step, shape (..., n).

        Raises:
            RewardError: as for a control step.
        """
        before, flat, after = _float64(observation, executed_action, next_observation)
        actions = flat.reshape(*flat.shape[:-1], -1, len(self.names.action))
        each = [
            (name, w, reward.of_decision(before, actions, after)) for name, w, reward in self.parts
        ]
        return self._sum(each, before, flat, after)

    def of_transition(self, transition: Transition) -> float:
        """Return the reward of a transition; see `of_decision`."""
        return float(
            self.of_decision(
                transition.observation, transition.executed_action, transition.next_observation
            )
        )

    def of_each(self, transition: Transition) -> list[float]:
        """Return the weighted reward of each add-on; summed up in order it is `of_transition`."""
        return [replace(self, parts=(part,)).of_transition(transition) for part in self.parts]

    def of_table(self, table: TransitionTable) -> Array:
        """Return the reward of every transition, shape (count,); see `of_decision`."""
        blocks = ('observation', 'executed_action', 'next_observation')
        return self.of_decision(*(table.block(name) for name in blocks))

    def _sum(self, parts: Sequence[tuple[str, float, Array]], *arrays: Array) -> Array:
        total: Array = np.zeros(np.broadcast_shapes(*(each.shape[:-1] for each in arrays)))
        for name, weight, values in parts:
            weighted = weight * values
            if not (np.abs(weighted) <= MAX_REWARD).all():
                self._refuse(name, weighted, *arrays)
            total = total + weighted
        return total

    def _refuse(self, name: str, values: Array, *arrays: Array) -> None:
        """Name the row of a reward that is none, and the number that is the cause, if one is.

        Raises:
            RewardError: always.
        """
        row = tuple(int(i) for i in np.argwhere(~(np.abs(values) <= MAX_REWARD))[0])
        place = f' in row {row[0] if len(row) == 1 else row}' if row else ''
        cause = ''
        fields = ('observation', 'action', 'next_observation')
        known = (self.names.observation, self.names.action, self.names.observation)
        for field, names, array in zip(fields, known, arrays, strict=True):
            numbers = np.broadcast_to(array, (*values.shape, array.shape[-1]))[row]
            bad = np.flatnonzero(~np.isfinite(numbers))
            if len(bad):
                index = int(bad[0])
                label = names[index % len(names)]
                cause = f': {field}[{index}] ({label}) is {float(numbers[index])}'
                break
        raise RewardError(
            f'add-on {name!r} gives {float(values[row])}{place}{cause}; expected a finite number '
            f'up to {MAX_REWARD:g}'
        )


def _float64(*arrays: npt.ArrayLike) -> tuple[Array, ...]:
    return tuple(np.asarray(each, dtype=np.float64) for each in arrays)


def decision_reward(add_ons: AddOns, layout: TransitionLayout) -> BoundAddOns:
    """Return the add-on reward of transitions of a layout: live, replayed or from a bag.

    Raises:
        ConfigError: the layout lacks an observation or action that an add-on names.
    """
    return add_ons.bind(layout.observation_names, layout.action_names, layout.decision_steps)
