# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Service calls that another thread than the one of the middleware carries out."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

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


class Requests:
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
