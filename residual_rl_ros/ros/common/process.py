# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The process of a node: what the operating system grants it, and how it ends."""

from __future__ import annotations

import atexit
import ctypes
import errno
import faulthandler
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType

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


PARENT = 'RESIDUAL_RL_ROS_PARENT'
"""Environment variable: id of the program with whose death, however it dies, a node stops."""
ACTIVE_LIMIT_S = 10.0
"""How long a node may take to stop once it is told to; a fast robot slows down within 1 s [s]."""
SAVE_LIMIT_S = 120.0
"""The same for a node that saves when it stops [s]."""
EXIT_LIMIT_S = 5.0
"""How long a process may live on once its node has stopped [s]."""

PR_SET_PDEATHSIG = 1
# Bound here: to look a function up takes time, in which a parent can die.
_LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask to stop.

    SIGHUP says that the terminal has closed. Where `nohup` has made it ignored, it stays so.
    """
    hangup = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hangup else ()))


class StopRequest:
    """Notes one of `stop_signals`, or the death of the parent, from `listen` to `close`.

    A signal handler of Python runs in the main thread, which can be in the middle of a transition,
    wait in the middleware or hang. Here a thread of its own acts on it at once.

    Args:
        limit_s: how long the process lives on after a request at the most [s].
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._requested = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._signals: tuple[signal.Signals, ...] = ()

    def listen(self) -> None:
        """Begin; call it from the main thread."""
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self._signals = stop_signals()
        for sign in self._signals:
            signal.signal(sign, _heard)
        threading.Thread(target=self._watch, name='signals', daemon=True).start()
        if not stop_with_parent():
            self._request()

    def close(self) -> None:
        """Ignore all further signals: what stops must come to its end."""
        for sign in self._signals:
            signal.signal(sign, signal.SIG_IGN)
        if self._signals:
            signal.set_wakeup_fd(-1)
            self._sender.close()

    def is_set(self) -> bool:
        """Return whether there was a request."""
        return self._requested.is_set()

    def call(self, callback: Callable[[], None]) -> None:
        """Have something called when there is a request, in another thread; at once if there was.

        A request in this very moment can call it twice.
        """
        self._callbacks.append(callback)
        if self.is_set():
            callback()

    def _watch(self) -> None:
        while self._receiver.recv(1):
            self._request()
        self._receiver.close()

    def _request(self) -> None:
        if not self.is_set():
            end_within(self._limit_s)
            self._requested.set()
            for callback in list(self._callbacks):
                callback()


def _heard(number: int, frame: FrameType | None) -> None:
    """Do nothing: the thread of `StopRequest` acts."""


def stop_with_parent() -> bool:
    """Have the kernel send SIGTERM when the program that `PARENT` names dies (Linux).

    Returns:
        Whether that program is alive still; true if `PARENT` names none.
    """
    parent = os.environ.get(PARENT, '')
    if _LIBC is None or not parent.isdecimal():
        return True
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == int(parent):
        return True
    # It has died before it could be watched, or something stands in between, as a debugger does.
    with suppress(PermissionError):
        try:
            os.kill(int(parent), 0)
        except ProcessLookupError:
            return False
    return True


def end_within(limit_s: float) -> None:
    """End this process after a time whatever hangs, with the stack of every thread on stderr.

    Args:
        limit_s: the time [s]; it replaces that of an earlier call.
    """
    try:
        where = sys.__stderr__.fileno() if sys.__stderr__ is not None else -1
    except (OSError, ValueError):  # It has none, or is closed.
        where = -1
    if where < 0:
        where = os.open(os.devnull, os.O_WRONLY)
    faulthandler.dump_traceback_later(limit_s, exit=True, file=where)


def end_at_exit(code: int) -> None:
    """Have this process end with a code once its threads have, without taking its libraries apart.

    That takes seconds on a busy machine, in which `end_within` would give it another code.
    """
    atexit.register(_end, code)


def _end(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # There is none, or nobody reads it.
            stream.flush()
    os._exit(code)
