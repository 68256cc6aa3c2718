# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A clean end after Ctrl-C."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interruption:
    """Context in which the first SIGINT is only noted; a second one interrupts at once.

    The code inside checks `wanted` where its state is consistent, saves, and raises
    KeyboardInterrupt. If it does not, the end of the context raises it. In a thread, which receives
    no signal, the context does nothing.
    """

    def __init__(self) -> None:
        self.wanted = False
        """Whether there was a SIGINT."""
        self._handles = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Interruption:
        """Handle SIGINT from now on."""
        if self._handles:
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the previous handler.

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
