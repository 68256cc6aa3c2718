# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One robot, described once: observation channels, action limits, command topic and rate.

The same YAML is loaded as ROS parameters by the nodes and read directly by the tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import find_file
from residual_rl_ros.robot.action_spec import ActionSpec, WorkspaceSpec, check_names

JOINT_STATE = 'sensor_msgs/msg/JointState'
FLOAT_ARRAY = 'std_msgs/msg/Float64MultiArray'
IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CHANNEL_TYPES = (
    JOINT_STATE,
    FLOAT_ARRAY,
    IMAGE,
    COMPRESSED_IMAGE,
    'geometry_msgs/msg/PoseStamped',
    'geometry_msgs/msg/TwistStamped',
    'geometry_msgs/msg/WrenchStamped',
    'nav_msgs/msg/Odometry',
    'sensor_msgs/msg/Imu',
)


TRAJECTORY = 'trajectory_msgs/msg/JointTrajectory'
TWIST = 'geometry_msgs/msg/TwistStamped'
COMMAND_TYPES = (FLOAT_ARRAY, TRAJECTORY, JOINT_STATE, TWIST)


@dataclass(frozen=True)
class Channel:
    """A topic that fills a part of the observation."""

    name: str
    """Prefix of the observation names, for example `arm`."""
    topic: str
    """Topic name; relative names follow the node's namespace."""
    type: str
    """ROS message type, one of `CHANNEL_TYPES`."""
    fields: tuple[str, ...]
    """JointState: `position`, `velocity`, `effort`. Float64MultiArray: a name per element.
    Images: the encoder's features. Others: dotted fields such as `position.x`."""
    joints: tuple[str, ...]
    """JointState: joint names, matched by name. Others: empty."""
    max_age_s: float
    """Older data is stale and refused [s]."""
    encoder: str = ''
    """Images: ONNX encoder, by path or by the name of a shipped one. Others: empty."""
    stamped_by: str = 'header'
    """What tells the age: the message's `header` or, for a clock that is not ours, its `receipt`.
    """
    encoder_sha256: str = ''
    """Images: digest that the encoder's file must have; empty accepts any."""

    @property
    def is_image(self) -> bool:
        """Whether an encoder turns the messages into values."""
        return self.type in (IMAGE, COMPRESSED_IMAGE)

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Names of the values that this channel contributes, in order."""
        if self.joints:
            return tuple(
                f'{self.name}.{field}.{joint}' for field in self.fields for joint in self.joints
            )
        return tuple(f'{self.name}.{field}' for field in self.fields)


@dataclass(frozen=True)
class Command:
    """The topic that moves the robot."""

    topic: str
    """Topic name; relative names follow the node's namespace."""
    type: str
    """ROS message type, one of `COMMAND_TYPES`."""
    joints: tuple[str, ...] = ()
    """JointTrajectory, JointState: the joint of each action, whose position is commanded."""
    fields: tuple[str, ...] = ()
    """TwistStamped: the field of each action, such as `linear.x`; the others are zero."""
    frame_id: str = ''
    """TwistStamped: frame of the twist."""

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the actions as far as the type tells them."""
        return tuple('m/s' if field.startswith('linear') else 'rad/s' for field in self.fields)


@dataclass(frozen=True)
class RobotConfig:
    """What the nodes must know of a robot."""

    name: str
    control_rate_hz: float
    """Control rate [Hz]."""
    command: Command
    action: ActionSpec
    channels: tuple[Channel, ...]

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Observation names in order (n)."""
        return tuple(name for channel in self.channels for name in channel.observation_names)

    @classmethod
    def from_mapping(cls, mapping: Any) -> RobotConfig:
        """Build the description from nested parameters.

        Raises:
            ConfigError: a key is missing or unknown, or a value is wrong; the message names it.
        """
        robot = _Reader(mapping, 'robot')
        command, action = robot.child('command'), robot.child('action')
        observation = robot.child('observation')
        rate = robot.number('control_rate_hz')
        if not rate > 0.0:
            raise ConfigError(f'robot.control_rate_hz is {rate}, expected > 0')
        channels = tuple(
            _channel(name, observation.child(name)) for name in observation.texts('channels')
        )
        names = action.texts('names')
        topic = _command(command, names)
        twist = topic.type == TWIST
        units = action.texts('units') if 'units' in action else topic.units
        hold = command.text('hold') if 'hold' in command else ('zero' if twist else 'last')
        if twist and units != topic.units:
            raise ConfigError(
                f'robot.action.units is {list(units)}, a twist has {list(topic.units)}'
            )
        if hold == 'zero' and topic.joints:
            raise ConfigError(f'robot.command.hold is zero, but {topic.type} commands positions')
        try:
            spec = ActionSpec(
                names=names,
                lower=np.array(action.numbers('lower')),
                upper=np.array(action.numbers('upper')),
                max_step=np.array(action.numbers('max_velocity')) / rate,
                measured_by=action.texts('measured_by') if 'measured_by' in action else (),
                workspace=_workspace(action.child('workspace')) if 'workspace' in action else None,
                units=units,
                hold=hold,
            )
            config = cls(robot.text('name'), rate, topic, spec, channels)
            check_names('observation', config.observation_names)
            for measured in spec.measured_by:
                if measured not in config.observation_names:
                    raise ConfigError(
                        f'robot.action.measured_by names {measured!r}, which no channel provides'
                    )
        except ConfigError as error:
            raise ConfigError(f'robot: {error}') from error
        for reader in (robot, command, action, observation):
            reader.check_all_read()
        return config


