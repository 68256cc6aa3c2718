# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the processes beside a robot where there is no `ros2 launch`: `residual-rl up`."""

from __future__ import annotations

import multiprocessing
import os
import re
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from residual_rl_ros.base_policy.onnx_policy import metadata_of, read_policy_model
from residual_rl_ros.base_policy.robot_fit import columns_for
from residual_rl_ros.config import DEFAULT_PRESET, find_preset
from residual_rl_ros.control.composition import ResidualBound
from residual_rl_ros.control.reward import SuccessClassifier, load_function
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import ENVIRONMENT, NodeSpec, dependants
from residual_rl_ros.ros.bringup.processes import Bringup, Restarts
from residual_rl_ros.ros.bringup.topology import RobotRun, latest, resumed
from residual_rl_ros.ros.common.managed_node import OK
from residual_rl_ros.ros.common.node_host import ros_domain

LOOK_PERIOD_S = 0.2
"""How often the processes are looked at [s]."""
REPORT_PERIOD_S = 30.0
"""Without a terminal: how often the state of every node is printed [s]."""
SHOWN = {
    'policy_node': (
        *('active', 'episode', 'stops', 'waits_to_start', 'preparing', 'held', 'takeover'),
        *(
            'residual_on',
            'residual_switch',
            'epoch',
            'transitions',
            'holds',
            'overruns',
            'late_chunks',
            'clamped',
        ),
        *('slew_limited', 'robot_minutes', 'takeovers', 'operator_minutes'),
    ),
    'recorder_node': ('messages',),
    'reward_node': ('asked', 'answered', 'successes'),
    'takeover_node': ('takeover_state', 'takeovers'),
    'learner_node': (
        *('phase', 'paused', 'episodes', 'success_recent', 'updates', 'queue', 'missing'),
        'rollbacks',
    ),
}
"""Diagnostics that are shown while the robot moves."""
TOLD = {
    'policy_node': (
        *('active', 'stops', 'waits_to_start', 'preparing', 'held', 'takeover', 'residual_on'),
        *('residual_switch', 'epoch'),
    ),
    'takeover_node': ('takeover_state',),
    'learner_node': ('phase', 'paused', 'rollbacks'),
}
"""Diagnostics of which each change is told where there is no terminal."""


def check_before(run: RobotRun, nodes: Sequence[NodeSpec], console: Console) -> None:
    """Refuse what a node would refuse when the others have started already.

    Args:
        run: what is to run.
        nodes: its nodes, as `robot_topology` returns them.
        console: is told what is unusual.

    Raises:
        ResidualRLError: base policy, robot and residual do not fit, or a number of the learner is
            wrong.
    """
    robot, _ = load_robot(str(run.robot_file))
    metadata = metadata_of(read_policy_model(run.base_policy))
    columns_for(metadata, robot, run.base_policy.name)
    policy = next(node for node in nodes if node.executable == 'policy_node')
    scale = policy.parameters['residual_scale']
    ResidualBound.from_metadata(metadata, scale, robot.action.is_discrete)
    if run.preset:
        find_preset(run.preset)
    # In a process that ends: this one would keep their memory, 130 MB of torch alone.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, context, _ignore_interrupts) as pool:
        for learner in (node.parameters for node in nodes if node.executable == 'learner_node'):
            pool.submit(_check_learner, dict(learner), run.proposals).result()
        if run.classifier is not None or run.reward:
            names = robot.observation_names
            pool.submit(_check_judge, run.classifier, run.reward, names).result()
    # What chooses among proposals may need the whole range, which is 2.
    if max(scale) > 1.0 and run.proposals == 1 and not robot.action.is_discrete:
        console.print(
            f'[yellow]warning:[/] residual_scale is {escape(str(scale))}: a residual may move a '
            'command by more than half of the range that the base policy was trained on; 0.05 to '
            '0.3 are usual',
            soft_wrap=True,
        )


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the process that waits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check_judge(classifier: Path | None, function: str, observation_names: Sequence[str]) -> None:
    """Refuse a classifier or reward function that cannot be used."""
    if classifier is not None:
        SuccessClassifier(classifier, observation_names)
    if function:
        load_function(function, observation_names)


def _check_learner(learner: Mapping[str, Any], proposals: int) -> None:
    """Refuse parameters of a learner node whose numbers, or demonstrations, are wrong."""
    from residual_rl_ros.demonstrations.source import Recordings
    from residual_rl_ros.learner.checkpoint import numbers

    resumed = latest(Path(learner['output_dir'])) if learner['resume'] else None
    config = numbers(learner['preset'], learner['overrides'], resumed)
    config.check_proposals(proposals)
    recordings = Recordings(tuple(map(Path, learner.get('demonstrations', ()))))
    recordings.check(learner['preset'] or DEFAULT_PRESET, config.rule.samples_demonstrations)


