# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Real-time priority and locked memory for the control loop, and how a learner gives way."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

SWITCH_INTERVAL_S = 0.0005
"""A thread that infers a chunk or reads weights gives the interpreter to a control step after this
time, while it runs; Python's own 5 ms are a whole step at 200 Hz."""
REAL_TIME = (os.SCHED_FIFO, os.SCHED_RR)


def go_first(priority: int) -> bool:
    """Give this thread real-time priority (SCHED_FIFO), unless it was started with one.

    Threads that it starts stay at normal priority: inference must not hold it up.

    Args:
        priority: 1 to 99; 0 leaves the scheduling as it is.

    Returns:
        Whether it has it now, so that `step_back` is due.

    Raises:
        OSError: the user may not have it, or the system has none.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if not priority or os.sched_getscheduler(0) in REAL_TIME:
        return False
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    return True


def step_back() -> None:
    """Return to normal scheduling."""
    os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))


def give_way(niceness: int) -> None:
    """Lower the priority of this thread, and of no other of its process.

    Args:
        niceness: 0 to 19; a process that is nicer already stays so.
    """
    niceness = max(niceness, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


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


LIMITS = '/etc/security/limits.conf'


def take_privileges(
    realtime_priority: int, keep_memory: bool, warn: Callable[[str], object]
) -> ExitStack:
    """Take what the user may have for this thread and its process, and warn of the rest.

    Args:
        realtime_priority: SCHED_FIFO priority, 1 to 99; 0 is normal scheduling.
        keep_memory: lock all memory of the process.
        warn: called with what was refused, and what to do about it.

    Returns:
        Gives everything back when it is closed, by the same thread.
    """
    taken = ExitStack()
    try:
        if go_first(realtime_priority):
            taken.callback(step_back)
    except OSError as error:
        warn(
            f'realtime_priority {realtime_priority}: {error.strerror}; control runs at normal '
            f'priority: add "<user> - rtprio {realtime_priority}" to {LIMITS}, or set it to 0'
        )
    if keep_memory:
        try:
            lock_memory()
            taken.callback(unlock_memory)
        except OSError as error:
            warn(
                f'lock_memory: {error.strerror}; a control step can wait for memory that was taken '
                f'away: add "<user> - memlock unlimited" to {LIMITS}, or set it to false'
            )
    return taken