def load_robot(name_or_path: str) -> tuple[RobotConfig, Path]:
    """Read a robot YAML: a path, or the name of a shipped one.

    Raises:
        ConfigError: no such file, or its content is wrong.
        ResourceError: no shipped robot has the name.
    """
    path = find_file('robot', ('config', 'robots'), name_or_path, '.yaml')
    if not path.is_file():
        raise ConfigError(f'robot file {str(path)!r} does not exist')
    try:
        mapping = yaml.safe_load(path.read_text(encoding='utf-8'))
        parameters = mapping['/**']['ros__parameters']['robot']
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f'cannot read robot file {str(path)!r}: {error}') from error
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f'{path} is no robot description: it lacks /**: ros__parameters: robot:'
        ) from error
    return RobotConfig.from_mapping(parameters), path


def _command(reader: _Reader, actions: tuple[str, ...]) -> Command:
    topic, kind = reader.text('topic'), reader.text('type')
    if kind not in COMMAND_TYPES:
        raise ConfigError(f'{reader.path}.type is {kind!r}, expected one of {COMMAND_TYPES}')
    joints = reader.texts('joints') if kind in (TRAJECTORY, JOINT_STATE) else ()
    fields = reader.texts('fields') if kind == TWIST else ()
    frame_id = reader.text('frame_id') if kind == TWIST else ''
    for key, names in (('joints', joints), ('fields', fields)):
        if names and (len(names) != len(actions) or len(set(names)) != len(names)):
            raise ConfigError(
                f'{reader.path}.{key} is {list(names)}, expected {len(actions)} different names, '
                f'one for each of {", ".join(actions)}'
            )
    for field in fields:
        part, _, axis = field.partition('.')
        if part not in ('linear', 'angular') or axis not in ('x', 'y', 'z'):
            raise ConfigError(
                f'{reader.path}.fields holds {field!r}, expected linear or angular, then .x, .y '
                'or .z'
            )
    return Command(topic, kind, joints, fields, frame_id)


def _workspace(reader: _Reader) -> WorkspaceSpec:
    spec = WorkspaceSpec(
        reader.text('model'),
        reader.text('point'),
        reader.texts('joints'),
        np.array(reader.numbers('lower')),
        np.array(reader.numbers('upper')),
    )
    reader.check_all_read()
    return spec


def _channel(name: str, reader: _Reader) -> Channel:
    kind = reader.text('type')
    if kind not in CHANNEL_TYPES:
        raise ConfigError(f'{reader.path}.type is {kind!r}, expected one of {CHANNEL_TYPES}')
    joints = reader.texts('joints') if kind == JOINT_STATE else ()
    channel = Channel(
        name,
        reader.text('topic'),
        kind,
        reader.texts('fields'),
        joints,
        reader.number('max_age_s'),
        reader.text('encoder') if kind in (IMAGE, COMPRESSED_IMAGE) else '',
        reader.text('stamped_by') if 'stamped_by' in reader else 'header',
        reader.text('encoder_sha256') if 'encoder_sha256' in reader else '',
    )
    if not channel.fields or (kind == JOINT_STATE and not joints):
        raise ConfigError(f'{reader.path} lists no fields or joints')
    for field in channel.fields if kind == JOINT_STATE else ():
        if field not in ('position', 'velocity', 'effort'):
            raise ConfigError(
                f'{reader.path}.fields holds {field!r}, expected position, velocity or effort'
            )
    if channel.stamped_by not in ('header', 'receipt'):
        raise ConfigError(
            f'{reader.path}.stamped_by is {channel.stamped_by!r}, expected header or receipt'
        )
    if not channel.max_age_s > 0.0:
        raise ConfigError(f'{reader.path}.max_age_s is {channel.max_age_s}, expected > 0')
    reader.check_all_read()
    return channel


class _Reader:
    """Typed access to a nested mapping, with errors that name the full key."""

    def __init__(self, mapping: Any, path: str) -> None:
        if not isinstance(mapping, Mapping):
            raise ConfigError(f'{path} is {mapping!r}, expected a map')
        self._mapping = mapping
        self._read: set[str] = set()
        self.path = path

    def _get(self, key: str) -> Any:
        if key not in self._mapping:
            raise ConfigError(
                f'{self.path}.{key} is missing; it has {sorted(map(str, self._mapping))}'
            )
        self._read.add(key)
        return self._mapping[key]

    def __contains__(self, key: str) -> bool:
        return key in self._mapping

    def child(self, key: str) -> _Reader:
        return _Reader(self._get(key), f'{self.path}.{key}')

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not value:
            raise ConfigError(f'{self.path}.{key} is {value!r}, expected a non-empty string')
        return value

    def number(self, key: str) -> float:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f'{self.path}.{key} is {value!r}, expected a number')
        return float(value)

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self._list(key, str))

    def numbers(self, key: str) -> tuple[float, ...]:
        return tuple(float(value) for value in self._list(key, (int, float)))

    def _list(self, key: str, kind: Any) -> list[Any]:
        value = self._get(key)
        if isinstance(value, str) or not hasattr(value, '__iter__'):
            raise ConfigError(f'{self.path}.{key} is {value!r}, expected a list')
        items = list(value)
        for item in items:
            if isinstance(item, bool) or not isinstance(item, kind):
                raise ConfigError(f'{self.path}.{key} holds {item!r}, expected {kind}')
        return items

    def check_all_read(self) -> None:
        unknown = sorted(map(str, set(self._mapping) - self._read))
        if unknown:
            raise ConfigError(f'{self.path} has unknown keys {unknown}')
