# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the noise of a base policy decides: pass@k, and how much of the outcome starts explain.

Outcomes are those of S starts x M noises. Starts are a sample of the scenes that the robot may
meet, so intervals come from resampling starts. The noises of a start are its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt

from residual_rl_ros.evaluation.intervals import BATCH, RESAMPLES, Array, Estimate, wilson

KS = (1, 2, 4, 8)
"""Numbers k of noises of which the best counts; those up to M are reported."""


def pass_at_k(successes: npt.ArrayLike, noises: int, k: int) -> Array:
    """Return the probability that at least one of k noises succeeds, for each start.

    The unbiased estimate 1 - C(M - c, k) / C(M, k): Chen et al., arXiv 2107.03374, section 2.1.

    Args:
        successes: how many noises c of each start succeeded, shape (S,).
        noises: how many noises M each start was played with.
        k: number of noises drawn, 1 to M.

    Raises:
        ValueError: k is not within 1 and M.
    """
    if not 1 <= k <= noises:
        raise ValueError(f'k is {k}, expected 1 to {noises}, the number of noises')
    of_count = [1.0 - comb(noises - c, k) / comb(noises, k) for c in range(noises + 1)]
    passed: Array = np.array(of_count)[np.asarray(successes)]
    return passed


def share_of_starts(mean: Array, mean_square: Array, starts: int, noises: int) -> Array:
    """Return the share of the outcome's variance that the start explains, from moments over starts.

    One-way random effects, estimated by analysis of variance: the variance of the starts' success
    rates is that of the starts plus 1/M of that of the noise, which the mean square within starts
    tells. Without that correction M noises would make up a share of 1/M where there is none.
    Searle, Casella and McCulloch, "Variance Components" (1992), section 3.5.

    Args:
        mean: mean success rate of the starts, any shape.
        mean_square: mean of their squares, the same shape.
        starts: number of starts S, at least 2.
        noises: number of noises M of each, at least 2.

    Returns:
        Shares in [0, 1]; a negative estimate is 0, and NaN is where all outcomes are the same.
    """
    within = np.maximum(mean - mean_square, 0.0) * noises / (noises - 1)
    between = np.maximum(mean_square - mean**2, 0.0) * starts / (starts - 1) - within / noises
    between = np.maximum(between, 0.0)
    total = within + between
    same = total <= 1e-12  # What rounding leaves.
    share: Array = np.where(same, np.nan, between / np.where(same, 1.0, total))
    return share


def resampled_means(
    values: Array, generator: np.random.Generator, resamples: int = RESAMPLES
) -> Array:
    """Return the means over starts of every resample of them.

    Args:
        values: numbers of each start, shape (S, q).
        generator: source of the resamples.
        resamples: how many.

    Returns:
        Shape (resamples, q); all q of a resample are of the same starts.
    """
    starts = len(values)
    even = np.full(starts, 1.0 / starts)
    counts = (min(BATCH, resamples - begin) for begin in range(0, resamples, BATCH))
    batches = [generator.multinomial(starts, even, size=count) @ values for count in counts]
    return np.concatenate(batches) / starts


@dataclass(frozen=True)
class NoiseStudy:
    """What the outcomes of S starts x M noises say, with intervals over starts."""

    starts: int
    noises: int
    pass_at: dict[int, Estimate]
    """pass@k for each k of `KS` up to M."""
    gain: Estimate
    """Largest of them less pass@1: what choosing among as many noises can add."""
    start_share: Estimate | None
    """Share of the outcome's variance that the start explains; None where all outcomes are the
    same, or there is one noise."""
    resampled: Array
    """pass@1 and the largest pass@k of every resample, shape (resamples, 2)."""

    @property
    def most(self) -> int:
        """The largest k."""
        return max(self.pass_at)


def study_noise(
    outcomes: npt.NDArray[np.bool_], generator: np.random.Generator, resamples: int = RESAMPLES
) -> NoiseStudy:
    """Return what outcomes say.

    Args:
        outcomes: success of every start with every noise, shape (S, M).
        generator: source of the resamples.
        resamples: how many.

    Raises:
        ValueError: there are fewer than two starts, or no noises.
    """
    starts, noises = outcomes.shape
    if starts < 2 or noises < 1:
        raise ValueError(f'{starts} starts x {noises} noises, expected at least 2 x 1')
    counts = outcomes.sum(1)
    ks = [k for k in KS if k <= noises]
    passed = np.column_stack([pass_at_k(counts, noises, k) for k in ks])
    rates = passed[:, :1]
    columns = np.hstack([passed, passed[:, -1:] - rates, rates**2])
    means, resampled = columns.mean(0), resampled_means(columns, generator, resamples)
    estimates = [
        _of_shares(columns[:, index], float(means[index]), resampled[:, index])
        for index in range(len(ks) + 1)
    ]
    share = None
    if noises > 1:
        point = float(share_of_starts(means[0], means[-1], starts, noises))
        shares = share_of_starts(resampled[:, 0], resampled[:, -1], starts, noises)
        share = None if np.isnan(point) else Estimate.of(point, shares[~np.isnan(shares)])
    return NoiseStudy(
        starts,
        noises,
        dict(zip(ks, estimates[:-1], strict=True)),
        estimates[-1],
        share,
        resampled[:, [0, len(ks) - 1]],
    )


def _of_shares(values: Array, mean: float, resampled: Array) -> Estimate:
    """Return the mean of numbers in [0, 1].

    Where each is 0 or 1 they are trials and get Wilson's interval: where all are alike, a bootstrap
    would have no doubt at all that the next start is too.
    """
    if np.isin(values, (0.0, 1.0)).all():
        rate = wilson((values > 0.5).tolist())
        return Estimate(rate.value, rate.low, rate.high)
    return Estimate.of(mean, resampled)
