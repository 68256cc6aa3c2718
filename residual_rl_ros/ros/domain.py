# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Choose a ROS domain that nobody on this machine uses."""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.ros.monitor import Monitor

HIGHEST_DOMAIN = 232
"""Highest domain there is."""
LAST_DOMAIN = 101
"""Highest domain whose ports stay below Linux's ephemeral range."""
DISCOVERY_S = 1.5
"""How long to listen for nodes of others."""


class DomainError(ResidualRLError):
    """The wanted ROS domain is in use."""


@contextmanager
def claim_domain() -> Iterator[int]:
    """Hold a domain for one run.

    `ROS_DOMAIN_ID`, where it is set, is taken at its word; otherwise a free one is found. Runs of
    this package exclude each other with a lock file, others are discovered.

    Raises:
        DomainError: the domain of `ROS_DOMAIN_ID` is in use or no number, or none is free.
    """
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    wanted = os.environ.get('ROS_DOMAIN_ID', '')
    if wanted:
        if not (wanted.isascii() and wanted.isdigit() and int(wanted) <= HIGHEST_DOMAIN):
            raise DomainError(
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
    raise DomainError(
        f'ROS domain {wanted or "1 to 101"} is occupied by {reason}; stop it, or set '
        'ROS_DOMAIN_ID to a free number'
    )


def _nodes_in(domain_id: int) -> list[str]:
    """Return the nodes that show up within the discovery time."""
    with Monitor(domain_id) as monitor:
        deadline = time.monotonic() + DISCOVERY_S
        while time.monotonic() < deadline:
            others = monitor.other_nodes()
            if others:
                return others
            time.sleep(0.1)
    return []
