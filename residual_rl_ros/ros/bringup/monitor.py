# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Listen to `/diagnostics`: what every node has said last, and how long ago."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from residual_rl_ros.ros.common.node_host import Listener

STALE_S = 3.0
"""A status is not believed for longer; nodes report every second by default [s]."""


@dataclass(frozen=True)
class Status:
    """What a node has said of itself."""

    level: bytes
    message: str
    values: dict[str, str]
    received: float
    """When, on the monitor's clock [s]."""


class Monitor(Listener):
    """Keeps the newest diagnostics of every node.

    Args:
        domain_id: ROS domain of the run.
        clock: monotonic time [s].
    """

    def __init__(self, domain_id: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__('monitor', domain_id)
        self._clock = clock
        self._latest: dict[str, Status] = {}
        self._lock = threading.Lock()

    def listen(self) -> None:
        """Subscribe."""
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._receive, 50)

    def other_nodes(self) -> list[str]:
        """Return the names of the nodes of this domain that are not this one."""
        own = self.node.get_name()
        names = self.node.get_node_names()  # Hidden ones, such as the ros2 daemon, do not count.
        return sorted(name for name in names if name != own and not name.startswith('_'))

    def values(self, node: str) -> dict[str, str]:
        """Return the newest diagnostic values of a node, empty before the first.

        Args:
            node: its name with namespace, without the first `/`.
        """
        status = self.status(node)
        return {} if status is None else dict(status.values)

    def number(self, node: str, key: str) -> float:
        """Return one value as a number, 0 before the first."""
        return float(self.values(node).get(key, 0.0))

    def status(self, node: str) -> Status | None:
        """Return the newest status of a node, None before the first; see `age`."""
        with self._lock:
            return self._latest.get(node)

    def age(self, node: str) -> float:
        """Return how long ago a node last said something [s], infinite before the first time."""
        status = self.status(node)
        return math.inf if status is None else self._clock() - status.received

    def is_stale(self, node: str) -> bool:
        """Return whether what a node last said may not be so any more."""
        return self.age(node) > STALE_S

    def errors(self) -> dict[str, str]:
        """Return what each node that reports an error says."""
        return self._said(DiagnosticStatus.ERROR)

    def warnings(self) -> dict[str, str]:
        """Return what each node that reports a warning says."""
        return self._said(DiagnosticStatus.WARN)

    def _said(self, level: bytes) -> dict[str, str]:
        with self._lock:
            latest = list(self._latest.items())
        return {name: status.message for name, status in latest if status.level == level}

    def _receive(self, message: DiagnosticArray) -> None:
        now = self._clock()
        names = {status.name for status in message.status}
        with self._lock:
            for status in message.status:
                if status.name.rpartition('/')[0] in names:
                    continue  # A concern of a node, which has said all of it itself.
                values = {item.key: item.value for item in status.values}
                self._latest[status.name.lstrip('/')] = Status(
                    status.level, status.message, values, now
                )
