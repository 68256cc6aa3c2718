# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Memory that stays: a control step must not wait for a page that was taken away.

Without it the system may reclaim the pages of a process that is busy but small, code that is rarely
used first, and read them from a disk again when a control step needs them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from pathlib import Path

MCL_CURRENT, MCL_FUTURE = 1, 2
"""What `mlockall` locks: the pages there are, and those to come (sys/mman.h)."""
CAP_IPC_LOCK = 14
"""The capability that no limit on locked memory holds for (linux/capability.h)."""


def lock_memory() -> None:
    """Keep all memory of this process where it is, and what it asks for later.

    A limit on locked memory that could be reached later is refused now: an allocation while the
    robot moves would fail by it.

    Raises:
        OSError: the user may not lock memory without a limit, or there is too little.
    """
    limit = memory_lock_limit()
    if limit != resource.RLIM_INFINITY:
        raise PermissionError(errno.EPERM, f'limited to {limit} bytes')
    _call('mlockall', MCL_CURRENT | MCL_FUTURE)


def memory_lock_limit() -> int:
    """Return how much memory this process may lock [byte], RLIM_INFINITY for all of it."""
    _, limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))  # The soft limit may be lower.
        return limit
    status = Path('/proc/self/status').read_text(encoding='ascii')
    capabilities = int(status.split('CapEff:')[1].split()[0], 16)
    return resource.RLIM_INFINITY if capabilities >> CAP_IPC_LOCK & 1 else limit


def unlock_memory() -> None:
    """Let the system take pages of this process again."""
    _call('munlockall')


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library that returns 0 or sets errno."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
