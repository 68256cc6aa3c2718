# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How long the stages of a control step take, in constant memory."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

SHORTEST_S = 1e-6
LONGEST_S = 10.0
BINS_PER_DECADE = 40
"""Bins are 6 % wide: finer than one run is like the next."""
UNSORTED = 1024
"""Durations that are kept as they are until the next report."""


class Latency:
    """A histogram of durations, since the last report and since the start."""

    def __init__(self) -> None:
        # Not sorted into the histogram yet: a control step has no time.
        self._new: list[float] = []
        decades = math.log10(LONGEST_S / SHORTEST_S)
        self._counts = np.zeros(round(decades * BINS_PER_DECADE) + 1, dtype=np.int64)
        self._longest = 0.0
        self._reported = np.zeros_like(self._counts)
        self._longest_reported = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration [s]."""
        self._new.append(seconds)
        if len(self._new) == UNSORTED:
            self._sort()

    def _sort(self) -> None:
        """Take the new durations into the histogram."""
        durations, self._new = np.array(self._new), []
        if not durations.size:
            return
        decades = np.log10(durations.clip(SHORTEST_S, LONGEST_S) / SHORTEST_S)
        last = len(self._counts) - 1
        bins = (decades * BINS_PER_DECADE).astype(np.int64).clip(max=last)
        self._counts += np.bincount(bins, minlength=last + 1)
        self._longest = max(self._longest, float(durations.max()))

    def report(self, name: str) -> dict[str, float]:
        """Return the statistics since the last report, and start again."""
        self._sort()
        statistics = _statistics(name, self._counts, self._longest)
        self._reported += self._counts
        self._longest_reported = max(self._longest_reported, self._longest)
        self._counts[:] = 0
        self._longest = 0.0
        return statistics

    def overall(self, name: str) -> dict[str, float]:
        """Return the statistics since the start."""
        self._sort()
        longest = max(self._longest_reported, self._longest)
        return _statistics(f'{name}_overall', self._reported + self._counts, longest)


def _statistics(name: str, counts: npt.NDArray[np.int64], longest: float) -> dict[str, float]:
    """Return p50, p95, p99 and the longest [us]."""
    values = {
        f'{name}_p{round(100 * share)}_us': round(1e6 * percentile(counts, longest, share), 1)
        for share in (0.5, 0.95, 0.99)
    }
    values[f'{name}_max_us'] = round(1e6 * longest, 1)
    return values


def percentile(counts: npt.NDArray[np.int64], longest: float, share: float) -> float:
    """Return the upper edge of the bin that holds a percentile [s]; 0 without durations.

    Args:
        counts: durations in every bin.
        longest: the longest duration [s].
        share: between 0 and 1; 0.5 is the median.
    """
    total = int(counts.sum())
    if total == 0:
        return 0.0
    index = int(np.searchsorted(counts.cumsum(), share * total))
    if index == len(counts) - 1:  # It has no upper edge.
        return longest
    edge = SHORTEST_S * 10.0 ** ((index + 1) / BINS_PER_DECADE)
    return min(float(edge), longest)
