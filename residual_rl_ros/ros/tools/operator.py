# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A terminal console for the person beside the robot: `residual-rl operator`."""

from __future__ import annotations

import math
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text
from std_srvs.srv import SetBool, Trigger

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.up import status_table
from residual_rl_ros.ros.common.managed_node import NodeHost

ANSWER_LIMIT_S = 12.0
"""How long a service may take; a rollback waits for the update in progress."""
FRESH_S = 1.5
"""How long an answer takes precedence over the diagnostics, which may be older."""
DISCOVERY_LIMIT_S = 2.0
"""How long to wait for a service that is not there yet."""


@dataclass(frozen=True)
class Key:
    """What a key does."""

    label: str
    service: str
    shown: str = ''
    """Diagnostic value that each press inverts; empty if the service takes nothing."""
    transition: int | None = None
    """Lifecycle transition to request."""

    @property
    def kind(self) -> Any:
        """Type of the service."""
        if self.transition is not None:
            return ChangeState
        return SetBool if self.shown else Trigger


KEYS = {
    'n': Key('new episode', 'policy_node/start_episode'),
    's': Key('success', 'policy_node/mark_success'),
    'f': Key('failure', 'policy_node/mark_failure'),
    'e': Key('end', 'policy_node/end_episode'),
    'h': Key('hold', 'policy_node/hold', shown='held'),
    'r': Key('residual', 'policy_node/set_residual', shown='residual_switch'),
    'p': Key('pause learning', 'learner_node/pause', shown='paused'),
    'b': Key('roll back', 'learner_node/rollback'),
    'a': Key('activate', 'policy_node/change_state', transition=Transition.TRANSITION_ACTIVATE),
}
QUIT = 'q'


class Operator(NodeHost):
    """Calls the services behind the keys.

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
        self._clients = {
            letter: self.node.create_client(
                key.kind,
                f'/{key.service}' if fleet and key.service.startswith('learner') else key.service,
            )
            for letter, key in KEYS.items()
        }
        self._set: dict[str, tuple[bool, float]] = {}
        """Latest request of each key, and when."""

    def press(self, letter: str) -> str:
        """Call the service of a key and return the outcome in one line."""
        key = KEYS[letter]
        client = self._clients[letter]
        if not client.wait_for_service(timeout_sec=DISCOVERY_LIMIT_S):
            return f'{key.label}: {key.service} is not there'
        request: Any = key.kind.Request()
        if key.transition is not None:
            request.transition.id = key.transition
        if key.shown:
            now = self._is_on(letter)
            if now is None:
                return f'{key.label}: {key.service.split("/")[0]} does not report its state'
            request.data = not now
        future = client.call_async(request)
        deadline = self._clock() + ANSWER_LIMIT_S
        while not future.done() and self._clock() < deadline:
            self.executor.spin_once(timeout_sec=0.05)
        answer = future.result() if future.done() else None
        if answer is None:
            return f'{key.label}: no answer from {key.service}'
        if key.shown and answer.success:
            self._set[letter] = request.data, self._clock()
        if key.transition is not None:
            return f'{key.label}: {"done" if answer.success else "refused; its log says why"}'
        return f'{key.label}: {answer.message}'

    def _is_on(self, letter: str) -> bool | None:
        """Return the state of a switch, None if it is unknown."""
        asked, when = self._set.get(letter, (False, -math.inf))
        if self._clock() - when < FRESH_S:
            return asked
        key = KEYS[letter]
        node = self._learner if key.service.startswith('learner') else self._policy
        shown = self._monitor.values(node).get(key.shown)
        return None if shown is None else shown == 'True'


def watched_nodes(namespace: str, fleet: bool) -> tuple[str, str]:
    """Return the names of policy and learner, with namespaces, as diagnostics have them."""
    root = f'{namespace.strip("/")}/'.lstrip('/')
    return f'{root}policy_node', 'learner_node' if fleet else f'{root}learner_node'


def run_operator(namespace: str, fleet: bool, console: Console, keys: TextIO = sys.stdin) -> None:
    """Show the state of policy and learner and act on keys until q is pressed.

    Raises:
        ResidualRLError: there is no terminal to read keys from.
    """
    if not keys.isatty():
        raise ResidualRLError('the operator console needs a terminal; call the services instead')
    domain_id = int(os.environ.get('ROS_DOMAIN_ID') or 0)
    legend = '  '.join(f'[{letter}] {key.label}' for letter, key in KEYS.items())
    last = ''
    with (
        Monitor(domain_id) as monitor,
        Operator(monitor, namespace, fleet, domain_id) as operator,
        _single_keys(keys),
        Live(console=console, auto_refresh=False) as live,
    ):
        while True:
            lines = (Text(f'{legend}  [{QUIT}] quit'), Text(last))
            table = status_table(monitor, watched_nodes(namespace, fleet))
            live.update(Group(table, *lines), refresh=True)
            if not select.select([keys], [], [], 0.5)[0]:
                continue
            letter = keys.read(1)
            if letter in (QUIT, ''):
                return
            last = operator.press(letter) if letter in KEYS else f'{letter!r} does nothing'


@contextmanager
def _single_keys(keys: TextIO) -> Iterator[None]:
    """Deliver keys one by one, without Enter and without echo."""
    descriptor = keys.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
