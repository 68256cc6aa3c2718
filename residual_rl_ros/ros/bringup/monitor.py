# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Listen to `/diagnostics`, and reserve a ROS domain that no other run on this machine uses."""

from __future__ import annotations

import fcntl
import math
import os
import random
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.ros.common.node_host import HIGHEST_DOMAIN, Listener, ros_domain

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


LAST_DOMAIN = 101
"""Highest domain whose ports stay below Linux's ephemeral range."""
DISCOVERY_S = 1.5
"""How long to listen for nodes of others."""
DISCOVERY_RANGE = 'ROS_AUTOMATIC_DISCOVERY_RANGE'


@contextmanager
def claim_domain(wanted: int | None = None) -> Iterator[int]:
    """Reserve a domain for one run, in which this process stays on this machine.

    Args:
        wanted: the domain; None takes a free one, whatever `ROS_DOMAIN_ID` says: that is where a
            robot may be.

    Raises:
        ResidualRLError: the domain is in use, or none is free.
    """
    with this_machine_only(), reserve_domain(wanted) as domain_id:
        yield domain_id


@contextmanager
def this_machine_only() -> Iterator[None]:
    """Let what this process opens meanwhile discover nothing beyond this machine."""
    before = os.environ.get(DISCOVERY_RANGE)
    os.environ[DISCOVERY_RANGE] = 'LOCALHOST'
    try:
        yield
    finally:
        if before is None:
            del os.environ[DISCOVERY_RANGE]
        else:
            os.environ[DISCOVERY_RANGE] = before


@contextmanager
def reserve_domain(wanted: int | None) -> Iterator[int]:
    """Reserve a domain; runs of this package use a lock file, other nodes are discovered.

    Raises:
        ResidualRLError: as `claim_domain`, or `ROS_DOMAIN_ID` is no number.
    """
    ros_domain()  # A mistake there is said, though it decides nothing here.
    candidates = [wanted] if wanted is not None else free_order()
    reason = ''
    for domain_id in candidates:
        with _lock_file(domain_id) as taken_by:
            others = [] if taken_by else _nodes_in(domain_id)
            if not taken_by and not others:
                yield domain_id
                return
            reason = taken_by or f'nodes {", ".join(others)}'
    raise ResidualRLError(
        f'ROS domain {f"1 to {LAST_DOMAIN}" if wanted is None else wanted} is occupied by '
        f'{reason}; stop it, or choose a free number from 0 to {HIGHEST_DOMAIN}'
    )


def free_order() -> list[int]:
    """Return the domains of which a free one is taken, in random order, without the shell's."""
    domains = random.SystemRandom().sample(range(1, LAST_DOMAIN + 1), LAST_DOMAIN)
    return [domain for domain in domains if str(domain) != os.environ.get('ROS_DOMAIN_ID')]


@contextmanager
def _lock_file(domain_id: int) -> Iterator[str]:
    """Hold the lock of a domain, if it is free.

    The folder is everybody's: what lies there under this name may be a link to any file, or belong
    to another user. Nothing is written.

    Yields:
        Who has it instead, or what is wrong with it; empty if it is held.
    """
    path = Path(tempfile.gettempdir()) / f'residual_rl_ros_domain_{domain_id}.lock'
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        yield f'{str(path)!r}, which is not a lock file of this user ({error.strerror})'
        return
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            yield f'{str(path)!r}, which is not a lock file of this user'
            return
        os.fchmod(descriptor, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield 'another run of residual_rl_ros'
            return
        yield ''
    finally:
        os.close(descriptor)


def _nodes_in(domain_id: int) -> list[str]:
    """Return the nodes of this machine that are discovered within the discovery time."""
    with this_machine_only(), Monitor(domain_id) as monitor:
        deadline = time.monotonic() + DISCOVERY_S
        while time.monotonic() < deadline:
            others = monitor.other_nodes()
            if others:
                return others
            time.sleep(0.1)
    return []
