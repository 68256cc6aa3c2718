# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Intervals and tests for success rates and returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from residual_rl_ros.numerics import Array

# scipy.stats takes a second to import, and most processes need no interval: functions import it.
RESAMPLES = 5000
"""Resamples of a bootstrap interval."""
ROUNDING = 1e-9
"""Relative difference that is none."""


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

    Wilson, "Probable inference", JASA 22 (1927). Where all outcomes are alike, one end is the rate
    itself; rounding may not put it on the wrong side.

    Raises:
        ValueError: there are no trials.
    """
    n, k = len(outcomes), sum(outcomes)
    if n == 0:
        raise ValueError('a success rate needs at least one trial, got none')
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(confidence_level=0.95, method='wilson')
    low, high = min(float(interval.low), k / n), max(float(interval.high), k / n)
    return Rate(k, n, max(low, 0.0), min(high, 1.0))


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
    if fixed + broken == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(fixed, fixed + broken, 0.5).pvalue)


@dataclass(frozen=True)
class Mean:
    """The mean of independent numbers with its 95 % interval by Student's t; one has none."""

    value: float
    trials: int
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f'{self.value:.4g}'
        return f'{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]'


def mean_interval(values: Sequence[float]) -> Mean:
    """Return the mean of independent numbers, such as returns, with its interval.

    Raises:
        ValueError: there are none.
    """
    n = len(values)
    if n == 0:
        raise ValueError('a mean needs at least one number, got none')
    mean = float(np.mean(values))
    if n == 1:
        return Mean(mean, n, None, None)
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.975)) * float(np.std(values, ddof=1)) / n**0.5
    return Mean(mean, n, mean - half, mean + half)


def paired_t(before: Sequence[float], after: Sequence[float]) -> tuple[Mean, float | None]:
    """Return the mean of paired differences with its interval, and the two-sided p-value of t.

    Args:
        before: numbers of the first policy, for example returns.
        after: those of the second on the same seeds.

    Returns:
        The mean of after minus before; the p-value that it is zero, None where t is not known: of
        a single pair, and where all differences are alike and none is zero.

    Raises:
        ValueError: the lengths differ, or there are no pairs.
    """
    differences = [b - a for a, b in zip(before, after, strict=True)]
    mean = mean_interval(differences)
    if mean.trials == 1:
        return mean, None
    if not np.any(differences):
        return mean, 1.0
    if np.ptp(differences) <= ROUNDING * np.abs(differences).max():
        return mean, None
    from scipy.special import stdtr

    deviation = float(np.std(differences, ddof=1))

    t = mean.value / (deviation / mean.trials**0.5)
    return mean, float(2.0 * stdtr(mean.trials - 1, -abs(t)))


@dataclass(frozen=True)
class Estimate:
    """An estimate with its 95 % bootstrap interval; without one where a sample has a single run.

    What is never reached is infinite.
    """

    point: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, point: float, resampled: Array) -> Estimate:
        """Return it with the percentiles of its resamples; without one of them, it has none.

        Args:
            point: the estimate.
            resampled: the same of every resample, shape (resamples,); infinite ones count.
        """
        if not len(resampled):
            return cls(point, None, None)
        ends = np.quantile(resampled, (0.025, 0.975), method='inverted_cdf')
        return cls(point, float(ends[0]), float(ends[1]))

    def shown(self, form: str) -> str:
        """Return it with its interval, if it has one, each number in a form such as `.0%`."""
        if self.low is None or self.high is None:
            return f'{self.point:{form}}'
        return f'{self.point:{form}} [{self.low:{form}}, {self.high:{form}}]'


def interquartile_mean(scores: Array, generator: np.random.Generator) -> Estimate:
    """Return the mean of the middle half of all scores, with its interval.

    The bootstrap is stratified: it draws the runs of each task from that task. Agarwal et al.,
    arXiv 2108.13264, section 4.3.

    Args:
        scores: scores of one variant, shape (runs, tasks).
        generator: source of the resamples.
    """
    from scipy.stats import trim_mean

    def mean(*tasks: Array, axis: int = -1) -> Any:
        return trim_mean(np.concatenate(tasks, axis=axis), 0.25, axis=axis)

    return _bootstrap(tuple(scores.T), mean, generator)


def probability_of_improvement(
    scores: Array, others: Array, generator: np.random.Generator
) -> Estimate:
    """Return the probability that a run beats a run of another variant, averaged over the tasks.

    A draw counts half, as in Mann and Whitney's U. Runs are drawn from each task and each variant
    independently. Agarwal et al., arXiv 2108.13264, section 4.3.

    Args:
        scores: scores of the one variant, shape (runs, tasks).
        others: those of the other, shape (other runs, tasks).
        generator: source of the resamples.
    """
    count = scores.shape[1]

    def probability(*tasks: Array, axis: int = -1) -> Any:
        samples = [np.moveaxis(task, axis, -1) for task in tasks]
        wins = []
        for one, other in zip(samples[:count], samples[count:], strict=True):
            difference = one[..., :, None] - other[..., None, :]
            wins.append((0.5 + 0.5 * np.sign(difference)).mean((-2, -1)))
        return np.mean(wins, axis=0)

    return _bootstrap((*scores.T, *others.T), probability, generator)


def _bootstrap(
    samples: tuple[Array, ...], statistic: Callable[..., Any], generator: np.random.Generator
) -> Estimate:
    """Return a statistic of independent samples with the percentiles of its resamples."""
    point = float(statistic(*samples))
    if min(map(len, samples)) < 2:
        return Estimate(point, None, None)
    from scipy.stats import bootstrap

    interval = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        batch=1000,
        vectorized=True,
        method='percentile',
        confidence_level=0.95,
        random_state=generator,
    ).confidence_interval
    return Estimate(point, float(interval.low), float(interval.high))
