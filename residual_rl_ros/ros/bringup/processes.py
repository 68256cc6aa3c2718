# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Start, watch and stop the processes of a run."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.ros.bringup.topology import ENVIRONMENT, NodeSpec

PR_SET_PDEATHSIG = 1
LISTENERS = ('learner_node', 'recorder_node')
"""Nodes that save what the others publish; they are stopped last."""


def ros_environment(domain_id: int) -> dict[str, str]:
    """Return the environment of a run that stays on this machine, in its own domain."""
    return {
        **os.environ,
        **ENVIRONMENT,
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'ROS_DOMAIN_ID': str(domain_id),
    }


class Bringup:
    """A context that leaves no process behind.

    A stop sends SIGINT, after a grace period SIGTERM, after another SIGKILL: an rclpy process
    with a stuck executor ignores the first two. The kernel ends the processes with this one.

    All are stopped at once, except `LISTENERS`, which are stopped when the others have ended.

    Args:
        nodes: what to start, in this order.
        log_dir: one log file a process.
        environment: environment variables of the processes.
        grace_s: time between the signals [s].
        clock: monotonic time [s].
    """

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        log_dir: Path,
        environment: Mapping[str, str],
        grace_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes = nodes
        self._log_dir = log_dir
        self._environment = environment
        self._grace_s = grace_s
        self._clock = clock
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        """Running and ended processes by node name, with namespace."""

    def __enter__(self) -> Bringup:
        """Start every process."""
        try:
            self._log_dir.mkdir(parents=True, exist_ok=True)
            for node in self._nodes:
                with self._log(node.name).open('wb') as log:
                    self.processes[node.name] = subprocess.Popen(
                        [
                            sys.executable,
                            '-m',
                            f'residual_rl_ros.ros.nodes.{node.executable}',
                            *node.ros_arguments(),
                        ],
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        stdin=subprocess.DEVNULL,
                        env=dict(self._environment),
                        # A terminal's Ctrl-C must reach them through `stop` only.
                        start_new_session=True,
                        preexec_fn=_die_with_parent,
                    )
        except OSError as error:
            self.stop()
            raise ResidualRLError(
                f'cannot start a node or write its log in {str(self._log_dir)!r}: {error}'
            ) from error
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
        for node in self._nodes:
            name, code = node.name, self.processes[node.name].poll()
            if code not in (None, 0) or (code == 0 and node.lifecycle):
                found[name] = (
                    f'{name} ended with code {code}: {self._last_line(name)} (log: '
                    f'{self._log(name)})'
                )
        return found

    def ended(self, name: str) -> bool:
        """Return whether the process of a node has ended."""
        return self.processes[name].poll() is not None

    def stop(self) -> None:
        """End every process; safe to call twice.

        Further signals to this process wait: a second Ctrl-C must not cost the learner its save.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        handlers = {}
        for sign in (signal.SIGINT, signal.SIGTERM) if in_main_thread else ():
            handlers[sign] = signal.signal(sign, signal.SIG_IGN)
        try:
            self._stop()
        finally:
            for sign, handler in handlers.items():
                signal.signal(sign, handler)

    def _stop(self) -> None:
        listeners = {node.name for node in self._nodes if node.executable in LISTENERS}
        for last in (False, True):
            self._end([p for name, p in self.processes.items() if (name in listeners) is last])

    def _end(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """End some processes at once."""
        alive = [process for process in processes if process.poll() is None]
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            for process in alive:
                process.send_signal(sign)
            deadline = self._clock() + self._grace_s
            while alive and self._clock() < deadline:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    alive[0].wait(timeout=0.1)
                alive = [process for process in alive if process.poll() is None]

    def _log(self, name: str) -> Path:
        return self._log_dir / f'{name.replace("/", ".")}.log'

    def _last_line(self, name: str) -> str:
        text = self._log(name).read_text(encoding='utf-8', errors='replace')
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else 'it printed nothing'


# Bound here: between fork and exec nothing may be loaded.
_LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None


def _die_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
