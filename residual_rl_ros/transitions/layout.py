# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The layout of a transition in a message: names, sizes, scales and limits, of version 1 or 2.

A message carries nothing but float64 numbers and one label, so that a bag of the topic is a
training set that any tool can read. Version 2 adds what customisation needs (density and proposals
of the base policy, the add-on reward); a layout without any of these is of version 1.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from residual_rl_ros.errors import ConfigError, FormatError, MalformedTransitionError, shown
from residual_rl_ros.files.yaml_text import parse_yaml
from residual_rl_ros.numerics import Array, flag, integer
from residual_rl_ros.robot.action_spec import MAX_LIMIT
from residual_rl_ros.robot.names import check_names
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.transitions.transition import (
    HEADER,
    HEADER_LIMITS,
    MAX_REWARD,
    WHOLE,
    Transition,
)

MAX_OBSERVATION = 1e6
"""Largest plausible observation: no channel of a robot has such values, in any usual unit."""
ACTION_MARGIN = 1000.0
"""An action may be so many times the trained range, or residual bound, or 1 if these are smaller,
outside of the trained range. An operator commands far outside of it, and the limits of the robot
are no part of a layout."""
MAX_DECISION_STEPS = 1000
"""Largest k: layouts come from outside, and arrays of k x m numbers are made of them."""
MAX_SIZE = 10**5
"""Largest number of values in a message."""
MAX_NAME_CHARACTERS = 10**5
"""Longest that all names of a layout may be together [characters]."""
MAX_PROPOSALS = 64
"""Largest N."""
MAX_PRIOR = 1e6
"""Largest mean, log standard deviation and logit; -1e6 stands for the logit of what never is."""
ADDITIONS: Mapping[str, Any] = {
    'prior': Prior.NONE,
    'proposals': 1,
    'customisable': False,
    'discrete': False,
}
"""What layout version 2 adds, with the values at which a layout is of version 1."""


