# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A terminal console for the person beside the robot: `residual-rl operator`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TextIO

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text
from std_srvs.srv import SetBool, Trigger

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.status import status_table
from residual_rl_ros.ros.common.node_host import Listener, ros_domain
from residual_rl_ros.ros.common.terminal_keys import single_keys
from residual_rl_ros.ros.dashboard.telemetry import Telemetry
from residual_rl_ros.ros.dashboard.view import RobotView

ANSWER_LIMIT_S = 12.0
"""How long a service may take; a rollback waits for the update in progress [s]."""
HOLD_LIMIT_S = 0.5
"""A hold that is not acknowledged for this long is sent again, and shouted about [s]."""
DISCOVERY_LIMIT_S = 2.0
"""How long a key waits for a service that is not there yet [s]."""
FRESH_S = 1.5
"""How long an answer takes precedence over the diagnostics, which may be older [s]."""
LOOK_PERIOD_S = 0.05
"""How often calls in progress are looked at [s]."""
SHOWN_OUTCOMES = 4
"""Keys whose latest outcome is shown."""


@dataclass(frozen=True)
class Key:
    """What a key does."""

    label: str
    service: str
    data: bool | None = None
    """What it sets a switch to."""
    shown: str = ''
    """Diagnostic value that each press inverts instead; empty if there is none."""
    transition: int | None = None
    """Lifecycle transition to request."""

    @property
    def kind(self) -> Any:
        """Type of the service."""
        if self.transition is not None:
            return ChangeState
        return SetBool if self.shown or self.data is not None else Trigger


HOLD = 'h'
GO_ON = 'g'
KEYS = {
    HOLD: Key('HOLD', 'policy_node/hold', data=True),
    GO_ON: Key('go on', 'policy_node/hold', data=False),
    'n': Key('new episode', 'policy_node/start_episode'),
    's': Key('success', 'policy_node/mark_success'),
    'f': Key('failure', 'policy_node/mark_failure'),
    'e': Key('end', 'policy_node/end_episode'),
    'o': Key('go home', 'policy_node/go_home'),
    'r': Key('residual', 'policy_node/set_residual', shown='residual_switch'),
    'p': Key('pause learning', 'learner_node/pause', shown='paused'),
    'w': Key('save', 'learner_node/save'),
    'b': Key('roll back', 'learner_node/rollback'),
    'a': Key('activate', 'policy_node/change_state', transition=Transition.TRANSITION_ACTIVATE),
}
QUIT = 'q'
REFUSED = 'REFUSED'
STOP = 'USE THE EMERGENCY STOP'


@dataclass
class _Call:
    """A key that was pressed."""

    key: Key
    request: Any
    pressed: float
    """Monotonic time [s]."""
    futures: list[Any] = field(default_factory=list)
    """Of each attempt; none until the service was there."""
    sent: float = 0.0
    """Monotonic time of the last attempt [s]."""
    outcome: str = ''
    """Empty while it is in progress."""


