# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a control loop asks of the system: to go first, and to keep its memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from residual_rl_ros.ros.memory_lock import lock_memory, unlock_memory
from residual_rl_ros.ros.scheduling import go_first, step_back

LIMITS = '/etc/security/limits.conf'


def take_privileges(
    realtime_priority: int, keep_memory: bool, warn: Callable[[str], object]
) -> ExitStack:
    """Take what the user may have for this thread and its process, and warn of the rest.

    Args:
        realtime_priority: SCHED_FIFO priority, 1 to 99; 0 is normal scheduling.
        keep_memory: lock all memory of the process.
        warn: is told what was refused, and what to do about it.

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
