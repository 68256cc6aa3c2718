# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the thread of the middleware hands to the thread that learns: work, and calls of services.

Callbacks only queue. The learning thread takes one piece of work after the other, and looks between
two gradient steps whether it must stop.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

WAIT_S = 0.1
"""How long the learning thread waits for work before it looks whether it must stop [s]."""


class OutOfTimeError(Exception):
    """The node must stop, and the time in which it may work on is over."""


class WorkQueue:
    """Work for the learning thread, in the order in which it came.

    Args:
        unfinished: called where work was given up since the time was over.
    """

    def __init__(self, unfinished: Callable[[], None]) -> None:
        self._unfinished = unfinished
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue()
        self._may_work = threading.Event()
        self._may_work.set()
        self._stop = threading.Event()
        self._deadline = math.inf

    def __len__(self) -> int:
        """Return how much waits."""
        return self._waiting.qsize()

    def put(self, job: Callable[[], None]) -> None:
        """Have something done."""
        self._waiting.put(job)

    @property
    def paused(self) -> bool:
        """Whether what comes only waits."""
        return not self._may_work.is_set()

    def pause(self, paused: bool) -> None:
        """Let what comes wait, or work on."""
        (self._may_work.clear if paused else self._may_work.set)()

    def stop(self, drain_limit_s: float) -> None:
        """End the work: what waits may still take so long [s]."""
        self._deadline = time.monotonic() + drain_limit_s
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether the work is to end."""
        return self._stop.is_set()

    def check_time(self) -> None:
        """Raise `OutOfTimeError` where the node must stop and the limit is over."""
        if time.monotonic() > self._deadline:
            raise OutOfTimeError

    def check_stop(self) -> None:
        """Raise it as soon as the node must stop."""
        if self.stopping:
            raise OutOfTimeError

    def do_next(self) -> None:
        """Do the next piece of work; wait for it, but not for long."""
        if self._may_work.wait(timeout=WAIT_S):
            try:
                job = self._waiting.get(timeout=WAIT_S)
            except queue.Empty:
                return
            self._do(job)

    def drain(self) -> None:
        """Do what waits, as far as the time goes; only where nobody else takes it."""
        while not self._waiting.empty() and time.monotonic() < self._deadline:
            self._do(self._waiting.get())

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except OutOfTimeError:
            self._unfinished()


REQUEST_LIMIT_S = 10.0
"""How long a service waits for the other thread, up to the next diagnostics after it."""

Answer = tuple[bool, str]
"""Success and message."""


@dataclass
class _Request:
    """A service call on its way."""

    job: Callable[[], Answer]
    deadline: float
    """Monotonic time after which it must not be carried out any more [s]."""
    answer: Answer | None = None
    taken: bool = False
    """It is being carried out, and is waited for."""

    def __await__(self) -> Generator[None, None, None]:
        """Let the thread of the middleware go on until there is an answer, or none in time."""
        while self.answer is None and (self.taken or time.monotonic() < self.deadline):
            yield


class ServiceBridge:
    """Hands the calls of services from one thread to another, and the answers back.

    Args:
        wake: makes the executor look for an answer.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._waiting: queue.Queue[_Request] = queue.Queue()

    def service(self, job: Callable[[], Answer], busy: str) -> Callable[[Any, Any], Any]:
        """Return the callback of a `Trigger` service.

        Args:
            job: what the other thread does.
            busy: message if it had no time.
        """

        async def callback(request: Any, response: Any) -> Any:
            del request
            asked = _Request(job, time.monotonic() + REQUEST_LIMIT_S)
            self._waiting.put(asked)
            await asked
            response.success, response.message = asked.answer or (False, busy)
            return response

        return callback

    def serve(self) -> None:
        """Carry out the calls that wait; called by the other thread."""
        while not self._waiting.empty():
            request = self._waiting.get()
            request.taken = True
            if time.monotonic() < request.deadline:
                request.answer = request.job()
            request.taken = False
            self._wake()
