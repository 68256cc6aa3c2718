# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One robot, described once: observation channels, action limits, command topic and rate.

The same YAML is loaded as ROS parameters by the nodes and read directly by the tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import find_file
from residual_rl_ros.robot.action_spec import (
    DISCRETE,
    KINDS,
    POSITIONS,
    ActionSpec,
    WorkspaceSpec,
    check_names,
)
from residual_rl_ros.robot.topics import (
    CHANNEL_TYPES,
    COMMAND_TYPES,
    COMPRESSED_IMAGE,
    DISCRETE_TYPES,
    IMAGE,
    INDEX_TYPES,
    JOINT_STATE,
    TRAJECTORY,
    TWIST,
    Channel,
    Command,
    StopInput,
)
from residual_rl_ros.schema import from_mapping, parameter, read_yaml

FOLLOWING_S, FOLLOWING_PERIODS = 0.25, 5
"""A command may be so far ahead of its measurement, at the largest velocity: servos lag."""
START_S, START_PERIODS = 1.0, 20
"""An episode's first command may be so far away, at the largest velocity."""
INFINITY = float('inf')

Keys = TypeVar('Keys')


@dataclass(frozen=True)
class RobotConfig:
    """A robot, as the nodes need it."""

    name: str
    control_rate_hz: float
    """Control rate [Hz]."""
    command: Command
    action: ActionSpec
    channels: tuple[Channel, ...]
    stop_inputs: tuple[StopInput, ...] = ()

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Observation names in order (n)."""
        return tuple(name for channel in self.channels for name in channel.observation_names)

    @classmethod
    def from_mapping(cls, mapping: Any, source: str = 'robot description') -> RobotConfig:
        """Build the description from nested parameters.

        Args:
            mapping: what stands below `robot:`.
            source: file or node, for the errors.

        Raises:
            ConfigError: names every key that is missing, unknown or wrong.
        """
        return _Description(mapping, source).robot()


def load_robot(name_or_path: str) -> tuple[RobotConfig, Path]:
    """Read a robot YAML: a path, or the name of a shipped one.

    Raises:
        ConfigError: no such file, or its content is wrong.
        ResourceError: no shipped robot has the name.
    """
    path = find_file('robot', ('config', 'robots'), name_or_path, '.yaml')
    if not path.is_file():
        raise ConfigError(f'robot file {str(path)!r} does not exist')
    mapping = read_yaml(path, 'robot file')
    try:
        parameters = mapping['/**']['ros__parameters']['robot']
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f'{path} is no robot description: it lacks /**: ros__parameters: robot:'
        ) from error
    return RobotConfig.from_mapping(parameters, str(path)), path


# The keys of the YAML; the classes above are what they make.


@dataclass(frozen=True, kw_only=True)
class _RobotKeys:
    name: str = parameter(MISSING, 'name of the robot', filled=True)
    control_rate_hz: float = parameter(MISSING, 'control rate [Hz]', 0.01, 10_000.0)


@dataclass(frozen=True, kw_only=True)
class _CommandKeys:
    topic: str = parameter(MISSING, 'topic that moves the robot', filled=True)
    type: str = parameter(MISSING, 'ROS message type', choices=COMMAND_TYPES)
    hold: str = parameter(
        '',
        'how it holds; default: by the units, positions repeat and everything else goes to zero',
        choices=('', 'last', 'zero'),
    )


@dataclass(frozen=True, kw_only=True)
class _JointCommandKeys(_CommandKeys):
    joints: tuple[str, ...] = parameter(MISSING, 'joint of each action', filled=True)


@dataclass(frozen=True, kw_only=True)
class _TwistKeys(_CommandKeys):
    fields: tuple[str, ...] = parameter(
        MISSING,
        'field of each action',
        choices=[f'{part}.{axis}' for part in ('linear', 'angular') for axis in 'xyz'],
    )
    frame_id: str = parameter(MISSING, 'frame of the twist', filled=True)


@dataclass(frozen=True, kw_only=True)
class _AnyActionKeys:
    names: tuple[str, ...] = parameter(MISSING, 'action names', filled=True)
    kind: str = parameter(KINDS[0], 'kind of the actions', choices=KINDS)


@dataclass(frozen=True, kw_only=True)
class _DiscreteActionKeys(_AnyActionKeys):
    hold_action: str = parameter('', 'action with which it holds; default: the last one again')


@dataclass(frozen=True, kw_only=True)
class _ActionKeys(_AnyActionKeys):
    lower: tuple[float, ...] = parameter(MISSING, 'smallest commands')
    upper: tuple[float, ...] = parameter(MISSING, 'largest commands')
    max_velocity: tuple[float, ...] = parameter(MISSING, 'largest changes of a command [1/s]')
    measured_by: tuple[str, ...] = parameter((), 'observation name that measures each action')
    units: tuple[str, ...] = parameter((), 'unit of each action')
    following_limit: tuple[float, ...] = parameter(
        (),
        'largest distance between command and measurement while the robot moves; default: '
        f'max_velocity x the larger of {FOLLOWING_S:g} s and {FOLLOWING_PERIODS} control periods',
    )
    start_limit: tuple[float, ...] = parameter(
        (),
        "largest distance of an episode's first command from the measurement; default: "
        f'max_velocity x the larger of {START_S:g} s and {START_PERIODS} control periods',
    )


@dataclass(frozen=True, kw_only=True)
class _WorkspaceKeys:
    model: str = parameter(MISSING, 'kinematic model: a path, or a shipped one', filled=True)
    point: str = parameter(MISSING, 'site or body (URDF: link) of the model', filled=True)
    joints: tuple[str, ...] = parameter(MISSING, 'joint of each action', filled=True)
    lower: tuple[float, ...] = parameter(MISSING, 'smallest coordinates x, y, z [m]')
    upper: tuple[float, ...] = parameter(MISSING, 'largest coordinates x, y, z [m]')


@dataclass(frozen=True, kw_only=True)
class _ChannelKeys:
    topic: str = parameter(MISSING, 'topic of the channel', filled=True)
    type: str = parameter(MISSING, 'ROS message type', choices=CHANNEL_TYPES)
    fields: tuple[str, ...] = parameter(MISSING, 'values that are read', filled=True)
    max_age_s: float = parameter(MISSING, 'older data is stale [s]', above=0.0)
    stamped_by: str = parameter('header', 'which time counts', choices=('header', 'receipt'))
    lower: tuple[float, ...] = parameter((), 'smallest believable values: one, or one per field')
    upper: tuple[float, ...] = parameter((), 'largest believable values: one, or one per field')


@dataclass(frozen=True, kw_only=True)
class _StopInputKeys:
    topic: str = parameter(MISSING, 'topic that says when to hold', filled=True)
    type: str = parameter(MISSING, 'ROS message type: package/msg/Name', filled=True)
    field: str = parameter('data', 'dotted field of the message', filled=True)
    bad: tuple[str, ...] = parameter((), 'values at which the robot holds')
    limit: float = parameter(INFINITY, 'hold while the absolute value is larger', above=0.0)
    max_age_s: float = parameter(
        0.0, 'hold without a message of this age [s]; 0: silence is fine', minimum=0.0
    )


@dataclass(frozen=True, kw_only=True)
class _JointChannelKeys(_ChannelKeys):
    fields: tuple[str, ...] = parameter(
        MISSING, 'values that are read', choices=('position', 'velocity', 'effort'), filled=True
    )
    joints: tuple[str, ...] = parameter(MISSING, 'joints, matched by name', filled=True)


@dataclass(frozen=True, kw_only=True)
class _ImageChannelKeys(_ChannelKeys):
    encoder: str = parameter(MISSING, 'ONNX encoder: a path, or a shipped one', filled=True)
    encoder_sha256: str = parameter('', "digest that the encoder's file must have")


COMMAND_KEYS = {TRAJECTORY: _JointCommandKeys, JOINT_STATE: _JointCommandKeys, TWIST: _TwistKeys}
CHANNEL_KEYS = {
    JOINT_STATE: _JointChannelKeys,
    IMAGE: _ImageChannelKeys,
    COMPRESSED_IMAGE: _ImageChannelKeys,
}


class _Description:
    """A description that is being read; collects what is wrong with it."""

    def __init__(self, mapping: Any, source: str) -> None:
        self._source = source
        self._problems: list[str] = []
        self._mapping = self._map(mapping, 'robot')
        self._check()

    def robot(self) -> RobotConfig:
        """Return the robot.

        Raises:
            ConfigError: names everything that is wrong.
        """
        top = dict(self._mapping)
        stops = self._stop_inputs(top.pop('stop_inputs', None))
        parts = {
            key: self._map(top.pop(key, None), f'robot.{key}')
            for key in ('command', 'action', 'observation')
        }
        keys = self._read(_RobotKeys, top, 'robot')
        discrete = parts['action'].get('kind') == DISCRETE
        workspace_map = None if discrete else parts['action'].pop('workspace', None)
        action: _DiscreteActionKeys | _ActionKeys | None
        if discrete:
            action = self._read(_DiscreteActionKeys, parts['action'], 'robot.action')
        else:
            action = self._read(_ActionKeys, parts['action'], 'robot.action')
        workspace = None
        if workspace_map is not None:
            workspace = self._read(_WorkspaceKeys, workspace_map, 'robot.action.workspace')
        kinds = COMMAND_KEYS.get(str(parts['command'].get('type')), _CommandKeys)
        command = self._read(kinds, parts['command'], 'robot.command')
        channels = self._channels(parts['observation'])
        self._check()
        assert keys is not None
        assert action is not None
        assert command is not None
        made = Command(
            command.topic,
            command.type,
            getattr(command, 'joints', ()),
            getattr(command, 'fields', ()),
            getattr(command, 'frame_id', ''),
        )
        self._check_command(made, action.names)
        self._check_kind(made, command.hold, discrete)
        if isinstance(action, _ActionKeys):
            self._check_units(made, action)
        self._check()
        try:
            if isinstance(action, _ActionKeys):
                period_s = 1.0 / keys.control_rate_hz
                spec = _continuous(action, made, command.hold, _workspace(workspace), period_s)
            else:
                spec = ActionSpec.discrete(action.names, action.hold_action)
            robot = RobotConfig(keys.name, keys.control_rate_hz, made, spec, channels, stops)
            check_names('observation', robot.observation_names)
        except ConfigError as error:
            raise ConfigError(self._source, [f'robot: {error}']) from error
        for measured in spec.measured_by:
            if measured not in robot.observation_names:
                self._problems.append(
                    f'robot.action.measured_by names {measured!r}, which no channel provides'
                )
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
        try:
            return from_mapping(kind, values, path)
        except ConfigError as error:
            self._problems += [f'{path}.{problem}' for problem in error.problems]
            return None

    def _channels(self, observation: dict[str, Any]) -> tuple[Channel, ...]:
        names = observation.pop('channels', None)
        path = 'robot.observation'
        if isinstance(names, str) or not hasattr(names, '__iter__') or not list(names):
            self._problems.append(
                f'{path}.channels is {names!r}, expected a list of the names of channels'
            )
            return ()
        channels: list[Channel] = []
        for name in map(str, names):
            if name not in observation:
                self._problems.append(
                    f'{path}.channels names {name!r}, expected each name once and a map of its own'
                )
                continue
            values = self._map(observation.pop(name), f'{path}.{name}')
            kind = CHANNEL_KEYS.get(str(values.get('type')), _ChannelKeys)
            keys = self._read(kind, values, f'{path}.{name}')
            if keys is not None:
                optional = {
                    key: getattr(keys, key)
                    for key in ('encoder', 'encoder_sha256')
                    if hasattr(keys, key)
                }
                self._check_range(keys, f'{path}.{name}')
                channels.append(
                    Channel(
                        name,
                        keys.topic,
                        keys.type,
                        keys.fields,
                        getattr(keys, 'joints', ()),
                        keys.max_age_s,
                        stamped_by=keys.stamped_by,
                        lower=keys.lower,
                        upper=keys.upper,
                        **optional,
                    )
                )
        for name in observation:
            self._problems.append(
                f'{path}.{name} is not in {path}.channels; list it there, or remove it'
            )
        return tuple(channels)

    def _check_range(self, keys: _ChannelKeys, path: str) -> None:
        """Refuse ranges of the wrong size or with nothing in them."""
        sound = True
        for key in ('lower', 'upper'):
            values = getattr(keys, key)
            if len(values) not in (0, 1, len(keys.fields)):
                sound = False
                self._problems.append(
                    f'{path}.{key} has {len(values)} values, expected 1 or {len(keys.fields)}'
                )
        pairs = sound and keys.lower and keys.upper
        if pairs and not (np.array(keys.lower) < np.array(keys.upper)).all():
            self._problems.append(
                f'{path}.lower {list(keys.lower)} is not below upper {list(keys.upper)}'
            )

    def _check_command(self, command: Command, actions: tuple[str, ...]) -> None:
        for key, names in (('joints', command.joints), ('fields', command.fields)):
            if names and (len(names) != len(actions) or len(set(names)) != len(names)):
                self._problems.append(
                    f'robot.command.{key} is {list(names)}, expected {len(actions)} different '
                    f'names, one for each of {", ".join(actions)}'
                )

    def _check_kind(self, command: Command, hold: str, discrete: bool) -> None:
        """Refuse a command that cannot carry the actions."""
        if discrete and command.type not in DISCRETE_TYPES:
            self._problems.append(
                f'robot.command.type is {command.type!r}, expected one of '
                f'{", ".join(DISCRETE_TYPES)} for discrete actions'
            )
        elif not discrete and command.type in INDEX_TYPES:
            self._problems.append(
                f'robot.command.type is {command.type!r}, which carries the index of a discrete '
                'action: set robot.action.kind to discrete, or choose another type'
            )
        if discrete and hold:
            self._problems.append(
                f'robot.command.hold is {hold!r}: discrete actions hold by robot.action.hold_action'
            )

    def _check_units(self, command: Command, action: _ActionKeys) -> None:
        """Refuse units that contradict the type of the command."""
        if command.fields and action.units and action.units != command.units:
            self._problems.append(
                f'robot.action.units is {list(action.units)}, a twist has {list(command.units)}'
            )
        if command.joints and not set(action.units) <= set(POSITIONS):
            self._problems.append(
                f'robot.action.units is {list(action.units)}, but {command.type} commands '
                f'positions: expected {" or ".join(POSITIONS)}'
            )

    def _stop_inputs(self, given: Any) -> tuple[StopInput, ...]:
        if given is None:
            return ()
        made = []
        for name, values in self._map(given, 'robot.stop_inputs').items():
            path = f'robot.stop_inputs.{name}'
            values = self._map(values, path)
            if 'bad' in values and isinstance(values['bad'], (list, tuple)):
                values['bad'] = [str(value) for value in values['bad']]
            keys = self._read(_StopInputKeys, values, path)
            if keys is None:
                continue
            if not (keys.bad or keys.max_age_s or np.isfinite(keys.limit)):
                self._problems.append(f'{path} never stops: set bad, limit or max_age_s')
            made.append(StopInput(str(name), **vars(keys)))
        return tuple(made)

    def _check(self) -> None:
        if self._problems:
            raise ConfigError(self._source, self._problems)


def _continuous(
    action: _ActionKeys,
    command: Command,
    hold: str,
    workspace: WorkspaceSpec | None,
    period_s: float,
) -> ActionSpec:
    """Return continuous actions; their velocities become steps of a control period [s]."""
    velocity = np.array(action.max_velocity)
    units = action.units or command.units
    following = velocity * max(FOLLOWING_S, FOLLOWING_PERIODS * period_s)
    if not set(units) <= set(POSITIONS):
        following *= 2.0  # Of a velocity: a wheel slips, odometry is filtered.
    start = velocity * max(START_S, START_PERIODS * period_s)
    return ActionSpec(
        names=action.names,
        lower=np.array(action.lower),
        upper=np.array(action.upper),
        max_step=velocity * period_s,
        measured_by=action.measured_by,
        workspace=workspace,
        units=units,
        hold=hold,
        following_limit=np.array(action.following_limit or following),
        start_limit=np.array(action.start_limit or start),
    )


def _workspace(keys: _WorkspaceKeys | None) -> WorkspaceSpec | None:
    if keys is None:
        return None
    return WorkspaceSpec(
        keys.model, keys.point, keys.joints, np.array(keys.lower), np.array(keys.upper)
    )
