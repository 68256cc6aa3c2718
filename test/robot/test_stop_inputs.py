# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a stop input reads in a message."""

from __future__ import annotations

from types import SimpleNamespace as Message
from typing import Any

import pytest

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.stop_inputs import StopInput, StopOrder, check_stop_input, stop_reason

FORCE = Message(
    wrench=Message(force=Message(x=3.0, y=0.0, z=4.0), torque=Message(x=0.0, y=-2.0, z=0.0))
)
CONTROLLERS = Message(
    controllers=[
        Message(name='states', state=Message(label='active')),
        Message(name='arm', state=Message(label='inactive')),
    ]
)


def stop(field: str, **changes: Any) -> StopInput:
    return StopInput('safety', 'topic', 'package/msg/Name', field, **changes)


@pytest.mark.parametrize(
    ('given', 'message', 'reason'),
    [
        (stop('data', bad=('false',)), Message(data=False), 'topic data is False'),
        (stop('data', bad=('false',)), Message(data=True), ''),
        (stop('wrench.force', limit=4.9), FORCE, 'wrench.force is 5.0'),
        (stop('wrench.force', limit=5.1), FORCE, ''),
        (stop('wrench.torque', limit=1.9), FORCE, 'wrench.torque is 2.0'),
        (stop('data', bad=('2',)), Message(data=b'\x02'), 'data is 2'),
        (stop('controllers[name=arm].state.label', bad=('inactive',)), CONTROLLERS, 'inactive'),
        (stop('controllers[name=states].state.label', bad=('inactive',)), CONTROLLERS, ''),
        (
            stop('controllers[name=gone].state.label', bad=('inactive',)),
            CONTROLLERS,
            "no name 'gone'",
        ),
    ],
)
def test_a_message_says_why_the_robot_must_not_move(
    given: StopInput, message: Any, reason: str
) -> None:
    said = stop_reason(given, message)
    assert reason in said
    assert bool(said) is bool(reason)


@pytest.mark.parametrize('field', ['nothing', 'controllers', 'controllers[name]', 'data.data'])
def test_a_field_that_the_type_does_not_have_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=r'robot.stop_inputs.safety.field is'):
        check_stop_input(stop(field, bad=('1',)), Message(controllers=[1], data=1.0))


@pytest.mark.parametrize(
    ('given', 'value', 'said'),
    [
        (stop('data', bad=('1',)), False, "bad has '1', expected true or false: it never stops"),
        (stop('data', limit=0.5), False, 'limit is 0.5, but data is a bool: it never stops'),
        (stop('data', limit=0.5), '', 'limit is 0.5, but data is a str'),
        (stop('data', bad=('PROTECTIVE_STOP',)), 0, "bad has 'PROTECTIVE_STOP', expected numbers"),
        (stop('data', bad=('1.5', 'x')), 0.0, "bad has 'x', expected numbers"),
        (stop('__module__', bad=('1',)), 0.0, '__module__ is no field of a message'),
    ],
)
def test_a_stop_input_that_can_never_stop_is_refused(
    given: StopInput, value: object, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_stop_input(given, Message(data=value))


@pytest.mark.parametrize('part', ['stat', 'state'])
def test_a_field_that_the_elements_of_a_list_do_not_have_holds(part: str) -> None:
    """An empty list has not told."""
    given = stop(f'controllers[name=arm].{part}', bad=('inactive',))
    check_stop_input(given, Message(controllers=[]))
    said = stop_reason(given, CONTROLLERS)
    assert said.startswith(f"robot.stop_inputs.safety.field is 'controllers[name=arm].{part}'")


def counting(*messages: tuple[float, int, bool]) -> list[bool]:
    """Return which messages count, of moments [s], source timestamps and whether they stop."""
    moment = [0.0]
    order = StopOrder(lambda: moment[0])
    counted = []
    for moment[0], stamp, stops in messages:
        counted.append(order.counts(stamp, stops))
    return counted


def test_an_older_message_that_is_fine_lifts_no_newer_stop() -> None:
    """A latched subscription gives the newest first, another one then all."""
    messages = [(0.0, 10, True), (0.01, 8, False), (0.01, 9, False), (0.02, 10, True)]
    assert counting(*messages) == [True, False, False, True]
    assert counting(*messages, (0.1, 11, False), (0.1, 11, False))[-2:] == [True, True]


def test_a_copy_of_an_older_stop_does_not_stop_again() -> None:
    assert counting((0.0, 10, True), (0.01, 11, False), (0.02, 10, True)) == [True, True, False]


def test_a_stop_whose_publisher_has_another_clock_counts() -> None:
    streamed = [(0.1 * k, 10**12 + k, False) for k in range(20)]
    assert counting(*streamed, (2.0, 7, True), (2.1, 8, True))[-2:] == [True, True]
    assert counting(*streamed, (2.0, 7, False), (3.0, 8, False))[-2:] == [False, True]


def test_without_source_timestamps_every_message_counts() -> None:
    assert counting((0.0, 0, True), (0.0, 0, False), (0.0, 0, True)) == [True] * 3
