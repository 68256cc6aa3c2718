# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read `robot.command` of a robot YAML: one command, or several that share the action vector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.action_spec import DISCRETE, INCREMENTS, POSITIONS
from residual_rl_ros.robot.codecs import find_codec
from residual_rl_ros.robot.command import (
    COMMAND_TYPES,
    DISCRETE_TYPES,
    FIELDS,
    INDEX_TYPES,
    JOINT_TYPES,
    SINGLE_TYPES,
    STEPPED_TYPES,
    Command,
)
from residual_rl_ros.robot.keys import (
    COMMAND_KEYS,
    AnyActionKeys,
    CodecKeys,
    CommandKeys,
)
from residual_rl_ros.robot.topics import POSE
from residual_rl_ros.schema import from_mapping

OWN_KEYS = (
    'joints',
    'horizon_steps',
    'fields',
    'frame_id',
    'orientation',
    'max_effort',
    'threshold',
    'min_interval_s',
)
"""Keys of some types that `Command` has under the same name."""


@dataclass
class CommandSection:
    """What `robot.command` says, and what is wrong with it."""

    names: tuple[str, ...]
    """Of the actions."""
    rate_hz: float
    """Control rate [Hz]."""
    problems: list[str]
    """Get what is wrong."""
    commands: list[Command] = field(default_factory=list)
    holds: list[str] = field(default_factory=list)
    """How each action holds, as `ActionSpec.hold` takes it."""

    def read(self, mapping: Mapping[str, Any]) -> None:
        """Read the section.

        Args:
            mapping: keys of a single command, or `channels` and a map for each.
        """
        values = dict(mapping)
        channels = values.pop('channels', None)
        self.holds = [''] * len(self.names)
        if channels is None:
            self._add('command', values, 'robot.command', alone=True)
            if not self.problems:
                self._check_shares()
            return
        if isinstance(channels, str) or not hasattr(channels, '__iter__') or not list(channels):
            self.problems.append(
                f'robot.command.channels is {channels!r}, expected a list of the names of commands'
            )
            return
        for name in map(str, channels):
            own = values.pop(name, None)
            path = f'robot.command.{name}'
            if not isinstance(own, Mapping):
                self.problems.append(
                    f'robot.command.channels names {name!r}, expected each name once and a map of '
                    'its own'
                )
                continue
            self._add(name, dict(own), path, alone=len(list(channels)) == 1)
        for name in values:
            self.problems.append(
                f'robot.command.{name} is not in robot.command.channels; list it there, or remove '
                'it'
            )
        if not self.problems:
            self._check_shares()

    def _add(self, name: str, values: dict[str, Any], path: str, alone: bool) -> None:
        """Read one command."""
        said = str(values.get('type'))
        kind = COMMAND_KEYS.get(said, CommandKeys)
        try:
            if said.count('/') == 2 and said not in COMMAND_TYPES:
                kind = CodecKeys
                if find_codec(said).encode is None:
                    raise ConfigError(f'the codec of {said} makes no commands')
            keys = from_mapping(kind, values, path)
        except ConfigError as error:
            problems = error.problems or (f'type: {error}',)
            self.problems += [f'{path}.{problem}' for problem in problems]
            return
        if not self.names:
            return  # What is wrong with the actions is said already.
        actions = keys.actions or (self.names if alone else ())
        places = {each: index for index, each in reversed(list(enumerate(self.names)))}
        unknown = [each for each in actions if each not in places]
        if unknown or not actions:
            said = f'names {unknown}' if unknown else 'is missing'
            self.problems.append(
                f'{path}.actions {said}, expected some of the actions {", ".join(self.names)}'
            )
            return
        every, samples = self._rate(keys.rate_hz, path)
        limits = bool(keys.max_acceleration or keys.max_jerk)
        own = {key: getattr(keys, key) for key in OWN_KEYS if hasattr(keys, key)}
        if isinstance(keys, CodecKeys):
            own['fields'] = keys.fields or actions
        command = Command(
            keys.topic,
            keys.type,
            name=name,
            indices=() if actions == self.names else tuple(map(places.__getitem__, actions)),
            every=every,
            samples=samples,
            interpolation=keys.interpolation or ('limited' if limits else 'cubic'),
            max_acceleration=keys.max_acceleration,
            max_jerk=keys.max_jerk,
            **own,
        )
        self._check(command, actions, path, stated=limits or bool(keys.interpolation))
        for each in actions:
            # A quaternion has no unit that says how it holds, and a gripper stays where it is.
            stays = keys.type == POSE or command.is_action
            hold = 'last' if stays else keys.hold
            if stays and keys.hold == 'zero':
                self.problems.append(
                    f'{path}.hold is zero, but a {keys.type} is a position: remove hold'
                )
                break
            self.holds[places[each]] = hold
        self.commands.append(command)

    def _rate(self, rate_hz: float, path: str) -> tuple[int, int]:
        """Return with every how many control steps it is sent, and how often in one."""
        if not rate_hz:
            return 1, 1
        every = max(round(self.rate_hz / rate_hz), 1)
        samples = max(round(rate_hz / self.rate_hz), 1)
        if abs(every * rate_hz - samples * self.rate_hz) > 0.01 * max(rate_hz, self.rate_hz):
            self.problems.append(
                f'{path}.rate_hz is {rate_hz:g}, expected a whole fraction or a multiple of '
                f'control_rate_hz {self.rate_hz:g}'
            )
        return every, samples

    def _check(self, command: Command, actions: tuple[str, ...], path: str, stated: bool) -> None:
        """Refuse names that do not fit the actions."""
        for key, names in (('joints', command.joints), ('fields', command.fields)):
            wanted = command.type in (JOINT_TYPES if key == 'joints' else FIELDS)
            wanted |= key == 'fields' and command.type not in COMMAND_TYPES
            if wanted and (len(names) != len(actions) or len(set(names)) != len(names)):
                self.problems.append(
                    f'{path}.{key} is {list(names)}, expected {len(actions)} different names, one '
                    f'for each of {", ".join(actions)}'
                )
        if command.type in SINGLE_TYPES and len(actions) != 1:
            self.problems.append(
                f'{path}.type is {command.type!r}, which carries one number, and it has the '
                f'{len(actions)} actions {", ".join(actions)}'
            )
        if command.type == POSE:
            self._check_pose(command, path)
        self._check_motion(command, actions, path, stated)

    def _check_motion(
        self, command: Command, actions: tuple[str, ...], path: str, stated: bool
    ) -> None:
        """Refuse what cannot be sent between two control steps."""
        given = command.max_acceleration, command.max_jerk
        limited = command.interpolation == 'limited'
        if command.samples == 1:
            if stated:
                self.problems.append(
                    f'{path} says how it moves between two control steps, but has no rate_hz above '
                    f'the control rate {self.rate_hz:g}: set it, or remove interpolation, '
                    'max_acceleration and max_jerk'
                )
            return
        if command.horizon_steps:
            self.problems.append(
                f'{path}.horizon_steps is {command.horizon_steps}, but rate_hz is above the '
                f'control rate {self.rate_hz:g}: its controller goes from point to point by '
                'itself; remove one of them'
            )
        if command.type in STEPPED_TYPES or any(f[:3] == 'ori' for f in command.fields):
            self.problems.append(
                f'{path}.rate_hz is above the control rate {self.rate_hz:g}, but nothing is '
                f'between two commands of {command.type}'
                + (': command the orientation by rotation_vector' if command.fields else '')
            )
        if limited != all(len(each) == len(actions) for each in given) or (
            any(given) and not limited
        ):
            self.problems.append(
                f'{path}.interpolation is {command.interpolation!r}, expected with limited, and '
                f'with it alone, max_acceleration and max_jerk, {len(actions)} values each'
            )

    def _check_pose(self, command: Command, path: str) -> None:
        """Refuse an orientation that is none, or that is said twice."""
        turned = {each.split('.')[0] for each in command.fields} - {'position'}
        quaternion = [each for each in command.fields if each.startswith('orientation')]
        if turned and command.orientation != (0.0, 0.0, 0.0, 1.0):
            self.problems.append(
                f'{path}.orientation is given, but actions command {", ".join(sorted(turned))}: '
                'remove it'
            )
        if len(turned) > 1 or len(quaternion) not in (0, 4):
            self.problems.append(
                f'{path}.fields is {list(command.fields)}, expected all four of orientation, or '
                'some of rotation_vector, or none of them'
            )
        size = np.linalg.norm(command.orientation)
        if len(command.orientation) != 4 or not abs(size - 1.0) < 1e-3:
            self.problems.append(
                f'{path}.orientation is {list(command.orientation)}, expected a quaternion x, y, '
                'z, w of length 1'
            )

    def _check_shares(self) -> None:
        """Refuse actions that no command carries, or two do."""
        carried = Counter(
            self.names[index]
            for command in self.commands
            for index in command.indices or range(len(self.names))
        )
        for name in self.names:
            if carried[name] != 1 and self.names.count(name) == 1:
                by = [c.name for c in self.commands if name in c.part_of(np.array(self.names))]
                said = f'in several: {", ".join(by)}' if by else 'in none'
                self.problems.append(
                    f'action {name!r} is {said}; expected each action in exactly one of the '
                    'commands below robot.command, by its key actions'
                )
        topics = Counter(command.topic.lstrip('/') for command in self.commands)
        for topic, count in topics.items():
            if count > 1:
                self.problems.append(f'robot.command: {count} commands have the topic {topic!r}')
        for command in self.commands:
            if len(set(command.indices)) != len(command.indices):
                self.problems.append(f'robot.command.{command.name}.actions names one twice')

    def check_kind(self, action: AnyActionKeys) -> None:
        """Refuse commands that cannot carry actions of a kind."""
        discrete = action.kind == DISCRETE
        for command in self.commands:
            if discrete and command.samples > 1:
                self.problems.append(
                    'robot.command.rate_hz is above the control rate, but there is nothing between '
                    'two discrete actions'
                )
            if discrete and (command.type not in DISCRETE_TYPES or command.indices):
                self.problems.append(
                    f'robot.command.type is {command.type!r}, expected one command of '
                    f'{", ".join(DISCRETE_TYPES)} for discrete actions'
                )
            elif not discrete and command.type in INDEX_TYPES:
                self.problems.append(
                    f'robot.command.type is {command.type!r}, which carries the index of a '
                    'discrete action: set robot.action.kind to discrete, or choose another type'
                )
        if discrete and (hold := ''.join(set(self.holds))):
            self.problems.append(
                f'robot.command.hold is {hold!r}: discrete actions hold by robot.action.hold_action'
            )

    @property
    def orientations(self) -> tuple[tuple[int, ...], ...]:
        """The actions of each orientation; see `ActionSpec.orientations`."""
        found = []
        for command in self.commands:
            if command.type != POSE:
                continue
            indices = command.indices or range(len(self.names))
            places = dict(zip(command.fields, indices, strict=False))
            for root, axes in (('rotation_vector', 'xyz'), ('orientation', 'xyzw')):
                own = tuple(places.get(f'{root}.{axis}', -1) for axis in axes)
                found += [own] if max(own) >= 0 else []
        return tuple(found)

    @property
    def grippers(self) -> tuple[int, ...]:
        """The actions of grippers that get goals; see `ActionSpec.grippers`."""
        size = range(len(self.names))
        return tuple(i for each in self.commands if each.is_action for i in each.indices or size)

    def units(self, given: tuple[str, ...]) -> tuple[str, ...]:
        """Return the units of the actions; refuse those that contradict a command.

        Args:
            given: `robot.action.units`, empty if it is left out.
        """
        implied = [''] * len(self.names)
        for command in self.commands:
            indices = command.indices or range(len(self.names))
            own = [given[index] for index in indices] if len(given) == len(self.names) else []
            for index, unit in zip(indices, command.units, strict=False):
                implied[index] = unit
            if (command.every > 1 or command.samples > 1) and set(own) & set(INCREMENTS):
                self.problems.append(
                    f'robot.command: {command.name!r} has a rate_hz of its own, but the actions '
                    'are increments, of which each counts: remove rate_hz'
                )
            if command.units and own and tuple(own) != command.units:
                self.problems.append(
                    f'robot.action.units is {own} for {command.name!r}, a {command.type} has '
                    f'{list(command.units)}'
                )
            if command.type in JOINT_TYPES and own and not set(own) <= set(POSITIONS):
                self.problems.append(
                    f'robot.action.units is {own}, but {command.type} commands positions: expected '
                    f'{" or ".join(POSITIONS)}'
                )
        if given or not any(implied):
            return given
        missing = [name for name, unit in zip(self.names, implied, strict=True) if not unit]
        if missing:
            self.problems.append(
                f'robot.action.units is missing: the commands do not say those of '
                f'{", ".join(missing)}'
            )
        return tuple(implied)
