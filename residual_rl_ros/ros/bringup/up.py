# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the processes beside a robot where there is no `ros2 launch`: `residual-rl up`."""

from __future__ import annotations

import multiprocessing
import os
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
from residual_rl_ros.ros.bringup.status import Events, status_table
from residual_rl_ros.ros.bringup.topology import RobotRun, latest, resumed
from residual_rl_ros.ros.common.node_host import ros_domain

LOOK_PERIOD_S = 0.2
"""How often the processes are looked at [s]."""


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


def _has_closed(console: Console) -> bool:
    """Return whether nobody can read any more: an SSH connection without a terminal has ended."""
    poll = select.poll()
    poll.register(console.file, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
