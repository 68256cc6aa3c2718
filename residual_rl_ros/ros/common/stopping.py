# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a process is told to stop: signals, the death of the program that started it, and a limit."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

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
