# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One robot, described once: observation channels, action limits, command topic and rate.

The same YAML is loaded as ROS parameters by the nodes and read directly by the tools.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import find_file
from residual_rl_ros.robot.action_section import LIMITS, ActionSection
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.command import Command
from residual_rl_ros.robot.command_section import CommandSection
from residual_rl_ros.robot.consistency import TAKEOVER, contradictions
from residual_rl_ros.robot.inference import ON_CPU, InferenceConfig
from residual_rl_ros.robot.keys import ActionKeys, RobotKeys, StopInputKeys
from residual_rl_ros.robot.names import check_names
from residual_rl_ros.robot.observation_section import ObservationSection
from residual_rl_ros.robot.preparation_spec import HomeKeys, HomeSpec, ResetSpec, home_of
from residual_rl_ros.robot.stop_inputs import StopInput
from residual_rl_ros.robot.topics import FLOAT_ARRAY, NO_ENCODER, Channel
from residual_rl_ros.robot.urdf import TOPIC, Urdf
from residual_rl_ros.schema import read_section, read_yaml

Keys = TypeVar('Keys')


@dataclass(frozen=True)
class RobotConfig:
    """A robot, as the nodes need it."""

    name: str
    control_rate_hz: float
    """Control rate [Hz]."""
    commands: tuple[Command, ...]
    """What moves it; together they carry the action vector."""
    action: ActionSpec
    channels: tuple[Channel, ...]
    stop_inputs: tuple[StopInput, ...] = ()
    base_policy: InferenceConfig = ON_CPU
    """How its computer runs the base policy."""
    home: HomeSpec | None = None
    """Where it begins an episode."""
    reset: ResetSpec | None = None
    """How its scene is reset between two episodes."""
    urdf: Urdf | None = None
    """Its URDF, if it says one."""
    from_urdf: tuple[str, ...] = ()
    """Limits of the actions that come from there."""

    @property
    def takeover(self) -> Command:
        """How an operator commands all actions: as the robot is, where it has one topic."""
        first = self.commands[0]
        if len(self.commands) == 1 and not (first.is_action or first.indices):
            return replace(first, topic=TAKEOVER, name='takeover')
        return Command(TAKEOVER, FLOAT_ARRAY, name='takeover')

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Observation names in order (n)."""
        return tuple(name for channel in self.channels for name in channel.observation_names)

    def without_encoders(self) -> RobotConfig:
        """Return the robot whose cameras show images and tell no values."""
        channels = (
            replace(each, encoder=NO_ENCODER, fields=()) if each.is_image else each
            for each in self.channels
        )
        return replace(self, channels=tuple(channels))

    @classmethod
    def from_mapping(
        cls, mapping: Any, source: str = 'robot description', heard: str = ''
    ) -> RobotConfig:
        """Build the description from nested parameters.

        Args:
            mapping: what stands below `robot:`.
            source: file or node, for the errors.
            heard: URDF that was published, for a robot whose description names the topic.

        Raises:
            ConfigError: names every key that is missing, unknown or wrong.
        """
        return _Description(mapping, source).robot(heard)


def with_own_limits(mapping: dict[str, Any], heard: str = '') -> dict[str, Any]:
    """Return a description that says its limits itself, for whoever does not have its URDF.

    Args:
        mapping: what stands below `robot:`.
        heard: URDF that was published, for a description that names the topic.

    Raises:
        ConfigError: it is wrong.
    """
    if 'robot_description' not in mapping:
        return mapping
    robot = RobotConfig.from_mapping(mapping, heard=heard)
    limits = {
        'lower': robot.action.lower,
        'upper': robot.action.upper,
        'max_velocity': robot.action.max_step * robot.control_rate_hz,
    }
    filled = {key: limits[key].tolist() for key in robot.from_urdf}
    return {
        **mapping,
        'action': {**mapping['action'], **filled},
        'robot_description': {**mapping['robot_description'], 'urdf': TOPIC},
    }


def awaits_limits(described: Any) -> bool:
    """Return whether limits are missing from a description that names the topic of its URDF.

    Args:
        described: what stands below `robot:`, right or wrong.
    """
    sections = described if isinstance(described, Mapping) else {}
    urdf, action = (sections.get(key) for key in ('robot_description', 'action'))
    if not isinstance(urdf, Mapping) or not isinstance(action, Mapping):
        return False
    return urdf.get('urdf') == TOPIC and not all(action.get(key) for key in LIMITS)


def load_robot(name_or_path: str) -> tuple[RobotConfig, Path]:
    """Read a robot YAML: a path, or the name of a shipped one.

    Raises:
        ConfigError: no such file, or its content is wrong.
        ResourceError: no shipped robot has the name.
    """
    path = find_robot(name_or_path)
    return RobotConfig.from_mapping(read_description(path), str(path)), path


def find_robot(name_or_path: str) -> Path:
    """Return the file of a robot: a path, or that of a shipped one.

    Raises:
        ConfigError: no such file.
        ResourceError: no shipped robot has the name.
    """
    path = find_file('robot', ('config', 'robots'), name_or_path, '.yaml')
    if not path.is_file():
        if os.path.lexists(path):
            raise ConfigError(f'robot file {str(path)!r} is no regular file')
        raise ConfigError(
            f'robot file {str(path)!r} does not exist; a path in a YAML or an option counts from '
            f'the folder that the command is started in, {str(Path.cwd())!r}'
        )
    return path


def read_description(path: Path) -> Any:
    """Return what stands below `robot:` of a robot YAML.

    Raises:
        ConfigError: it cannot be read, or has no such part.
    """
    return description_of(read_yaml(path, 'robot file'), str(path))


def description_of(file: Any, source: str) -> Any:
    """Return what stands below `robot:` of the content of a robot YAML.

    Args:
        file: the content.
        source: where it is from, for the error.

    Raises:
        ConfigError: it has no such part.
    """
    try:
        return file['/**']['ros__parameters']['robot']
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f'{source} is no robot description: it lacks /**: ros__parameters: robot:'
        ) from error


def robot_yaml(description: Mapping[str, Any]) -> str:
    """Return a robot YAML with a description below `robot:`."""
    return yaml.safe_dump({'/**': {'ros__parameters': {'robot': description}}}, sort_keys=False)


class _Description:
    """A description that is being read; collects what is wrong with it."""

    def __init__(self, mapping: Any, source: str) -> None:
        self._source = source
        self._problems: list[str] = []
        self._mapping = self._map(mapping, 'robot')
        self._check()

    def robot(self, heard: str) -> RobotConfig:
        """Return the robot.

        Args:
            heard: URDF of the topic, empty if nobody listens.

        Raises:
            ConfigError: names everything that is wrong.
        """
        top = dict(self._mapping)
        stops = self._stop_inputs(top.pop('stop_inputs', None))
        inference = self._read(InferenceConfig, top.pop('base_policy', {}), 'robot.base_policy')
        home = self._optional(HomeKeys, top.pop('home', None), 'robot.home')
        reset = self._optional(ResetSpec, top.pop('reset', None), 'robot.reset')
        parts = {
            key: self._map(top.pop(key, None), f'robot.{key}')
            for key in ('command', 'action', 'observation')
        }
        action = ActionSection(self._problems)
        action.read(parts['action'], top.pop('robot_description', None), bool(heard))
        keys = self._read(RobotKeys, top, 'robot')
        rate_hz = 1.0 if keys is None else keys.control_rate_hz
        section = CommandSection(action.names, rate_hz, self._problems)
        section.read(parts['command'])
        observation = ObservationSection(self._problems)
        observation.read(parts['observation'])
        channels = tuple(observation.channels)
        self._check()
        assert keys is not None
        assert action.keys is not None
        assert inference is not None
        section.check_kind(action.keys)
        units = section.units(action.keys.units) if isinstance(action.keys, ActionKeys) else ()
        self._check()
        try:
            spec = action.spec(section, units, channels, 1.0 / rate_hz, heard)
            robot = RobotConfig(
                keys.name,
                keys.control_rate_hz,
                tuple(section.commands),
                spec,
                channels,
                stops,
                inference,
                None if home is None else home_of(home, spec, 1.0 / rate_hz, channels),
                reset,
                action.urdf,
                action.filled,
            )
            check_names('observation', robot.observation_names)
        except ConfigError as error:
            raise ConfigError(self._source, [f'robot: {error}']) from error
        self._problems += contradictions(spec, robot.commands, channels, stops, action.urdf)
        self._check()
        return robot

    def _map(self, value: Any, path: str) -> dict[str, Any]:
        if isinstance(value, Mapping):
            return dict(value)
        missing = 'missing' if value is None else repr(value)
        self._problems.append(f'{path} is {missing}, expected a map')
        return {}

    def _read(self, kind: type[Keys], values: Any, path: str) -> Keys | None:
        """Return the keys of a section, None if they are wrong."""
        return read_section(kind, values, path, self._problems)

    def _optional(self, kind: type[Keys], values: Any, path: str) -> Keys | None:
        return None if values is None else self._read(kind, values, path)

    def _stop_inputs(self, given: Any) -> tuple[StopInput, ...]:
        if given is None:
            return ()
        made = []
        for name, values in self._map(given, 'robot.stop_inputs').items():
            path = f'robot.stop_inputs.{name}'
            values = self._map(values, path)
            if 'bad' in values and isinstance(values['bad'], (list, tuple)):
                values['bad'] = [str(value) for value in values['bad']]
            keys = self._read(StopInputKeys, values, path)
            if keys is None:
                continue
            if not (keys.bad or keys.max_age_s or np.isfinite(keys.limit)):
                self._problems.append(f'{path} never stops: set bad, limit or max_age_s')
            made.append(StopInput(str(name), **vars(keys)))
        return tuple(made)

    def _check(self) -> None:
        if self._problems:
            raise ConfigError(self._source, self._problems)
