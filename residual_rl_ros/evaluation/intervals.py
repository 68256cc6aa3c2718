# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Intervals and tests for success rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """A success rate with its 95 % Wilson interval."""

    successes: int
    trials: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The rate itself."""
        return self.successes / self.trials

    def __str__(self) -> str:
        return f'{self.value:.0%} [{self.low:.0%}, {self.high:.0%}]'


def wilson(outcomes: Sequence[bool]) -> Rate:
    """Return the success rate of independent trials with its Wilson score interval.

    Wilson, "Probable inference", JASA 22 (1927).

    Raises:
        ValueError: there are no trials.
    """
    n, k = len(outcomes), sum(outcomes)
    if n == 0:
        raise ValueError('a success rate needs at least one trial')
    p, z2 = k / n, Z_95**2
    center = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Rate(k, n, max(0.0, center - half), min(1.0, center + half))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Return the two-sided exact p-value that paired outcomes differ (McNemar).

    Args:
        before: outcomes of the first policy.
        after: outcomes of the second on the same seeds.

    Raises:
        ValueError: the lengths differ.
    """
    pairs = list(zip(before, after, strict=True))
    fixed = sum(b and not a for a, b in pairs)
    broken = sum(a and not b for a, b in pairs)
    n = fixed + broken
    tail = sum(math.comb(n, i) for i in range(min(fixed, broken) + 1)) / (1 << n)
    return min(1.0, 2.0 * tail)
