# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What controls of a gamepad, a 6-D mouse or a keyboard mean: a file of `config/takeover/`.

A control has a name and a value: `axes.0` and `buttons.4` of a Joy message, `linear.x` of a Twist,
a key of a keyboard. Whoever reads them hands their values over; this module knows no message.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import find_file
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.schema import did_you_mean, from_mapping, parameter, read_yaml

INPUTS = JOY, TWIST, KEYBOARD = ('joy', 'twist', 'keyboard')
"""What an operator has in his hands."""
TOPICS = {JOY: 'joy', TWIST: 'spacenav/twist', KEYBOARD: ''}
"""Topic of each input, if none is given."""
MESSAGES = {JOY: 'sensor_msgs/msg/Joy', TWIST: 'geometry_msgs/msg/Twist'}
"""Type of the topic of each input that has one."""
TWIST_CONTROLS = tuple(f'{part}.{axis}' for part in ('linear', 'angular') for axis in 'xyz')
NAMED_KEYS = {'\x1b[A': 'up', '\x1b[B': 'down', '\x1b[C': 'right', '\x1b[D': 'left', ' ': 'space'}
"""Keys by what a terminal sends, if that is no letter."""
BUTTON_SERVICES = {
    'hold': 'hold',
    'release': 'hold',
    'success': 'mark_success',
    'failure': 'mark_failure',
    'end': 'end_episode',
    'start': 'start_episode',
    'go_home': 'go_home',
}
"""Service of the policy node behind each button."""
MOVED = 'moved'
"""Deadman that is held while anything is moved."""
PRESSED = 0.5
"""A button is pressed above this value."""


@dataclass(frozen=True, kw_only=True)
class AxisKeys:
    """Of an entry of `axes`: what moves one action."""

    action: str = parameter(MISSING, 'action that it moves', filled=True)
    control: str = parameter('', 'axis that moves it both ways')
    minus: str = parameter('', 'instead: button or key that moves it down')
    plus: str = parameter('', 'and the one that moves it up')
    scale: float = parameter(
        MISSING,
        'at full deflection: of a position its velocity [1/s], of anything else the command; a '
        'negative one turns the direction',
    )
    deadband: float = parameter(0.1, 'smaller deflections are none', minimum=0.0, maximum=0.9)

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        if bool(self.control) is bool(self.minus or self.plus) or bool(self.minus) is not bool(
            self.plus
        ):
            yield f'control is missing for {self.action!r}: give control, or minus and plus'
        if self.scale == 0.0:
            yield f'scale is 0: {self.action!r} is not moved by it; remove the entry'

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of its controls."""
        return tuple(filter(None, (self.control, self.minus, self.plus)))

    def deflection(self, values: Mapping[str, float]) -> float:
        """Return how far it is moved, in [-1, 1].

        Args:
            values: of all controls.
        """
        if self.control:
            value = values[self.control]
        else:
            value = float(values[self.plus] > PRESSED) - float(values[self.minus] > PRESSED)
        beyond = max(min(abs(value), 1.0) - self.deadband, 0.0) / (1.0 - self.deadband)
        return float(np.copysign(beyond, value))


@dataclass(frozen=True, kw_only=True)
class ButtonKeys:
    """Of `buttons`: the controls that call a service of the policy node."""

    hold: str = parameter('', 'hold')
    release: str = parameter('', 'release the hold')
    success: str = parameter('', 'end the episode as a success')
    failure: str = parameter('', 'end the episode as a failure')
    end: str = parameter('', 'end the episode without a verdict')
    start: str = parameter('', 'begin an episode')
    go_home: str = parameter('', 'go home')

    def by_name(self) -> dict[str, str]:
        """Return the control of each button that there is."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: control for name, control in named.items() if control}


