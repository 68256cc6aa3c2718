# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The ratio with which a residual fades in."""

from __future__ import annotations


class BlendRamp:
    """A ratio that rises linearly from 0 to a ceiling.

    Args:
        duration_s: length of the ramp [s]; 0 is always the ceiling.
        ceiling: the largest ratio, in [0, 1].
    """

    def __init__(self, duration_s: float, ceiling: float = 1.0) -> None:
        self.duration_s = duration_s
        self.ceiling = ceiling
        self._start_s: float | None = None

    def restart(self) -> None:
        """Begin a ramp with the next ratio."""
        self._start_s = None

    def set_ceiling(self, ceiling: float) -> None:
        """Take another ceiling; a higher one begins a ramp, a lower one holds at once."""
        if ceiling > self.ceiling:
            self.restart()
        self.ceiling = ceiling

    def ratio(self, now_s: float) -> float:
        """Return the blend ratio in [0, 1] at a time of any clock [s]."""
        if self._start_s is None:
            self._start_s = now_s
        if self.duration_s <= 0.0:
            return self.ceiling
        return self.ceiling * min(max((now_s - self._start_s) / self.duration_s, 0.0), 1.0)