def run_up(nodes: Sequence[NodeSpec], log_dir: Path, console: Console) -> None:
    """Start the nodes in the ROS domain of the environment and show their state until Ctrl-C.

    A robot goes on without its learner, which is started again, and without its judge and its
    recorder; a fleet without one of its robots.

    Raises:
        ResidualRLError: every policy node ended on its own; the message is that of the last.
        KeyboardInterrupt: after Ctrl-C, or when the terminal has closed, when every process has
            ended.
    """
    domain_id = ros_domain()
    environment = {**os.environ, **ENVIRONMENT}
    names = [node.name for node in nodes]
    with Monitor(domain_id) as monitor, Bringup(nodes, log_dir, environment) as bringup:
        events = Events(monitor, names)
        supervisor = Supervisor(nodes, bringup)
        with _table(console, lambda: status_table(monitor, names, supervisor.ended)):
            while not _has_closed(console):
                said = supervisor.look()
                if not console.is_terminal:
                    said += events.news(time.monotonic())
                for line in said:
                    console.print(f'{time.strftime("%T")} {escape(line)}', soft_wrap=True)
                time.sleep(LOOK_PERIOD_S)
    raise KeyboardInterrupt


def _table(console: Console, make: Callable[[], Table]) -> AbstractContextManager[object]:
    """Return what draws a table again and again, if there is a terminal."""
    if not console.is_terminal:
        return nullcontext()
    return Live(console=console, refresh_per_second=2.0, get_renderable=make)


class Supervisor:
    """Reacts to the death of a process, so that one death costs one thing.

    Args:
        nodes: what was started.
        bringup: their processes.
        restarts: says whether a learner is started again.
    """

    def __init__(
        self, nodes: Sequence[NodeSpec], bringup: Bringup, restarts: Restarts | None = None
    ) -> None:
        self._nodes = nodes
        self._bringup = bringup
        self._restarts = restarts or Restarts()
        self.ended: dict[str, str] = {}
        """What is to be said of the nodes that have ended for good."""

    def look(self) -> list[str]:
        """Look for new deaths and react; return what is to be said of it.

        Raises:
            ResidualRLError: every policy has ended.
        """
        said = []
        failures = self._bringup.failures()
        for node in self._nodes:
            if node.name not in failures or node.name in self.ended:
                continue
            reason = failures[node.name]
            if node.executable == 'learner_node':
                again = self._restarts.take(self._bringup.processes[node.name].returncode)
                if again:
                    self._bringup.start(resumed(node))
                    said.append(f'{reason}: {again}')
                    continue
                reason += '; the robot goes on without it'
            elif node.executable == 'policy_node':
                followers = [follower.name for follower in dependants(node, self._nodes)]
                self._bringup.ask_to_stop(followers)
                self.ended |= dict.fromkeys(followers, f'stopped: {node.name} has ended')
                reason += ''.join(f'; {name} stops too' for name in followers)
            self.ended[node.name] = reason
            said.append(reason)
        policies = [node.name for node in self._nodes if node.executable == 'policy_node']
        if all(name in self.ended for name in policies):
            raise ResidualRLError(failures[policies[-1]])
        return said


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
            keys = TOLD.get(node.rsplit('/', 1)[-1], ())
            texts = (status.message, *(status.values.get(key, '') for key in keys))
            said = stale, status.level, *map(_lasting, texts)
            if due or said != before:
                self._told[node] = said
                lines.append(f'{node}: {describe(self._monitor, node)}')
        return lines


def _lasting(text: str) -> str:
    """Return a count as it is, and a sentence without numbers: an age in it grows."""
    return text if text.isdecimal() else re.sub('[0-9]+', '', text)


def _has_closed(console: Console) -> bool:
    """Return whether nobody can read any more: an SSH connection without a terminal has ended."""
    poll = select.poll()
    poll.register(console.file, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


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


def describe(monitor: Monitor, node: str) -> str:
    """Return what a node has said last, and how long ago, if that is no more to be believed."""
    status, age = monitor.status(node), monitor.age(node)
    if status is None:
        return 'nothing heard yet'
    shown = SHOWN.get(node.rsplit('/', 1)[-1], ())
    state = ', '.join(
        f'{key} {readable(key, status.values[key])}' for key in shown if status.values.get(key)
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