@dataclass(frozen=True, kw_only=True)
class TakeoverKeys:
    """Of a file in `config/takeover/`."""

    input: str = parameter(MISSING, 'what the operator has in his hands', choices=INPUTS)
    topic: str = parameter('', 'topic of the input; default: joy, spacenav/twist', ros_name=True)
    max_age_s: float = parameter(
        0.25,
        'older input is silence, and the robot stands still [s]; of a keyboard: how long a key '
        'counts as pressed',
        maximum=10.0,
        above=0.0,
    )
    deadman: str = parameter(
        MISSING,
        'control that takes over while it is held; `moved`: while anything is moved',
        filled=True,
    )
    deadman_threshold: float = parameter(
        0.5, 'it is held above this value or, if that is negative, below it', -1.0, 1.0
    )
    release_after_s: float = parameter(
        0.5,
        'with deadman `moved`: the robot is handed back after this time at rest [s]',
        minimum=0.0,
        maximum=60.0,
    )
    debounce_s: float = parameter(
        0.2, 'a button that was pressed within this time is pressed still [s]', 0.0, 10.0
    )
    axes: tuple[AxisKeys, ...] = parameter(MISSING, 'what moves the actions', filled=True)
    buttons: ButtonKeys = parameter(ButtonKeys(), 'see below')

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of all controls, in the order of their use."""
        deadman = () if self.deadman == MOVED else (self.deadman,)
        moving = (control for axis in self.axes for control in axis.controls)
        return (*deadman, *moving, *self.buttons.by_name().values())

    def conflicts(self) -> Iterator[str]:
        """Yield what does not fit together."""
        if self.topic and self.input == KEYBOARD:
            yield f'topic is {self.topic!r}, but a keyboard has none: remove it'
        if self.input == KEYBOARD and self.deadman != MOVED:
            yield f'deadman is {self.deadman!r}: a terminal tells no release; set moved'
        for name in self.controls:
            if not _is_control(self.input, name):
                yield (
                    f'{name!r} is no control of input {self.input}, expected '
                    f'{_expected(self.input)}'
                )
        actions = (axis.action for axis in self.axes)
        for what, names in (('control', self.controls), ('action', actions)):
            for name, count in Counter(names).items():
                if count > 1:
                    yield f'{what} {name!r} is given {count} times, expected once'


@dataclass(frozen=True)
class TakeoverConfig:
    """A checked file of `config/takeover/`."""

    keys: TakeoverKeys
    """Its content."""
    source: str
    """The file, for errors."""

    @property
    def topic(self) -> str:
        """Topic of the input, empty for a keyboard."""
        return self.keys.topic or TOPICS[self.keys.input]

    def check(self, action: ActionSpec, period_s: float) -> None:
        """Refuse a robot that it does not fit.

        Args:
            action: its actions.
            period_s: control period [s].

        Raises:
            ConfigError: it has no such action, cannot be integrated from where it is, or is slower.
        """
        problems = list(self.misfits(action, period_s))
        if problems:
            raise ConfigError(self.source, problems)

    def misfits(self, action: ActionSpec, period_s: float) -> Iterator[str]:
        """Yield why a robot does not fit; see `check`."""
        if action.is_discrete:
            yield 'discrete actions are not moved by axes'
            return
        if not action.goes_to_zero.all() and not action.measured_by:
            yield (
                'positions are moved from where they are measured, and robot.action.measured_by '
                'is missing'
            )
        for place, axis in enumerate(self.keys.axes):
            if axis.action not in action.names:
                known = f'known: {", ".join(action.names)}'
                hint = did_you_mean(axis.action, action.names) or known
                yield f'axes[{place}].action {axis.action!r} is unknown; {hint}'
                continue
            index = action.names.index(axis.action)
            unit = f' {action.units[index]}' if action.units else ''
            if action.goes_to_zero[index]:
                largest = max(-action.lower[index], action.upper[index])
                meaning = 'lower, upper'
            else:
                largest, meaning = action.max_step[index] / period_s, 'max_velocity'
                unit += '/s' * bool(unit)
            if abs(axis.scale) > largest * (1.0 + 1e-9):
                yield (
                    f'axes[{place}].scale of {axis.action} is {axis.scale:g}{unit}, expected up to '
                    f'{largest:g} (robot.action.{meaning})'
                )


def _is_control(kind: str, name: str) -> bool:
    if kind == JOY:
        return re.fullmatch(r'(axes|buttons)\.[0-9]{1,3}', name) is not None
    if kind == TWIST:
        return name in TWIST_CONTROLS
    return name in NAMED_KEYS.values() or (len(name) == 1 and name.isprintable() and name != ' ')


def _expected(kind: str) -> str:
    words = {JOY: 'such as axes.0 or buttons.4', TWIST: f'one of {", ".join(TWIST_CONTROLS)}'}
    return words.get(kind, f'a character or one of {", ".join(NAMED_KEYS.values())}')


def load_takeover(
    name_or_path: str, robot: RobotConfig | None = None
) -> tuple[TakeoverConfig, Path]:
    """Read a file of `config/takeover/`: a path, or the name of a shipped one.

    Args:
        name_or_path: the file.
        robot: that it must fit; None: any.

    Raises:
        ConfigError: no such file, or its content is wrong; names all that is.
        ResourceError: no shipped one has the name.
    """
    path = find_file('takeover', ('config', 'takeover'), name_or_path, '.yaml')
    if not path.is_file():
        raise ConfigError(f'takeover file {str(path)!r} does not exist')
    keys = from_mapping(TakeoverKeys, read_yaml(path, 'takeover file'), str(path))
    config, problems = TakeoverConfig(keys, str(path)), [*keys.conflicts()]
    if robot is not None:
        problems += config.misfits(robot.action, 1.0 / robot.control_rate_hz)
    if problems:
        raise ConfigError(str(path), problems)
    return config, path
