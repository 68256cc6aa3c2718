# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the processes beside a robot where there is no `ros2 launch`: `residual-rl up`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup
from residual_rl_ros.ros.bringup.topology import ENVIRONMENT, NodeSpec

STATUS_PERIOD_S = 1.0
SHOWN = {
    'policy_node': (
        *('active', 'episode', 'held', 'takeover', 'residual_on', 'epoch', 'sequence'),
        *('transitions', 'holds', 'overruns', 'late_chunks', 'clamped', 'slew_limited'),
    ),
    'recorder_node': ('messages',),
    'reward_node': ('asked', 'answered', 'successes'),
    'learner_node': (
        *('phase', 'paused', 'episodes', 'success_recent', 'updates', 'queue', 'missing'),
        'rollbacks',
    ),
}
"""Diagnostics that are shown while the robot moves."""


def run_up(nodes: Sequence[NodeSpec], log_dir: Path, console: Console) -> None:
    """Start the nodes in the current ROS domain and show their state until Ctrl-C.

    A robot goes on without its learner, and a fleet without one of its robots.

    Raises:
        ResidualRLError: every policy node ended on its own; the message is that of the last.
        KeyboardInterrupt: after Ctrl-C, when every process has ended.
    """
    environment = {**os.environ, **ENVIRONMENT}
    with (
        Monitor(int(os.environ.get('ROS_DOMAIN_ID') or 0)) as monitor,
        Bringup(nodes, log_dir, environment) as bringup,
        Live(console=console, refresh_per_second=2.0) as live,
    ):
        names = [node.name for node in nodes]
        policies = {node.name for node in nodes if node.executable == 'policy_node'}
        while True:
            failures = bringup.failures()
            if policies <= failures.keys():
                raise ResidualRLError(failures[max(policies)])
            live.update(status_table(monitor, names, failures))
            time.sleep(STATUS_PERIOD_S)


def status_table(
    monitor: Monitor, nodes: Sequence[str], failures: Mapping[str, str] | None = None
) -> Table:
    """Return the state of every node, and its latest warning.

    Args:
        monitor: listens to the diagnostics.
        nodes: names of the nodes, with namespaces.
        failures: messages about nodes that have ended.
    """
    table = Table(show_header=False)
    errors = {**monitor.errors(), **(failures or {})}
    warnings = monitor.warnings()
    for node in nodes:
        values, shown = monitor.values(node), SHOWN[node.rsplit('/', 1)[-1]]
        state = ', '.join(f'{key} {values[key]}' for key in shown if key in values)
        text = escape(errors.get(node) or state or 'starting')
        if node in warnings:
            text += f'\n[yellow]{escape(warnings[node])}[/]'
        table.add_row(node, text)
    return table
