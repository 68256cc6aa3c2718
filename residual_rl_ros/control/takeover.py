# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Take a robot over by hand: what controls of a gamepad, a 6-D mouse or a keyboard command.

A control has a name and a value: `axes.0` and `buttons.4` of a Joy message, `linear.x` of a Twist,
a key of a keyboard. Whoever reads them hands their values over; this module knows no message.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.control.command_limiter import CommandLimiter
from residual_rl_ros.control.gates import still_told
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ConfigError, ObservationError
from residual_rl_ros.numerics import clamp
from residual_rl_ros.resources import find_file
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.schema import from_mapping, parameter, read_yaml

Array = npt.NDArray[np.float64]
INPUTS = JOY, TWIST, KEYBOARD = ('joy', 'twist', 'keyboard')
"""What an operator has in his hands."""
TOPICS = {JOY: 'joy', TWIST: 'spacenav/twist', KEYBOARD: ''}
"""Topic of each input, if none is given."""
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
LEAD = 0.8
"""Share of following_limit by which a target may be ahead of the robot."""
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
            yield f'control of {self.action} is missing: give control, or minus and plus'
        if self.scale == 0.0:
            yield f'scale of {self.action} is 0: it moves nothing; remove the entry'

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
    axes: tuple[dict[str, Any], ...] = parameter(MISSING, 'what moves the actions', filled=True)
    buttons: ButtonKeys = field(default=ButtonKeys(), metadata={'description': 'see below'})

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        if self.topic and self.input == KEYBOARD:
            yield f'topic is {self.topic!r}, but a keyboard has none: remove it'


class TakeoverConfig:
    """A checked file of `config/takeover/`.

    Args:
        keys: its content.
        axes: its entries of `axes`.
        source: file, for the errors.

    Raises:
        ConfigError: a control is none of the input, or has two meanings.
    """

    def __init__(self, keys: TakeoverKeys, axes: tuple[AxisKeys, ...], source: str) -> None:
        self.keys = keys
        self.axes = axes
        self.source = source
        self.topic = keys.topic or TOPICS[keys.input]
        """Topic of the input, empty for a keyboard."""
        moving = [control for axis in axes for control in axis.controls]
        deadman = [] if keys.deadman == MOVED else [keys.deadman]
        used = [*deadman, *moving, *keys.buttons.by_name().values()]
        self.controls = tuple(used)
        """Names of all controls."""
        problems = [
            f'{name!r} is no control of input {keys.input}, expected {_expected(keys.input)}'
            for name in used
            if not _is_control(keys.input, name)
        ]
        for what, names in (('control', used), ('action', [axis.action for axis in axes])):
            problems += [
                f'{what} {name!r} is given {count} times, expected once'
                for name, count in Counter(names).items()
                if count > 1
            ]
        if keys.input == KEYBOARD and deadman:
            problems.append(f'deadman is {keys.deadman!r}: a terminal tells no release; set moved')
        if problems:
            raise ConfigError(source, problems)

    def check(self, action: ActionSpec, period_s: float) -> None:
        """Refuse a robot that it does not fit.

        Args:
            action: its actions.
            period_s: control period [s].

        Raises:
            ConfigError: it has no such action, cannot be integrated from where it is, or is slower.
        """
        if action.is_discrete:
            raise ConfigError(self.source, ['discrete actions are not moved by axes'])
        problems = []
        if not action.goes_to_zero.all() and not action.measured_by:
            problems.append(
                'positions are moved from where they are measured, and robot.action.measured_by '
                'is missing'
            )
        for axis in self.axes:
            if axis.action not in action.names:
                near = difflib.get_close_matches(axis.action, action.names, 1)
                hint = f'did you mean {near[0]}?' if near else f'known: {", ".join(action.names)}'
                problems.append(f'axes: action {axis.action!r} is unknown; {hint}')
                continue
            index = action.names.index(axis.action)
            if action.goes_to_zero[index]:
                largest = max(-action.lower[index], action.upper[index])
                meaning = 'lower, upper'
            else:
                largest, meaning = action.max_step[index] / period_s, 'max_velocity'
            if abs(axis.scale) > largest * (1.0 + 1e-9):
                problems.append(
                    f'axes: scale of {axis.action} is {axis.scale:g}, expected up to {largest:g} '
                    f'(robot.action.{meaning})'
                )
        if problems:
            raise ConfigError(self.source, problems)


def _is_control(kind: str, name: str) -> bool:
    if kind == JOY:
        return re.fullmatch(r'(axes|buttons)\.[0-9]{1,3}', name) is not None
    if kind == TWIST:
        return name in TWIST_CONTROLS
    return name in NAMED_KEYS.values() or (len(name) == 1 and name.isprintable() and name != ' ')


def _expected(kind: str) -> str:
    words = {JOY: 'such as axes.0 or buttons.4', TWIST: f'one of {", ".join(TWIST_CONTROLS)}'}
    return words.get(kind, f'a character or one of {", ".join(NAMED_KEYS.values())}')


def load_takeover(name_or_path: str) -> tuple[TakeoverConfig, Path]:
    """Read a file of `config/takeover/`: a path, or the name of a shipped one.

    Raises:
        ConfigError: no such file, or its content is wrong.
        ResourceError: no shipped one has the name.
    """
    path = find_file('takeover', ('config', 'takeover'), name_or_path, '.yaml')
    if not path.is_file():
        raise ConfigError(f'takeover file {str(path)!r} does not exist')
    keys = from_mapping(TakeoverKeys, read_yaml(path, 'takeover file'), str(path))
    axes = tuple(from_mapping(AxisKeys, entry, f'{path}: axes') for entry in keys.axes)
    return TakeoverConfig(keys, axes, str(path)), path


