# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Topics that say when the robot must not move: a protective stop, a safety mode, a force."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import as_number
from residual_rl_ros.robot.message_order import MessageOrder

REMEMBERED = 32
"""As many messages that stop are told from their copies."""


@dataclass(frozen=True)
class StopInput:
    """A topic that says when the robot must not move: a protective stop, a safety mode, a force."""

    name: str
    topic: str
    """Topic name; relative names follow the node's namespace."""
    type: str
    """ROS message type, of any installed package."""
    field: str
    """Dotted field, `[key=value]` picks from a list; what has x, y, z is taken as its length."""
    bad: tuple[str, ...] = ()
    """Values at which the robot holds, as text: `true`, `3`, `PROTECTIVE_STOP`."""
    limit: float = np.inf
    """The robot holds while the absolute value is larger."""
    max_age_s: float = 0.0
    """The robot holds while the newest message is older, or none has come [s]; 0: silence is fine,
    for topics that are published on change."""
    required: bool = False
    """The robot holds until a message has come; later silence is fine. For topics that are
    published on change and latched: what they say can arrive after the first observation."""

    def says_stop(self, value: object) -> bool:
        """Return whether a value of the field is a reason to hold; NaN is one."""
        if isinstance(value, (bool, str)):
            return str(value).lower() in {bad.lower() for bad in self.bad}
        number = float(value)  # type: ignore[arg-type]
        return not abs(number) <= self.limit or any(number == as_number(bad) for bad in self.bad)


def check_stop_input(stop: StopInput, example: Any) -> None:
    """Refuse a field that a stop input's messages do not have; in a list, only messages tell.

    Args:
        stop: the stop input.
        example: an empty message of its type.

    Raises:
        ConfigError: the message has no such field, or it is no number, text or vector.
    """
    _stop_reason(stop, example)
    try:
        value = _value(stop, example)
    except LookupError:
        return  # An empty list does not tell of what type its elements are.
    where = f'robot.stop_inputs.{stop.name}'
    numeric = not isinstance(value, (bool, str))
    if not numeric and np.isfinite(stop.limit):
        raise ConfigError(
            f'{where}.limit is {stop.limit:g}, but {stop.field} is a {type(value).__name__}: it '
            'never stops; name the values that stop in bad'
        )
    for bad in stop.bad:
        if isinstance(value, bool):
            never, expected = bad.lower() not in ('true', 'false'), 'true or false'
        else:
            never, expected = numeric and np.isnan(as_number(bad)), 'numbers'
        if never:
            raise ConfigError(f'{where}.bad has {bad!r}, expected {expected}: it never stops')


def stop_reason(stop: StopInput, message: Any) -> str:
    """Return why a message of a stop input forbids to move, empty if it does not.

    A message without the field does.

    Args:
        stop: the stop input.
        message: a message of its type.
    """
    try:
        return _stop_reason(stop, message)
    except ConfigError as error:
        return str(error)


def _stop_reason(stop: StopInput, message: Any) -> str:
    try:
        value = _value(stop, message)
    except LookupError as error:
        return f'stop input {stop.name!r}: {stop.topic} has no {error.args[0]}'
    if not stop.says_stop(value):
        return ''
    return f'stop input {stop.name!r}: {stop.topic} {stop.field} is {value}'


def _value(stop: StopInput, message: Any) -> bool | float | str:
    """Return what a message says in the field of a stop input.

    Raises:
        LookupError: no element of a list is the one that is asked for.
        ConfigError: see `check_stop_input`.
    """
    where = f'robot.stop_inputs.{stop.name}.field'
    try:
        value = _pick(message, stop.field)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f'{where} is {stop.field!r}: {stop.type}: {error}') from error
    if all(hasattr(value, axis) for axis in 'xyz'):
        value = float(np.linalg.norm([value.x, value.y, value.z]))
    if isinstance(value, bytes) and len(value) == 1:
        value = value[0]
    if not isinstance(value, (bool, int, float, str)):
        raise ConfigError(f'{where} is {stop.field!r}, expected a number, a text or x, y, z')
    return value


def _pick(message: Any, path: str) -> Any:
    """Return a field by its path, such as `wrench.force` or `controllers[name=arm].state.label`.

    Raises:
        LookupError: no element of a list is the one that is asked for.
        AttributeError, TypeError, ValueError: the type has no such field.
    """
    value = message
    for part in filter(None, re.split(r'\.|(\[[^\]]*\])', path)):
        if not part.startswith('['):
            if part.startswith('_'):
                raise ValueError(f'{part} is no field of a message')
            value = getattr(value, part)
            continue
        key, is_key, wanted = part[1:-1].partition('=')
        if not is_key:
            raise ValueError(f'{part}, expected [key=value]')
        value = next((item for item in value if str(getattr(item, key)) == wanted), None)
        if value is None:
            raise LookupError(f'{key} {wanted!r}')
    return value


class StopOrder:
    """Tells which messages of a stop input count, of a topic that several subscriptions hear.

    An older message that is fine must not lift a newer stop. Where a doubt is left the robot holds.

    Args:
        clock: monotonic time [s].
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._order = MessageOrder(clock)
        self._stops: deque[int] = deque(maxlen=REMEMBERED)

    def counts(self, source_ns: int, stops: bool) -> bool:
        """Return whether a message that has just come counts.

        Args:
            source_ns: when its publisher sent it [ns]; 0 if the middleware does not tell.
            stops: it says that the robot must not move.
        """
        newest = self._order.is_newest(source_ns)
        if not (stops and source_ns):
            return newest
        copy = source_ns in self._stops
        self._stops.append(source_ns)
        return newest or not copy
