# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which thread goes first on a computer that controls, infers and learns at once."""

from __future__ import annotations

import os
import sys
import threading

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