class Operator(Listener):
    """Calls the services behind the keys; no call waits for another, and none keeps a key waiting.

    Args:
        monitor: knows the state of the switches.
        namespace: namespace of the robot.
        fleet: its learner is shared, and in no namespace.
        domain_id: ROS domain; None takes `ROS_DOMAIN_ID`.
        clock: monotonic time [s].
    """

    def __init__(
        self,
        monitor: Monitor,
        namespace: str = '',
        fleet: bool = False,
        domain_id: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__('operator', domain_id, namespace)
        self._monitor = monitor
        self._policy, self._learner = watched_nodes(namespace, fleet)
        self._clock = clock
        self._fleet = fleet
        self._clients: dict[str, Any] = {}
        self._calls: dict[str, _Call] = {}
        """Latest call of each key, the newest last."""
        self._set: dict[str, tuple[bool, float]] = {}
        """Latest acknowledged state of each switch, and when."""

    def listen(self) -> None:
        """Open a client for each service: what it sends arrives in the order of the keys."""
        for key in KEYS.values():
            if key.service not in self._clients:
                shared = self._fleet and key.service.startswith('learner')
                name = f'/{key.service}' if shared else key.service
                self._clients[key.service] = self.node.create_client(key.kind, name)

    def press(self, letter: str) -> None:
        """Send what a key asks for, at once and without waiting; `outcomes` tells what came of it.

        Hold is sent again until it is acknowledged, or until somebody wants to go on.
        """
        key, now = KEYS[letter], self._clock()
        request: Any = key.kind.Request()
        before = self._calls.pop(letter, None)
        call = _Call(key, request, now)
        if letter == HOLD and before is not None and not before.outcome:
            call = before  # The alarm goes on.
        self._calls[letter] = call
        if key.data is not None:
            self._calls.pop(GO_ON if letter == HOLD else HOLD, None)
            call.request.data = key.data
        if key.transition is not None:
            request.transition.id = key.transition
        if key.shown:
            state = self._is_on(letter)
            if state is None:
                call.outcome = f'{self._node_of(key)} does not report its state'
                return
            request.data = not state
        self._send(call)

    def look(self) -> None:
        """Look at the calls in progress; a hold that is not acknowledged is sent again."""
        now = self._clock()
        for letter, call in list(self._calls.items()):
            if call.outcome:
                continue
            answers = [future.result() for future in call.futures if future.done()]
            if answers:
                self._take(letter, call, answers[-1])
            elif letter == HOLD:
                if now - call.sent >= HOLD_LIMIT_S:
                    self._send(call)
            elif not call.futures:
                self._send(call)
                if not call.futures and now - call.pressed > DISCOVERY_LIMIT_S:
                    call.outcome = f'{call.key.service} is not there'
            elif now - call.pressed > ANSWER_LIMIT_S:
                self._finish(call, f'no answer from {call.key.service}')

    def see_hold_through(self) -> None:
        """Wait for the answer to a hold, if one is open, but not for long."""
        deadline = self._clock() + 2.0 * HOLD_LIMIT_S
        while HOLD in self._calls and not self.outcome(HOLD) and self._clock() < deadline:
            self.look()
            time.sleep(0.01)

    def outcomes(self) -> list[str]:
        """Return what came of the keys pressed last, each in one line, the newest first."""
        lines = []
        for call in reversed(list(self._calls.values())[-SHOWN_OUTCOMES:]):
            waiting = self._clock() - call.pressed
            lines.append(f'{call.key.label}: {call.outcome or f"asked {waiting:.1f} s ago …"}')
        return lines

    def outcome(self, letter: str) -> str:
        """Return what came of a key, empty while that is open."""
        call = self._calls.get(letter)
        return '' if call is None else call.outcome

    def alarm(self) -> str:
        """Return what must be shouted: a hold that is refused, or not acknowledged in time."""
        call = self._calls.get(HOLD)
        if call is None:
            return ''
        waiting = self._clock() - call.pressed
        if call.outcome.startswith(REFUSED):
            return f'HOLD {call.outcome}. {STOP}'
        if call.outcome or waiting < HOLD_LIMIT_S:
            return ''
        why = 'does not answer' if call.futures else 'is not there'
        return f'HOLD NOT ACKNOWLEDGED for {waiting:.1f} s: {call.key.service} {why}. {STOP}'

    def _send(self, call: _Call) -> None:
        """Call the service, if it is there."""
        client, call.sent = self._clients[call.key.service], self._clock()
        if client.service_is_ready():
            call.futures.append(client.call_async(call.request))

    def _take(self, letter: str, call: _Call, answer: Any) -> None:
        """Take in the answer to a call."""
        key = call.key
        if key.transition is not None:
            self._finish(call, 'done' if answer.success else 'refused; its log says why')
            return
        if key.shown and answer.success:
            self._set[letter] = call.request.data, self._clock()
        refused = letter == HOLD and not answer.success
        said = answer.message or ('done' if answer.success else 'no reason given')
        self._finish(call, f'{REFUSED}: {said}' if refused else said)

    def _finish(self, call: _Call, outcome: str) -> None:
        call.outcome = outcome
        for future in call.futures:
            self._clients[call.key.service].remove_pending_request(future)

    def _is_on(self, letter: str) -> bool | None:
        """Return the state of a switch, None if it is unknown."""
        asked, when = self._set.get(letter, (False, None))
        if when is not None and self._clock() - when < FRESH_S:
            return asked
        key = KEYS[letter]
        node = self._node_of(key)
        shown = None if self._monitor.is_stale(node) else self._monitor.values(node).get(key.shown)
        return None if shown is None else shown == 'True'

    def _node_of(self, key: Key) -> str:
        return self._learner if key.service.startswith('learner') else self._policy


def watched_nodes(namespace: str, fleet: bool) -> tuple[str, str]:
    """Return the names of policy and learner, with namespaces, as diagnostics have them."""
    root = f'{namespace.strip("/")}/'.lstrip('/')
    return f'{root}policy_node', 'learner_node' if fleet else f'{root}learner_node'


def run_operator(namespace: str, fleet: bool, console: Console, keys: TextIO = sys.stdin) -> None:
    """Show the state of policy and learner and act on keys until q is pressed.

    Keys are read and obeyed in this thread, which draws nothing: a terminal that takes no output
    must not keep a hold waiting.

    Raises:
        ResidualRLError: there is no terminal to read keys from.
    """
    domain_id = ros_domain()
    if not keys.isatty():
        raise ResidualRLError('the operator console needs a terminal; call the services instead')
    nodes = watched_nodes(namespace, fleet)
    with ExitStack() as stack:
        monitor = stack.enter_context(Monitor(domain_id))
        operator = stack.enter_context(Operator(monitor, namespace, fleet, domain_id))
        view = RobotView(monitor, *nodes)
        stack.enter_context(Telemetry([view], domain_id))
        keyboard = stack.enter_context(single_keys(keys, HOLD))
        unknown = ''

        def screen() -> Group:
            lines = [Text(operator.alarm(), 'bold white on red')] if operator.alarm() else []
            lines += [Text(line) for line in (unknown, *operator.outcomes()) if line]
            return Group(status_table(monitor, nodes), Text(view.summary()), *lines, _LEGEND)

        with Live(console=console, refresh_per_second=4.0, get_renderable=screen):
            typed: Sequence[str] = ()
            while QUIT not in typed:
                read = keyboard.read(LOOK_PERIOD_S)
                typed = QUIT if read is None else read
                for letter in in_order(typed):
                    operator.press(letter)
                strange = [repr(letter) for letter in typed if letter not in (*KEYS, QUIT)]
                strange += ['what is pasted'] * keyboard.pasted
                if typed or strange:
                    unknown = ', '.join(f'{each} does nothing' for each in strange)
                operator.look()
            operator.see_hold_through()
        if operator.alarm():
            console.print(Text(operator.alarm(), 'bold white on red'))


def in_order(typed: Sequence[str]) -> list[str]:
    """Return the keys to obey of those that were typed at once: hold comes first, and wins."""
    held = HOLD in typed
    others = [key for key in typed if key in KEYS and key != HOLD and not (held and key == GO_ON)]
    return [*([HOLD] if held else []), *others]


_LEGEND = Text('  '.join(f'[{letter}] {key.label}' for letter, key in KEYS.items()) + '  [q] quit')
