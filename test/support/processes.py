# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Look at and wait for the processes of a test."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

OWNER = 'RESIDUAL_RL_ROS_TESTS'
"""Variable by which a process and all that it starts belong to one process that tests."""


def node_processes() -> set[int]:
    """Return the ids of the node processes that this process and its children have started."""
    mine = f'{OWNER}={os.environ[OWNER]}'.encode()
    found = set()
    for entry in Path('/proc').iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / 'cmdline').read_bytes().decode(errors='replace')
            environment = (entry / 'environ').read_bytes().split(b'\0')
        except OSError:
            continue
        if 'residual_rl_ros.ros.nodes.' in command and '_node' in command and mine in environment:
            found.add(int(entry.name))
    return found


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until a condition holds, or fail saying what did not happen."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f'{what} did not happen within {timeout_s} s'
        time.sleep(0.05)