@dataclass(frozen=True)
class TransitionLayout:
    """Names, sizes and scales of a transition layout.

    Attributes are what both ends must agree on; their hash travels in every message label. With
    them a bag of transitions is complete: a learner needs neither the model nor the robot.
    """

    observation_names: tuple[str, ...]
    """Observation names (n)."""
    action_names: tuple[str, ...]
    """Action names (m)."""
    decision_steps: int
    """Control steps per residual decision (k)."""
    action_min: tuple[float, ...]
    """Smallest action the base policy was trained on, command units (m)."""
    action_max: tuple[float, ...]
    """Largest action the base policy was trained on, command units (m)."""
    residual_bound: tuple[float, ...]
    """Largest residual, command units (m)."""
    prior: Prior = Prior.NONE
    """What the base policy tells of its density."""
    proposals: int = 1
    """Draws of the base policy for a decision (N); the first is the base action."""
    customisable: bool = False
    """Whether transitions carry an add-on reward."""
    discrete: bool = False
    """Whether an action is one of m, written as a one-hot vector."""

    @property
    def version(self) -> int:
        """Version: 1 without anything that version 2 adds."""
        return 2 if self._additions else 1

    @property
    def _additions(self) -> dict[str, Any]:
        """What version 2 adds, by name, where it is not the default."""
        own = {name: getattr(self, name) for name in ADDITIONS}
        return {name: value for name, value in own.items() if value != ADDITIONS[name]}

    def __post_init__(self) -> None:
        """Check names, k and scales."""
        self._check_additions()
        for kind, names in (('observation', self.observation_names), ('action', self.action_names)):
            check_names(kind, names)
            characters = sum(map(len, names))
            if characters > MAX_NAME_CHARACTERS:
                raise ConfigError(
                    f'{kind} names have {characters} characters, expected <= {MAX_NAME_CHARACTERS}'
                )
        if not 1 <= self.decision_steps <= MAX_DECISION_STEPS:
            raise ConfigError(
                f'decision_steps is {self.decision_steps}, expected 1 to {MAX_DECISION_STEPS}'
            )
        if self.size > MAX_SIZE:
            raise ConfigError(
                f'a transition has {self.size} numbers, expected <= {MAX_SIZE}: '
                f'{self.observation_size} observations, {self.action_size} actions, '
                f'decision_steps {self.decision_steps}'
            )
        for label in ('action_min', 'action_max', 'residual_bound'):
            # Integers would hash differently from the floats that a YAML gives back.
            object.__setattr__(self, label, tuple(float(value) for value in getattr(self, label)))
            values = getattr(self, label)
            usable = all(abs(value) <= MAX_LIMIT for value in values)
            if len(values) != self.action_size or not usable:
                raise ConfigError(
                    f'{label} is {shown(values)}, expected {self.action_size} finite values '
                    f'within {MAX_LIMIT:g}'
                )
        limits = zip(self.residual_bound, self.action_min, self.action_max, strict=True)
        for name, (bound, low, high) in zip(self.action_names, limits, strict=True):
            if bound < 0.0 or (bound > 0.0 and not low < high):
                raise ConfigError(
                    f'residual_bound of {name!r} is {bound}, expected >= 0, and 0 where the base '
                    f'policy was trained on no range of actions ({low} to {high})'
                )

    def _check_additions(self) -> None:
        """Check what version 2 adds."""
        if not isinstance(self.prior, str) or self.prior not in tuple(Prior):
            raise ConfigError(f'prior is {shown(self.prior)}, expected one of {", ".join(Prior)}')
        object.__setattr__(self, 'prior', Prior(self.prior))
        if not 1 <= self.proposals <= MAX_PROPOSALS:
            raise ConfigError(f'proposals is {self.proposals}, expected 1 to {MAX_PROPOSALS}')
        if self.discrete != (self.prior is Prior.CATEGORICAL) and self.prior is not Prior.NONE:
            raise ConfigError(
                f'prior is {self.prior} and discrete {self.discrete}: a categorical prior is for '
                'discrete actions, and the others for continuous ones'
            )
        unit = {'action_min': {0.0}, 'action_max': {1.0}, 'residual_bound': {0.0, 1.0}}
        for label, allowed in unit.items():
            values = getattr(self, label)
            if self.discrete and not set(values) <= allowed:
                raise ConfigError(
                    f'{label} of discrete actions is {shown(values)}, expected '
                    f'{" or ".join(f"{value:g}" for value in sorted(allowed))} (one-hot vectors)'
                )

    @property
    def observation_size(self) -> int:
        """Size n of the observation."""
        return len(self.observation_names)

    @property
    def action_size(self) -> int:
        """Number of command dimensions m."""
        return len(self.action_names)

    @property
    def decision_size(self) -> int:
        """Size k * m of one decision's action block."""
        return self.decision_steps * self.action_size

    @property
    def prior_size(self) -> int:
        """Number P of values that tell the density of a base action."""
        return self.prior.size(self.decision_size)

    @property
    def size(self) -> int:
        """Number of float64 values in a message."""
        return len(HEADER) + sum(self._blocks.values())

    @cached_property
    def columns(self) -> Mapping[str, slice]:
        """Where each scalar and block lies in a message, by its name in `Transition`."""
        sizes = [*((name, 1) for name in HEADER), *self._blocks.items()]
        ends = np.cumsum([size for _, size in sizes]).tolist()
        return {name: slice(end - size, end) for (name, size), end in zip(sizes, ends, strict=True)}

    @cached_property
    def limits(self) -> tuple[Array, Array]:
        """Smallest and largest value of every number of a message, shape (size,) each."""
        low, high, bound = (
            np.array(values) for values in (self.action_min, self.action_max, self.residual_bound)
        )
        reach = ACTION_MARGIN * np.maximum(np.maximum(high - low, bound), 1.0)
        result = np.empty((2, self.size))
        result[:, : len(HEADER)] = np.transpose(list(HEADER_LIMITS.values()))
        for name in self._blocks:
            block = result[:, self.columns[name]]
            if name.endswith('observation'):
                block[:] = [[-MAX_OBSERVATION], [MAX_OBSERVATION]]
            elif name == 'residual_action':
                block[:] = [[-1.0], [1.0]]
            elif name.endswith('prior'):
                block[:] = [[-MAX_PRIOR], [MAX_PRIOR]]
            elif name == 'add_on':
                block[:] = [[-MAX_REWARD], [MAX_REWARD]]
            else:
                steps = block.shape[1] // self.action_size
                block[:] = np.tile([low - reach, high + reach], steps)
        return result[0], result[1]

    def usable(self, values: Array) -> npt.NDArray[np.bool_]:
        """Return which numbers of transitions the layout allows, shape (..., size) as the values.

        The only test of this: messages, bags and runs in one process take it.
        """
        low, high = self.limits
        usable: npt.NDArray[np.bool_] = (values >= low) & (values <= high)
        head = values[..., : len(HEADER)]
        usable[..., : len(HEADER)] &= ~WHOLE | (head == np.floor(head))
        return usable

    @cached_property
    def label(self) -> str:
        """Dimension label of a message: `transition:v<version>:<hash of the layout>`."""
        canonical = json.dumps(self.to_mapping(), sort_keys=True, separators=(',', ':'))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:16]
        return f'transition:v{self.version}:{digest}'

    def to_mapping(self) -> dict[str, Any]:
        """Return it as JSON and YAML can hold it."""
        return {
            'version': self.version,
            'decision_steps': self.decision_steps,
            'observation_names': list(self.observation_names),
            'action_names': list(self.action_names),
            'action_min': list(self.action_min),
            'action_max': list(self.action_max),
            'residual_bound': list(self.residual_bound),
            **{
                name: str(value) if name == 'prior' else value
                for name, value in self._additions.items()
            },
        }

    def to_yaml(self) -> str:
        """Return the text of the latched `transition_layout` topic."""
        return yaml.safe_dump(
            {**self.to_mapping(), 'label': self.label, 'header': list(HEADER)}, sort_keys=False
        )

    @classmethod
    def from_yaml(cls, text: str) -> TransitionLayout:
        """Parse the text of the latched `transition_layout` topic.

        Raises:
            ConfigError: the text is not such a layout or its label does not match.
        """
        try:
            mapping = parse_yaml(text, 'transition layout')
        except FormatError as error:
            raise ConfigError(str(error)) from error
        layout = cls.from_mapping(mapping)
        if mapping.get('label') != layout.label:
            raise ConfigError(
                f'transition layout says label {shown(mapping.get("label"))}, its names give '
                f'{layout.label!r}'
            )
        return layout

    @classmethod
    def from_mapping(cls, mapping: Any) -> TransitionLayout:
        """Return the layout that `to_mapping` gave.

        Raises:
            ConfigError: a key is missing or wrong, or the version is unknown.
        """
        if not isinstance(mapping, Mapping):
            raise ConfigError(f'transition layout is a {type(mapping).__name__}, not a map')
        if mapping.get('version') not in (1, 2):
            raise ConfigError(
                f'transition layout version {shown(mapping.get("version"))}, expected 1 or 2'
            )
        try:
            low, high, bound = (
                tuple(float(value) for value in mapping[key])
                for key in ('action_min', 'action_max', 'residual_bound')
            )
            layout = cls(
                tuple(mapping['observation_names']),
                tuple(mapping['action_names']),
                integer(mapping['decision_steps']),
                low,
                high,
                bound,
                prior=mapping.get('prior', Prior.NONE),
                proposals=integer(mapping.get('proposals', 1)),
                customisable=flag(mapping.get('customisable', False)),
                discrete=flag(mapping.get('discrete', False)),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f'transition layout is incomplete: {error!r:.200}') from error
        if mapping['version'] != layout.version:
            raise ConfigError(
                f'transition layout says version {mapping["version"]}, its contents are of version '
                f'{layout.version}'
            )
        return layout

    def differences(self, other: TransitionLayout) -> list[str]:
        """Return in what another layout is not this one, a text for each number or name."""
        texts = []
        for name in (field.name for field in fields(self)):
            own, its = getattr(self, name), getattr(other, name)
            if not isinstance(own, tuple):
                pairs = [(name, own, its)]
            elif len(own) != len(its):
                pairs = [(f'number of {name}', len(own), len(its))]
            else:
                pairs = [
                    (f'{name}[{i}]', *pair) for i, pair in enumerate(zip(own, its, strict=True))
                ]
            # The other may come from outside: a name can be of any length.
            texts += [
                f'{what} is {its!r:.80}, expected {own!r}' for what, own, its in pairs if own != its
            ]
        return texts

    def encode(self, transition: Transition) -> Array:
        """Return the message data of a transition, shape (size,).

        Raises:
            MalformedTransitionError: a block has the wrong size, or the layout does not allow a
                value; nothing else, whatever the transition holds.
        """
        data = np.empty(self.size)
        try:
            data[: len(HEADER)] = [getattr(transition, name) for name in HEADER]
            for name, size in self._blocks.items():
                block = getattr(transition, name)
                if block.shape != (size,):
                    raise MalformedTransitionError(
                        f'{name} has shape {block.shape}, expected ({size},) by the layout'
                    )
                data[self.columns[name]] = block
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise MalformedTransitionError(f'a value is no float64: {error!r:.200}') from error
        self._check_numbers(data)
        return data

    def decode(self, data: npt.ArrayLike, label: str) -> Transition:
        """Return the transition that a message holds.

        Args:
            data: the message's numbers.
            label: label of the message's only dimension.

        Raises:
            MalformedTransitionError: wrong label, size, flag or number; nothing is guessed.
        """
        if label != self.label:
            raise MalformedTransitionError(
                f'label {label!r:.80}, expected {self.label!r}; the policy node runs another '
                'robot, base policy or decision_steps than the learner'
            )
        try:
            values = np.asarray(data, dtype=np.float64)
        except (OverflowError, TypeError, ValueError) as error:
            raise MalformedTransitionError(f'a value is no float64: {error!r:.200}') from error
        if values.shape != (self.size,):
            raise MalformedTransitionError(
                f'message has shape {values.shape}, expected ({self.size},)'
            )
        self._check_numbers(values)
        blocks = {name: values[self.columns[name]].copy() for name in self._blocks}
        return Transition.from_numbers(values[: len(HEADER)], blocks)

    @cached_property
    def _blocks(self) -> Mapping[str, int]:
        """Size of every array of a transition, in message order, which is that of `Transition`."""
        n, km, p = self.observation_size, self.decision_size, self.prior_size
        more = (self.proposals - 1) * km
        return {
            'observation': n,
            'base_action': km,
            'residual_action': km,
            'executed_action': km,
            'next_observation': n,
            'next_base_action': km,
            'prior': p,
            'next_prior': p,
            'proposals': more,
            'next_proposals': more,
            'add_on': 2 * self.customisable,
        }

    def _check_numbers(self, values: Array) -> None:
        usable = self.usable(values)
        if usable.all():
            return
        index = int(np.flatnonzero(~usable)[0])
        name, at = next((name, at) for name, at in self.columns.items() if index < at.stop)
        if name in self._blocks:
            name = f'{name}[{index - at.start}]'
        value = float(values[index])
        low, high = (limits[index] for limits in self.limits)
        wanted = f'{low:.16g} to {high:.16g}'
        if not math.isfinite(value):
            wanted = 'a finite number'
        elif index < len(HEADER) and WHOLE[index]:
            few = high - low <= 3.0
            flags = tuple(range(int(low), int(high) + 1)) if few else ()
            wanted = f'one of {flags}' if few else f'a whole number from {wanted}'
        raise MalformedTransitionError(f'{name} is {value}, expected {wanted}')
