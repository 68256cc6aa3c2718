# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an operator has in his hands is read as his file says, or refused by name."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from geometry_msgs.msg import Twist
from sensor_msgs.msg import Joy
from std_srvs.srv import SetBool

from residual_rl_ros.control.takeover import (
    AxisKeys,
    Hands,
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
    key_names,
    twist_values,
)


def twist() -> TakeoverConfig:
    axis = AxisKeys(action='a', control='angular.z', scale=1.0)
    return TakeoverConfig(TakeoverKeys(input='twist', deadman='moved', axes=({},)), (axis,), 'file')


def test_a_joy_message_tells_every_control() -> None:
    pad = load_takeover('spacemouse')[0]
    values = joy_values(Joy(axes=[0.5, 0.0, 0.0, 0.0, 0.0, -1.0], buttons=[1, 0]), pad)
    assert (values['axes.0'], values['axes.5'], values['buttons.0']) == (0.5, -1.0, 1.0)


@pytest.mark.parametrize(
    ('axes', 'buttons', 'message'),
    [
        ([0.0] * 4, [0, 0], r'spacenav/joy has 4 axes, .*spacemouse.yaml names axes.4: correct it'),
        ([0.0] * 6, [0], r'spacenav/joy has 1 buttons, .* names buttons.1'),
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


def test_keys_are_named_as_in_the_file() -> None:
    assert key_names('a\x1b[A \x1b[Dh') == (['a', 'up', 'space', 'left', 'h'], '')


SEQUENCES = {
    'F1': '\x1bOP',
    'F1 of a console': '\x1b[[A',
    'F5': '\x1b[15~',
    **{f'F{6 + index}': f'\x1b[{17 + index}~' for index in range(5)},
    'F11': '\x1b[23~',
    'F12': '\x1b[24~',
    'Home': '\x1b[1~',
    'Home of xterm': '\x1b[H',
    'PageUp': '\x1b[5~',
    'Ctrl+Right': '\x1b[1;5C',
    'Ctrl+Right of PuTTY': '\x1bO5C',
    'Alt+h': '\x1bh',
    'Alt+Up': '\x1b\x1b[A',
}


@pytest.mark.parametrize('sent', SEQUENCES.values(), ids=SEQUENCES)
def test_a_key_without_a_name_is_no_letter_and_no_digit(sent: str) -> None:
    assert key_names(f'a{sent}h') == (['a', 'h'], '')
    for end in range(1, len(sent)):
        names, begun = key_names(sent[:end])
        assert (names, begun) == ([], sent[:end])
        assert key_names(begun + sent[end:]) == ([], '')


def test_a_key_that_is_struck_after_escape_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Any] = []
    keys = SimpleNamespace(max_age_s=0.15, input='keyboard')
    node: Any = SimpleNamespace(
        _config=SimpleNamespace(keys=keys, controls=('h', '0')), _keys=0, _receive=received.append
    )
    node._struck, node._begun, node._typed_at = {}, '', -1.0
    typed = {0.0: '\x1b', 0.05: '', 0.5: 'h', 1.0: '\x1b[2', 1.05: '0~'}
    for now, read in typed.items():
        monkeypatch.setattr(takeover_node, 'read_keys', partial(lambda text, *_: text, read))
        monkeypatch.setattr(takeover_node.time, 'monotonic', partial(float, now))
        TakeoverNode._read_keyboard(node)
    assert received[2] == {'h': 1.0, '0': 0.0}
    assert received[4] == {'h': 0.0, '0': 0.0}


def test_a_node_that_is_deactivated_leaves_the_robot_at_rest_unless_the_policy_has_it() -> None:
    published: list[str] = []
    for hands in Hands:
        takeover = SimpleNamespace(hands=hands, at_rest=partial('at rest, {}'.format, hands.value))
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
