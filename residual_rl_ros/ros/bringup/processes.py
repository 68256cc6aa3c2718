# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Start, watch and stop the processes of a run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.ros.bringup.node_spec import ENVIRONMENT, NodeSpec
from residual_rl_ros.ros.common.process import (
    ACTIVE_LIMIT_S,
    EXIT_LIMIT_S,
    PARENT,
    SAVE_LIMIT_S,
    stop_signals,
)

LISTENERS = ('learner_node', 'recorder_node')
"""Nodes that save what the others publish; they are stopped last."""
SAVING_S, STOPPING_S = SAVE_LIMIT_S + EXIT_LIMIT_S, ACTIVE_LIMIT_S + EXIT_LIMIT_S
"""Time from SIGINT to SIGTERM in which a listener, or another node, ends by itself [s]."""
KILL_S = 5.0
"""Time from SIGTERM to SIGKILL [s]: nothing that ends by itself comes so far."""
BAD_INPUT = 2
"""Exit code of a node that refuses what it was given."""
RESTARTS = 3
RESTART_WINDOW_S = 600.0
"""A learner that dies is started again, this often at most in this time [s]."""


class Restarts:
    """Says whether a learner that has ended is started again.

    Args:
        clock: monotonic time [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: list[float] = []

    def take(self, code: int) -> str:
        """Use up a restart after an end with this exit code.

        Returns:
            Which one it is; empty if the node was told to end, refused its input or dies too
            often.
        """
        now = self._clock()
        self._times = [time for time in self._times if now - time < RESTART_WINDOW_S]
        if code in (0, BAD_INPUT) or len(self._times) >= RESTARTS:
            return ''
        self._times.append(now)
        minutes = RESTART_WINDOW_S / 60.0
        return f'started again ({len(self._times)} of {RESTARTS} times in {minutes:g} minutes)'


def ros_environment(domain_id: int) -> dict[str, str]:
    """Return the environment of a run that stays on this machine, in its own domain."""
    return {
        **os.environ,
        **ENVIRONMENT,
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'ROS_DOMAIN_ID': str(domain_id),
    }


@dataclass
class _Started:
    """A node that was started."""

    node: NodeSpec
    process: subprocess.Popen[bytes]
    log_start: int
    """Where in its log file what it prints begins; before it is what earlier ones printed."""
    asked: bool = False
    """Whether it was asked to stop."""


class Bringup:
    """A context that leaves no process behind.

    A stop sends SIGINT, after the time in which a node ends by itself SIGTERM, then SIGKILL: an
    rclpy process with a stuck executor ignores the first two. If this process dies itself, each
    node gets SIGTERM; so does it if the thread ends that started it.

    All are stopped at once, except `LISTENERS`, which are stopped when the others have ended.

    Args:
        nodes: what to start, in this order.
        log_dir: one log file a process; what is there already stays.
        environment: environment variables of the processes.
        clock: monotonic time [s].
    """

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        log_dir: Path,
        environment: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes = nodes
        self._log_dir = log_dir
        self._environment = environment
        self._clock = clock
        self._started: dict[str, _Started] = {}

    @property
    def processes(self) -> dict[str, subprocess.Popen[bytes]]:
        """Running and ended processes by node name, with namespace."""
        return {name: started.process for name, started in self._started.items()}

    def __enter__(self) -> Bringup:
        """Start every process."""
        try:
            for node in self._nodes:
                self.start(node)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop every process."""
        self.stop()

    def start(self, node: NodeSpec) -> None:
        """Start a node, or once more one that has ended; its log is continued.

        Raises:
            ResidualRLError: it cannot be started, or its log not be written.
        """
        command = [sys.executable, '-m', f'residual_rl_ros.ros.nodes.{node.executable}']
        path = self._log(node.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open('ab') as log:
                if log.tell():
                    log.write(f'--- started again, {time.strftime("%F %T")}\n'.encode())
                    log.flush()
                start = log.tell()
                process = subprocess.Popen(
                    [*command, *node.ros_arguments()],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env={**self._environment, PARENT: str(os.getpid())},
                    # A terminal's Ctrl-C must reach them through `stop` only.
                    start_new_session=True,
                )
        except OSError as error:
            raise ResidualRLError(
                f'cannot start a node or write its log in {str(self._log_dir)!r}: {error}'
            ) from error
        self._started[node.name] = _Started(node, process, start)

    def check(self) -> None:
        """Look for a process that ended.

        Raises:
            ResidualRLError: one ended with an error, or a lifecycle node ended at all; the message
                ends with its last log line.
        """
        for reason in self.failures().values():
            raise ResidualRLError(reason)

    def failures(self) -> dict[str, str]:
        """Return a message for every process that ended on its own, by node name."""
        found = {}
        for name, started in self._started.items():
            code = started.process.poll()
            if started.asked or code is None or (code == 0 and not started.node.lifecycle):
                continue
            found[name] = (
                f'{name} {_ended_with(code)} {self._last_line(started)} (log: {self._log(name)})'
            )
        return found

    def ended(self, name: str) -> bool:
        """Return whether the process of a node has ended."""
        return self._started[name].process.poll() is not None

    def ask_to_stop(self, names: Iterable[str]) -> None:
        """Ask some nodes to stop, without waiting; their end is no failure then."""
        for name in names:
            started = self._started[name]
            if started.process.poll() is None:
                started.asked = True
                started.process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """End every process; safe to call twice.

        Further signals to this process wait: a second Ctrl-C must not cost the learner its save.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        handlers = {}
        for sign in stop_signals() if in_main_thread else ():
            handlers[sign] = signal.signal(sign, signal.SIG_IGN)
        try:
            self._stop()
        finally:
            for sign, handler in handlers.items():
                signal.signal(sign, handler)

    def _stop(self) -> None:
        for saves, limit_s in ((False, STOPPING_S), (True, SAVING_S)):
            processes = [
                started.process
                for started in self._started.values()
                if (started.node.executable in LISTENERS) is saves
            ]
            self._end(processes, limit_s)

    def _end(self, processes: Sequence[subprocess.Popen[bytes]], limit_s: float) -> None:
        """End some processes at once, which have so long to do so by themselves [s]."""
        alive = [process for process in processes if process.poll() is None]
        waits = {signal.SIGINT: limit_s, signal.SIGTERM: KILL_S, signal.SIGKILL: KILL_S}
        for sign, wait_s in waits.items():
            for process in alive:
                process.send_signal(sign)
            deadline = self._clock() + wait_s
            while alive and self._clock() < deadline:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    alive[0].wait(timeout=0.1)
                alive = [process for process in alive if process.poll() is None]

    def _log(self, name: str) -> Path:
        return self._log_dir / f'{name.replace("/", ".")}.log'

    def _last_line(self, started: _Started) -> str:
        with self._log(started.node.name).open('rb') as log:
            log.seek(started.log_start)
            text = log.read().decode(errors='replace')
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else 'it printed nothing'


def _ended_with(code: int) -> str:
    """Return how a process ended, before the last line of its log.

    What it said before a signal ended it is no reason, and may be old.
    """
    if code >= 0:
        return f'ended with code {code}:'
    return f'ended with code {code} ({signal.Signals(-code).name}); its log ends with:'
