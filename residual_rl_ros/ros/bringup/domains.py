# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Reserve a ROS domain that no other run on this machine uses."""

from __future__ import annotations

import fcntl
import os
import random
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.common.node_host import HIGHEST_DOMAIN, ros_domain

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
