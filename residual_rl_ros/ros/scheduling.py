# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which thread goes first on a computer that controls, infers and learns at once."""

from __future__ import annotations

import os
import sys
import threading

SWITCH_INTERVAL_S = 0.0005
"""A thread that infers a chunk or reads weights gives way to a control step after this time;
Python's own 5 ms are a whole step at 200 Hz."""


def go_first(priority: int) -> None:
    """Give this thread real-time priority (SCHED_FIFO), and this process's others one less.

    They infer chunks and read weights, and share the interpreter's lock: one that holds it and is
    not run would hold up this thread. Threads of the middleware and later ones stay as they are.

    Args:
        priority: 2 to 99; 0 leaves the scheduling as it is.

    Raises:
        PermissionError: the user may not have it.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if not priority:
        return
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    for thread in threading.enumerate():
        first = thread is threading.current_thread()
        if thread.native_id is not None:
            parameter = os.sched_param(priority if first else priority - 1)
            os.sched_setscheduler(thread.native_id, policy, parameter)


def give_way(niceness: int) -> None:
    """Lower the priority of this thread, and of no other of its process.

    Args:
        niceness: 0 to 19; a process that is nicer already stays so.
    """
    niceness = max(niceness, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
