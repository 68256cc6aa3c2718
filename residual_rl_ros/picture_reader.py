# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Decode and encode pictures beside a control loop, which has no time for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class PictureReader:
    """Reads the pictures of one channel in a thread of its own.

    A picture that still waits when a newer one arrives is dropped.

    Args:
        read: returns the values of a message, or raises.
        warm_up: what is done once in that thread, so that no picture pays for initialisation.
    """

    def __init__(self, read: Callable[[Any], Array], warm_up: Callable[[], None]) -> None:
        self._read = read
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix='pictures')
        self._orders: deque[tuple[float, Future[Array]]] = deque()
        self._worker.submit(warm_up).result()

    def put(self, stamp: float, message: Any) -> None:
        """Order a picture to be read.

        Args:
            stamp: its time [s].
            message: its message.
        """
        if self._orders and self._orders[-1][1].cancel():
            self._orders.pop()
        self._orders.append((stamp, self._worker.submit(self._read, message)))

    def take(self) -> tuple[float, Callable[[], Array]] | None:
        """Return the next picture that has been read: its stamp, and what returns or raises.

        None if there is none; this never waits.
        """
        if not self._orders or not self._orders[0][1].done():
            return None
        stamp, order = self._orders.popleft()
        return stamp, order.result

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown(cancel_futures=True)
