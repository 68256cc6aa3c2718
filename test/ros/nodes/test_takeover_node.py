# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an operator has in his state is read as his file says, or refused by name."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Twist
from sensor_msgs.msg import Joy
from std_srvs.srv import SetBool

from residual_rl_ros.control.takeover import Presses, TakeoverState
from residual_rl_ros.control.takeover_controls import (
    AxisKeys,
    TakeoverConfig,
    TakeoverKeys,
    load_takeover,
)
from residual_rl_ros.errors import CommandError
from residual_rl_ros.ros.nodes import takeover_node
from residual_rl_ros.ros.nodes.takeover_node import (
    Buttons,
    TakeoverNode,
    joy_values,
    twist_values,
)


def twist() -> TakeoverConfig:
    axis = AxisKeys(action='a', control='angular.z', scale=1.0)
    return TakeoverConfig(TakeoverKeys(input='twist', deadman='moved', axes=(axis,)), 'file')


def test_a_joy_message_tells_every_control() -> None:
    pad = load_takeover('spacemouse')[0]
    values = joy_values(Joy(axes=[0.5, 0.0, 0.0, 0.0, 0.0, -1.0], buttons=[1, 0]), pad)
    assert (values['axes.0'], values['axes.5'], values['buttons.0']) == (0.5, -1.0, 1.0)


@pytest.mark.parametrize(
    ('axes', 'buttons', 'message'),
    [
        (
            [0.0] * 4,
            [0, 0],
            r'has 4 axes and 2 buttons, .*mouse.yaml names axes.4, axes.5: correct',
        ),
        ([0.0] * 6, [0], r'spacenav/joy has 6 axes and 1 buttons, .* names buttons.1'),
        ([float('nan')] * 6, [0, 0], r'axes.0 of spacenav/joy is nan, expected a number'),
    ],
)
def test_a_pad_without_a_control_that_is_named_takes_nothing_over(
    axes: list[float], buttons: list[int], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        joy_values(Joy(axes=axes, buttons=buttons), load_takeover('spacemouse')[0])


def test_a_twist_tells_its_axes() -> None:
    message = Twist()
    message.angular.z = -0.5
    assert twist_values(message, twist()) == {'angular.z': -0.5}
    message.angular.z = float('inf')
    with pytest.raises(CommandError, match=r'angular.z of spacenav/twist is inf'):
        twist_values(message, twist())


def test_a_key_counts_as_pressed_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Any] = []
    buttons = SimpleNamespace(hold='h', release='g')
    keys = SimpleNamespace(max_age_s=0.15, controls=('h', '0'), buttons=buttons)
    struck: list[list[str] | None] = [['h', 'x'], [], None, []]
    node: Any = SimpleNamespace(
        _config=SimpleNamespace(keys=keys),
        _struck={},
        _keyboard=SimpleNamespace(read=lambda limit_s: struck.pop(0)),
        _receive=received.append,
        warn=received.append,
    )
    for now in (0.0, 0.1, 0.15, 0.2):
        monkeypatch.setattr(takeover_node.time, 'monotonic', partial(float, now))
        TakeoverNode._read_keyboard(node)
    down, up = {'h': 1.0, '0': 0.0}, {'h': 0.0, '0': 0.0}
    assert received == [down, down, 'the terminal has closed: nothing is heard of its keys', up]


@pytest.mark.parametrize(
    ('struck', 'pressed'),
    [
        (['h', 'h', 'g', 'h'], [['hold'], [], ['release'], ['hold']]),
        (['h', 'gh', 'hg', 'h'], [['hold'], [], [], []]),
    ],
)
def test_hold_counts_anew_right_after_a_release_and_wins_beside_one(
    struck: list[str], pressed: list[list[str]]
) -> None:
    config, _ = load_takeover('keyboard')
    presses, told, reads = Presses(config.keys), list[list[str]](), iter(struck)
    node: Any = SimpleNamespace(
        _config=config,
        _struck={},
        _keyboard=SimpleNamespace(read=lambda limit_s: list(next(reads))),
        _receive=lambda values: told.append(presses.take(values, 0.0, True)),
    )
    for _ in struck:
        TakeoverNode._read_keyboard(node)
    assert told == pressed


@pytest.mark.parametrize(
    ('period_s', 'age_s', 'counts'),
    [(0.05, 0.24, True), (0.05, 0.26, False), (0.5, 1.4, True), (0.5, 1.6, False)],
)
def test_what_a_slow_robot_was_told_counts_until_it_is_told_anew(
    period_s: float, age_s: float, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an operator who takes over a gripper begins where it is, and drops what it holds."""
    monkeypatch.setattr(takeover_node.time, 'monotonic', partial(float, 100.0))
    heard: list[Any] = []
    takeover = SimpleNamespace(
        state=TakeoverState.OFF, problem='', command=lambda measured, now, told: heard.append(told)
    )
    node: Any = SimpleNamespace(
        _config=SimpleNamespace(keys=SimpleNamespace(input='joy')),
        _takeover=takeover,
        _period=period_s,
        _executed=np.ones(2),
        _executed_at=100.0 - age_s,
        _measured=lambda: None,
        _buttons=SimpleNamespace(look=lambda: None),
    )
    TakeoverNode._tick(node)
    assert (heard[0] is not None) == counts


def test_a_node_that_is_deactivated_leaves_the_robot_at_rest_unless_the_policy_has_it() -> None:
    published: list[str] = []
    for state in TakeoverState:
        takeover = SimpleNamespace(state=state, at_rest=partial('at rest, {}'.format, state.value))
        node: Any = SimpleNamespace(
            destroy_timer=lambda timer: None,
            _timer=None,
            _takeover=takeover,
            _publish=published.append,
            _terminal=ExitStack(),
        )
        TakeoverNode.deactivate(node)
    assert published == ['at rest, on', 'at rest, lost']


class Client:
    """A client whose service answers when a test says so."""

    srv_name = 'policy_node/hold'

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.callbacks: list[Any] = []
        self.ready = True

    def service_is_ready(self) -> bool:
        return self.ready

    def call_async(self, request: Any) -> Any:
        self.requests.append(request)
        return SimpleNamespace(add_done_callback=self.callbacks.append)

    def answer(self, error: Exception | None = None) -> None:
        done = SimpleNamespace(success=True, message='holding')
        future = SimpleNamespace(result=lambda: done, exception=lambda: error)
        self.callbacks[-1](future)


def test_a_hold_is_sent_again_until_it_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    client, warned = Client(), []
    node: Any = SimpleNamespace(
        get_logger=lambda: SimpleNamespace(info=lambda text: None),
        create_client=lambda kind, name: client,
        destroy_client=None,
        made=SimpleNamespace(callback=lambda *given: None),
    )
    now = 0.0
    monkeypatch.setattr(takeover_node.time, 'monotonic', lambda: now)
    buttons = Buttons(node, ('hold', 'release', 'success'), warned.append)
    client.ready = False
    buttons.press('hold')
    assert warned == ['hold: policy_node/hold is not there']
    client.ready, now = True, 0.6
    buttons.look()
    assert warned[-1] == 'HOLD NOT ACKNOWLEDGED: use the emergency stop'
    assert client.requests == [SetBool.Request(data=True)]
    client.answer(RuntimeError('the service has gone'))
    assert warned[-1] == 'hold: the service has gone'
    client.answer()
    now = 2.0
    buttons.look()
    assert len(client.requests) == 1
    buttons.press('release')
    assert client.requests[-1] == SetBool.Request(data=False)
