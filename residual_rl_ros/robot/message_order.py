# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The order of a topic's messages, where several subscriptions hear copies of each."""

from __future__ import annotations

import math
from collections.abc import Callable

REORDER_S = 1.0
"""A message that comes later than this after a newer one is no late copy: the publisher's clock was
set back, or there are two publishers whose clocks differ [s]."""


class MessageOrder:
    """Tells messages from late copies of older ones.

    Args:
        clock: monotonic time [s].
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._newest = 0
        self._heard = -math.inf

    def is_newest(self, source_ns: int) -> bool:
        """Return whether none that has come was newer than a message that has just come.

        Args:
            source_ns: when its publisher sent it [ns]; 0 if the middleware does not tell.
        """
        if not source_ns:
            return True
        now = self._clock()
        newest = source_ns >= self._newest or now - self._heard > REORDER_S
        if newest:
            self._newest, self._heard = source_ns, now
        return newest
