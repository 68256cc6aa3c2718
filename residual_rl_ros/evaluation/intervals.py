# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Intervals and tests for success rates and returns; one test may be asked after every episode."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from residual_rl_ros.numerics import Array

LEVEL, ERROR = 0.9, 0.05
WINDOW = 50
"""Latest episodes that a bet is drawn from."""
PRIOR = 10.0
"""Episodes at the level that are added to them, against bets on little."""


class SuccessTest:
    """Sequential test that the success of training episodes has risen above a level.

    Wealth starts at 1. Before each episode a share of it is bet on success, at odds that are fair
    where success has the probability of the level: it is multiplied by 1 + bet (outcome - level).
    The bet follows from the latest `WINDOW` outcomes before and is never negative; it is 0 while
    these are not above the level.

    The policy changes from episode to episode, and so does its success. Under the hypothesis that
    no policy so far has succeeded with a probability above the level, given all that was seen
    before, wealth is a non-negative supermartingale whatever the policies do and whenever one looks
    (Ville's inequality): it reaches 1 / error with a probability of at most `error`. What is
    rejected is that hypothesis. That the policy of *now* is above the level does not follow; that
    wealth has grown in the latest window, and shrinks with a worse policy, speaks for it, and an
    evaluation on scenes of its own decides. Training episodes explore, which costs success.

    Args:
        level: probability of success to exceed.
        error: largest probability of deciding where no policy exceeded the level.
    """

    def __init__(self, level: float = LEVEL, error: float = ERROR) -> None:
        self.level, self.error = level, error
        self.wealth = 1.0
        """Evidence so far, as odds against the hypothesis."""
        self.episodes = 0
        """Outcomes seen."""
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._followed = 0

    @property
    def decided(self) -> bool:
        """Whether there is enough evidence; once there is, nothing changes it."""
        return self.wealth >= 1.0 / self.error

    def add(self, outcome: bool) -> None:
        """Take in the outcome of an episode."""
        if self.decided:
            return
        level = self.level
        successes = sum(self._recent) + PRIOR * level
        expected = successes / (len(self._recent) + PRIOR)
        # What makes wealth grow fastest if `expected` is the probability (Kelly).
        bet = max(0.0, (expected - level) / (level * (1.0 - level)))
        self.wealth *= 1.0 + bet * (float(outcome) - level)
        self.episodes += 1
        self._recent.append(outcome)

    def follow(self, count: int, latest: Sequence[bool]) -> None:
        """Take in what is new of a list of outcomes that grows elsewhere.

        Args:
            count: how many outcomes there are in all.
            latest: the newest of them; older ones that were never seen here are left out.
        """
        new = min(count - self._followed, len(latest))
        for outcome in latest[len(latest) - new :] if new > 0 else ():
            self.add(outcome)
        self._followed = max(count, self._followed)

    def __str__(self) -> str:
        return f'{min(self.wealth, 9999.0):.1f} to 1'


# scipy.stats takes a second to import, and most processes need no interval: functions import
# it.
RESAMPLES = 5000
"""Resamples of a bootstrap interval."""
ROUNDING = 1e-9
LEAST_SEEDS = 3
"""Of fewer seeds there is no interval: a spread of two is hardly known."""
BATCH = 500
"""Resamples that are drawn at once."""


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


def hierarchical_means(
    outcomes: Array, generator: np.random.Generator, resamples: int = RESAMPLES
) -> Array:
    """Return the mean of every resample of a hierarchical bootstrap: seeds, then their scenes.

    The scenes of a seed are its own. A drawn scene brings its whole curve along, because the
    outcomes of one scene at two times are not independent. Davison and Hinkley, "Bootstrap Methods
    and their Application" (1997), section 3.8.

    Percentiles of a bootstrap are those of a normal distribution whose variance is divided by n
    instead of n - 1. Of few seeds they are far too narrow: where 95 % are promised, 84 % of the
    intervals of 3 seeds held the truth, 92 % of those of 5 or 10. So each resample is moved away
    from the mean of all by sqrt(n / (n - 1)) and by what the quantile of Student's t is above the
    normal one's. That can leave the range of the outcomes.

    Args:
        outcomes: success (0 or 1) or return, shape (seeds, points, scenes).
        generator: source of the resamples.
        resamples: how many.

    Returns:
        Shape (resamples, points); no resamples of fewer than `LEAST_SEEDS`.
    """
    seeds, points, scenes = outcomes.shape
    if seeds < LEAST_SEEDS:
        return np.zeros((0, points))
    from scipy.special import ndtri, stdtrit

    columns = outcomes.transpose(0, 2, 1).reshape(seeds * scenes, points)
    even = np.full(scenes, 1.0 / scenes)
    means = np.empty((resamples, points))
    for begin in range(0, resamples, BATCH):
        count = min(BATCH, resamples - begin)
        drawn = generator.integers(seeds, size=(count, seeds))
        times = generator.multinomial(scenes, even, size=(count, seeds))
        weights = np.zeros((count, seeds, scenes))
        for seed in range(seeds):  # One that is drawn twice adds up.
            weights[np.arange(count), drawn[:, seed]] += times[:, seed]
        means[begin : begin + count] = weights.reshape(count, -1) @ columns
    means /= seeds * scenes
    few = (seeds / (seeds - 1.0)) ** 0.5 * float(stdtrit(seeds - 1, 0.975) / ndtri(0.975))
    mean = columns.mean(0)
    moved: Array = mean + few * (means - mean)
    return moved


def first_passage(steps: Array, curves: Array, levels: Array | float) -> Array:
    """Return where each curve first is at its level, linear between the points; inf if it never is.

    Args:
        steps: increasing positions of the points, shape (points,).
        curves: shape (curves, points).
        levels: one for all, or shape (curves,).

    Returns:
        Positions, shape (curves,).
    """
    above = curves - np.broadcast_to(np.asarray(levels), len(curves))[:, None] >= -ROUNDING
    after = above.argmax(1)
    rows, before = np.arange(len(curves)), np.maximum(after - 1, 0)
    low, high = curves[rows, before], curves[rows, after]
    rise = np.where(high > low, high - low, 1.0)
    share = np.where(after > 0, np.clip((levels - low) / rise, 0.0, 1.0), 0.0)
    at = steps[before] + share * (steps[after] - steps[before])
    return np.where(above.any(1), at, np.inf)


def area_under(steps: Array, curves: Array) -> Array:
    """Return the mean height of each curve between its first and last point (trapezoids).

    Args:
        steps: increasing positions of the points, shape (points,), at least two.
        curves: shape (curves, points).

    Returns:
        Heights, shape (curves,).
    """
    height = 0.5 * (curves[:, 1:] + curves[:, :-1])
    mean: Array = height @ np.diff(steps) / (steps[-1] - steps[0])
    return mean
