# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Listen to `/diagnostics`, and reserve a ROS domain that no other run on this machine uses."""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from residual_rl_ros.errors import ResidualRLError


class Monitor:
    """Keeps the newest diagnostics of every node.

    Args:
        domain_id: ROS domain of the run.
    """

    def __init__(self, domain_id: int) -> None:
        self._context = Context()
        self._domain_id = domain_id
        self._values: dict[str, dict[str, str]] = {}
        self._errors: dict[str, str] = {}
        self._warnings: dict[str, str] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Monitor:
        """Subscribe in a thread of its own."""
        rclpy.init(context=self._context, domain_id=self._domain_id)
        self._node = rclpy.create_node('monitor', context=self._context)
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._receive, 50)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name='monitor', daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unsubscribe."""
        self._executor.shutdown(timeout_sec=1.0)
        self._thread.join(timeout=2.0)
        self._node.destroy_node()
        self._context.try_shutdown()

    def other_nodes(self) -> list[str]:
        """Return the names of the nodes of this domain that are not this one."""
        own = self._node.get_name()
        names = self._node.get_node_names()  # Hidden ones, such as the ros2 daemon, do not count.
        return sorted(name for name in names if name != own and not name.startswith('_'))

    def values(self, node: str) -> dict[str, str]:
        """Return the newest diagnostic values of a node, empty before the first.

        Args:
            node: its name with namespace, without the first `/`.
        """
        with self._lock:
            return dict(self._values.get(node, {}))

    def number(self, node: str, key: str) -> float:
        """Return one value as a number, 0 before the first."""
        return float(self.values(node).get(key, 0.0))

    def errors(self) -> dict[str, str]:
        """Return what each node that reports an error says."""
        with self._lock:
            return dict(self._errors)

    def warnings(self) -> dict[str, str]:
        """Return what each node that reports a warning says."""
        with self._lock:
            return dict(self._warnings)

    def _receive(self, message: DiagnosticArray) -> None:
        with self._lock:
            for status in message.status:
                name = status.name.lstrip('/')
                self._values[name] = {item.key: item.value for item in status.values}
                for level, said in (
                    (DiagnosticStatus.ERROR, self._errors),
                    (DiagnosticStatus.WARN, self._warnings),
                ):
                    said.pop(name, None)
                    if status.level == level:
                        said[name] = status.message

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return


HIGHEST_DOMAIN = 232
"""Highest domain there is."""
LAST_DOMAIN = 101
"""Highest domain whose ports stay below Linux's ephemeral range."""
DISCOVERY_S = 1.5
"""How long to listen for nodes of others."""


@contextmanager
def claim_domain() -> Iterator[int]:
    """Reserve a domain for one run.

    It is that of `ROS_DOMAIN_ID` if set, otherwise a free one. Runs of this package exclude each
    other with a lock file; other nodes are discovered.

    Raises:
        ResidualRLError: the domain of `ROS_DOMAIN_ID` is in use or no number, or none is free.
    """
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    wanted = os.environ.get('ROS_DOMAIN_ID', '')
    if wanted:
        if not (wanted.isascii() and wanted.isdigit() and int(wanted) <= HIGHEST_DOMAIN):
            raise ResidualRLError(
                f'ROS_DOMAIN_ID is {wanted!r}, expected a number from 0 to {HIGHEST_DOMAIN}'
            )
        candidates = [int(wanted)]
    else:
        candidates = random.SystemRandom().sample(range(1, LAST_DOMAIN + 1), LAST_DOMAIN)
    reason = ''
    for domain_id in candidates:
        path = Path(tempfile.gettempdir()) / f'residual_rl_ros_domain_{domain_id}.lock'
        with path.open('w', encoding='utf-8') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                reason = 'another run of residual_rl_ros'
                continue
            others = _nodes_in(domain_id)
            if others:
                reason = f'nodes {", ".join(others)}'
                continue
            yield domain_id
            return
    raise ResidualRLError(
        f'ROS domain {wanted or "1 to 101"} is occupied by {reason}; stop it, or set '
        'ROS_DOMAIN_ID to a free number'
    )


def _nodes_in(domain_id: int) -> list[str]:
    """Return the nodes that are discovered within the discovery time."""
    with Monitor(domain_id) as monitor:
        deadline = time.monotonic() + DISCOVERY_S
        while time.monotonic() < deadline:
            others = monitor.other_nodes()
            if others:
                return others
            time.sleep(0.1)
    return []
