# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How long the stages of a control step take, in constant memory."""

from __future__ import annotations

import math

import numpy as np

SHORTEST_S = 1e-6
LONGEST_S = 10.0
BINS_PER_DECADE = 40
"""Bins are 6 % wide: finer than one run is like the next."""


class Latency:
    """A histogram of durations."""

    def __init__(self) -> None:
        decades = math.log10(LONGEST_S / SHORTEST_S)
        self._counts = np.zeros(round(decades * BINS_PER_DECADE) + 1, dtype=np.int64)
        self._longest = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration [s]."""
        position = math.log10(max(seconds, SHORTEST_S) / SHORTEST_S) * BINS_PER_DECADE
        self._counts[min(int(position), len(self._counts) - 1)] += 1
        self._longest = max(self._longest, seconds)

    def percentile(self, share: float) -> float:
        """Return the upper edge of the bin that holds a percentile [s]; 0 without durations.

        Args:
            share: between 0 and 1; 0.5 is the median.
        """
        total = int(self._counts.sum())
        if total == 0:
            return 0.0
        index = int(np.searchsorted(self._counts.cumsum(), share * total))
        if index == len(self._counts) - 1:  # It has no upper edge.
            return self._longest
        edge = SHORTEST_S * 10.0 ** ((index + 1) / BINS_PER_DECADE)
        return min(float(edge), self._longest)

    def report(self, name: str) -> dict[str, float]:
        """Return the figures since the last report, and start again."""
        figures = self.figures(name)
        self._counts[:] = 0
        self._longest = 0.0
        return figures

    def figures(self, name: str) -> dict[str, float]:
        """Return p50, p95, p99 and the longest [us]."""
        values = {
            f'{name}_p{round(100 * share)}_us': round(1e6 * self.percentile(share), 1)
            for share in (0.5, 0.95, 0.99)
        }
        values[f'{name}_max_us'] = round(1e6 * self._longest, 1)
        return values
