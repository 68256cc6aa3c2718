# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the nodes of a run say of themselves, in words for a person."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.common.managed_node import OK

REPORT_PERIOD_S = 30.0
"""Without a terminal: how often the state of every node is printed [s]."""
SHOWN = {
    'policy_node': (
        'active',
        'episode',
        'stops',
        'waits_to_start',
        'preparing',
        'held',
        'takeover',
        'residual_on',
        'residual_switch',
        'epoch',
        'transitions',
        'holds',
        'overruns',
        'late_chunks',
        'clamped',
        'slew_limited',
        'robot_minutes',
        'takeovers',
        'operator_minutes',
    ),
    'recorder_node': ('messages',),
    'reward_node': ('asked', 'answered', 'successes'),
    'takeover_node': ('takeover_state', 'takeovers'),
    'learner_node': (
        'phase',
        'paused',
        'episodes',
        'success_recent',
        'updates',
        'queue',
        'missing',
        'rollbacks',
    ),
}
"""Diagnostics that are shown while the robot moves."""
EVENTS = frozenset(
    {
        'active',
        'stops',
        'waits_to_start',
        'preparing',
        'held',
        'takeover',
        'residual_on',
        'residual_switch',
        'epoch',
        'takeover_state',
        'phase',
        'paused',
        'rollbacks',
    }
)
"""Of these, the ones of which each change is told where there is no terminal."""


class Events:
    """Tells what happens to nodes in lines, for a log.

    Args:
        monitor: listens to the diagnostics.
        nodes: names of the nodes, with namespaces.
    """

    def __init__(self, monitor: Monitor, nodes: Sequence[str]) -> None:
        self._monitor = monitor
        self._told: dict[str, tuple[object, ...]] = dict.fromkeys(nodes, ())
        self._reported = -REPORT_PERIOD_S

    def news(self, now: float) -> list[str]:
        """Return a line for each node whose state has changed, or of all when it is time.

        Args:
            now: monotonic time [s].
        """
        due = now - self._reported >= REPORT_PERIOD_S
        if due:
            self._reported = now
        lines = []
        for node, before in self._told.items():
            status, stale = self._monitor.status(node), self._monitor.is_stale(node)
            if status is None:
                continue
            keys = [key for key in _shown(node) if key in EVENTS]
            texts = (status.message, *(status.values.get(key, '') for key in keys))
            said = stale, status.level, *map(_lasting, texts)
            if due or said != before:
                self._told[node] = said
                lines.append(f'{node}: {describe(self._monitor, node)}')
        return lines


def _lasting(text: str) -> str:
    """Return a count as it is, and a sentence without numbers: an age in it grows."""
    return text if text.isdecimal() else re.sub('[0-9]+', '', text)


def status_table(
    monitor: Monitor, nodes: Sequence[str], ended: Mapping[str, str] | None = None
) -> Table:
    """Return the state of every node with its age, and its latest warning.

    Args:
        monitor: listens to the diagnostics.
        nodes: names of the nodes, with namespaces.
        ended: messages about nodes that have ended.
    """
    table = Table(show_header=False)
    for node in nodes:
        reason = (ended or {}).get(node)
        text = f'[red]{escape(reason)}[/]' if reason else escape(describe(monitor, node))
        if not reason and monitor.is_stale(node) and monitor.status(node) is not None:
            text = f'[bold red]{text}[/]'
        table.add_row(node, text)
    return table


def _shown(node: str) -> tuple[str, ...]:
    """Return the diagnostics that are shown of a node, by its name with namespace."""
    return SHOWN.get(node.rsplit('/', 1)[-1], ())


def describe(monitor: Monitor, node: str) -> str:
    """Return what a node has said last, and how long ago, if that is no more to be believed."""
    status, age = monitor.status(node), monitor.age(node)
    if status is None:
        return 'nothing heard yet'
    state = ', '.join(
        f'{key} {readable(key, status.values[key])}'
        for key in _shown(node)
        if status.values.get(key)
    )
    if status.level != OK:
        state = f'{status.message} ({state})'
    if monitor.is_stale(node):
        return f'NOTHING HEARD FOR {age:.0f} s; it was: {state}'
    return f'{state} ({age:.1f} s ago)'


def readable(key: str, value: str) -> str:
    """Return a diagnostic value as a person reads it."""
    if key == 'success_recent':
        return 'unknown' if float(value) < 0.0 else f'{float(value):.0%}'
    return value
