# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C as a wish: work that can be saved only here and there ends where it can."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interruption:
    """Context in which the first SIGINT is only noted; a second one interrupts at once.

    Whoever works in it looks at `wanted` where its state is whole, saves it, and raises
    KeyboardInterrupt; if it did not come to that, the end of the context raises it. In a thread,
    which gets no signal, it does nothing.
    """

    def __init__(self) -> None:
        self.wanted = False
        """Whether there was a SIGINT."""
        self._handles = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Interruption:
        """Take SIGINT over."""
        if self._handles:
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give SIGINT back.

        Raises:
            KeyboardInterrupt: there was one, and nothing else is raised.
        """
        if self._handles:
            signal.signal(signal.SIGINT, self._previous)
        if self.wanted and error is None:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            signal.default_int_handler(number, frame)
        self.wanted = True