class Hands(StrEnum):
    """Who has the robot."""

    OFF = 'off'
    """The policy."""
    ON = 'on'
    """The operator."""
    LOST = 'lost'
    """The operator, of whom nothing is heard: the robot stands still until he takes it again."""


class Takeover:
    """Makes an operator's commands of the values of his controls.

    Positions go on from where the robot was told to be, so that a gripper keeps its grip, or from
    where it is measured, if that is not known or too far away. They are never further ahead of it
    than a part of following_limit: that cuts short what the operator adds, and nothing else moves
    them. Everything else is commanded directly. Who holds on from the beginning must let go first.

    Args:
        config: what the controls mean.
        action: the robot's actions.
        period_s: time between two commands [s].

    Raises:
        ConfigError: the robot does not fit.
    """

    def __init__(self, config: TakeoverConfig, action: ActionSpec, period_s: float) -> None:
        config.check(action, period_s)
        self.hands = Hands.OFF
        self.ignored: list[str] = []
        """Buttons that were down when the input was heard again, and do not count."""
        self.problem = ''
        """Why the latest measurement is not believed."""
        self._keys = config.keys
        self._axes = [(action.names.index(axis.action), axis) for axis in config.axes]
        self._action = action
        self._period = period_s
        # The policy node sees to the body.
        self._safety = SafetyFilter(replace(action, workspace=None, self_collision=None))
        self._limiter = CommandLimiter(self._safety, action.measured_by)
        self._values: Mapping[str, float] = {}
        self._let_go = False
        self._heard = self._moved = -np.inf
        self._pressed: dict[str, float] = {}
        self._target: Array = np.zeros(action.size)

    def receive(self, values: Mapping[str, float], now: float) -> list[str]:
        """Take in the values of all controls; return the buttons that are pressed anew.

        A button that is down when the input is first heard, or heard again, has not been pressed,
        but for hold. Hold comes first, and release does not count beside it.

        Args:
            values: by control.
            now: time [s].
        """
        known = now - self._heard <= self._keys.max_age_s
        before, self._values, self._heard = self._values, dict(values), now
        if any(axis.deflection(values) for _, axis in self._axes):
            self._moved = now
        self._let_go |= not self._is_held(now)
        pressed, self.ignored = [], []
        for name, control in self._keys.buttons.by_name().items():
            if values[control] <= PRESSED:
                continue
            anew = known and now - self._pressed.get(name, -np.inf) > self._keys.debounce_s
            if before.get(control, 0.0) <= PRESSED and (anew or name == 'hold'):
                pressed.append(name)
            elif not known and name != 'hold':
                self.ignored.append(name)
            self._pressed[name] = now
        if 'hold' in pressed and 'release' in pressed:
            pressed.remove('release')
        return pressed

    def silent(self, now: float) -> bool:
        """Return whether nothing has been heard for `max_age_s`."""
        return not 0.0 <= now - self._heard <= self._keys.max_age_s

    def command(
        self, measured: Array | None, now: float, told: Array | None = None
    ) -> Array | None:
        """Return what to command, shape (m,), None while the policy has the robot.

        Args:
            measured: where the robot is, shape (m,); None if nobody knows.
            now: time [s].
            told: what the policy has just told it, shape (m,); None: nothing.
        """
        measured = self._believed(measured)
        held = not self.silent(now) and self._let_go and self._is_held(now)
        if self.hands is Hands.OFF:
            if not held or (measured is None and not self._action.goes_to_zero.all()):
                return None
            start = np.zeros(self._action.size) if measured is None else measured
            self._target = still_told(self._safety, start, told)
        elif self.silent(now):
            self.hands = Hands.LOST
            return self.at_rest()
        elif not held:
            if self.hands is Hands.ON:
                self.hands = Hands.OFF
                return None
            return self.at_rest()
        self.hands = Hands.ON
        return self._moved_on(measured)

    def _believed(self, measured: Array | None) -> Array | None:
        """Return a measurement that a robot inside its limits can have, else None."""
        self.problem = ''
        self._limiter.observe(measured)
        try:
            self._limiter.check_measured()
        except ObservationError as error:
            self.problem = str(error)
            return None
        return self._limiter.measured

    def _is_held(self, now: float) -> bool:
        keys = self._keys
        if keys.deadman == MOVED:
            return now - self._moved <= keys.release_after_s
        value, threshold = self._values[keys.deadman], keys.deadman_threshold
        return value < threshold if threshold < 0.0 else value > threshold

    def at_rest(self) -> Array:
        """Return the command that leaves the robot where it is, shape (m,)."""
        self._target = np.where(self._action.goes_to_zero, 0.0, self._target)
        return self._target

    def _moved_on(self, measured: Array | None) -> Array:
        """Return the command one period later."""
        action, target = self._action, self.at_rest()
        wanted = np.zeros(action.size)
        for index, axis in self._axes:
            wanted[index] = axis.scale * axis.deflection(self._values)
        moved = target
        if measured is not None:
            ahead, lead = self._safety.difference(target, measured), LEAD * action.following_limit
            back, on = np.minimum(-lead - ahead, 0.0), np.maximum(lead - ahead, 0.0)
            moved = target + clamp(wanted * self._period, back, on)
        moved = np.where(action.goes_to_zero, wanted, moved)
        self._target = clamp(moved, action.lower, action.upper)
        return self._target
