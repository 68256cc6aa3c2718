# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the noise of a base policy decides: episodes of each start with several noises, and pass@k.

The start is the seed of the environment. The noise is the seed of everything that the base policy
draws in an episode, and has nothing to do with the start. The first noise of a start is the one
with which `evaluate` plays it. A policy whose `noise_default` is zero plays with zero there, and
draws in the others, as its further proposals are drawn: k noises are then zero and k - 1 drawn
ones, as the robot has them.

Outcomes are those of S starts x M noises. Starts are a sample of the scenes that the robot may
meet, so intervals come from resampling starts. The noises of a start are its own.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import comb

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.config.run import ResolvedRun, RunConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.curves import BATCH
from residual_rl_ros.evaluation.episode import Episode, in_processes, run_episode
from residual_rl_ros.evaluation.intervals import RESAMPLES, Estimate, wilson
from residual_rl_ros.numerics import Array
from residual_rl_ros.tasks.checked import Env
from residual_rl_ros.tasks.hosting import host
from residual_rl_ros.transitions.transition import Transition

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


def pass_with_zero(outcomes: npt.NDArray[np.bool_], k: int) -> Array:
    """Return the probability that zero noise or one of k - 1 drawn ones succeeds, for each start.

    Args:
        outcomes: success of every start, with zero noise first, shape (S, M).
        k: number of noises, 1 to M.
    """
    drawn = outcomes[:, 1:]
    others = pass_at_k(drawn.sum(1), drawn.shape[1], k - 1) if k > 1 else 0.0
    passed: Array = np.where(outcomes[:, 0], 1.0, others)
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
    """Share of the outcome's variance that the start explains, over drawn noises; None where all
    their outcomes are the same, or one is drawn."""
    resampled: Array
    """pass@1 and the largest pass@k of every resample, shape (resamples, 2)."""

    @property
    def most(self) -> int:
        """The largest k."""
        return max(self.pass_at)


def study_noise(
    outcomes: npt.NDArray[np.bool_],
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
    first_is_zero: bool = False,
) -> NoiseStudy:
    """Return what outcomes say.

    Args:
        outcomes: success of every start with every noise, shape (S, M).
        generator: source of the resamples.
        resamples: how many.
        first_is_zero: noise 0 is zero, the policy as it is; the others are drawn.

    Raises:
        ValueError: there are fewer than two starts, or no noises.
    """
    starts, noises = outcomes.shape
    if starts < 2 or noises < 1:
        raise ValueError(f'{starts} starts x {noises} noises, expected at least 2 x 1')
    ks = [k for k in KS if k <= noises]
    drawn = outcomes[:, int(first_is_zero) :]
    counts, draws = drawn.sum(1), drawn.shape[1]
    passed = np.column_stack(
        [pass_with_zero(outcomes, k) if first_is_zero else pass_at_k(counts, noises, k) for k in ks]
    )
    rates = counts[:, None] / max(draws, 1)
    columns = np.hstack([passed, passed[:, -1:] - passed[:, :1], rates, rates**2])
    means, resampled = columns.mean(0), resampled_means(columns, generator, resamples)
    estimates = [
        _of_shares(columns[:, index], float(means[index]), resampled[:, index])
        for index in range(len(ks) + 1)
    ]
    share = None
    if draws > 1:
        point = float(share_of_starts(means[-2], means[-1], starts, draws))
        shares = share_of_starts(resampled[:, -2], resampled[:, -1], starts, draws)
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


DIAGNOSIS_SEED = 30_000
"""First environment seed by default: none of those that results are reported on."""
NOISE_STRIDE = 1_000_000_000
"""Between the numbers of the episodes of two noises: no start has another one's noise."""
SPREAD_DRAWS = 8
"""Chunks that are drawn at each decision of the first noise, to see how far apart they are."""
TIMED_STARTS = 3
"""Starts whose episodes tell beforehand how long all will take."""


@dataclass(frozen=True)
class Attempt:
    """One start, played with one of its noises."""

    noise: int
    """Number of the noise, from 0 on; 0 is the policy as it is."""
    episode: Episode
    variance: Array | None
    """Variance of the base action between draws at the same observation, mean over decisions and
    their control steps, shape (m,), command units squared; None where it was not measured."""

    @property
    def success(self) -> bool:
        """Whether it succeeded.

        Raises:
            ConfigError: the task did not tell.
        """
        if self.episode.success is None:
            raise ConfigError(
                f'the episode of seed {self.episode.seed} has no outcome, and only outcomes tell '
                'what choosing among noises is worth; say how the task tells success (--success)'
            )
        return self.episode.success


def attempt(
    env: Env,
    controller: ResidualController,
    start: int,
    noise: int,
    first_is_zero: bool = False,
) -> Attempt:
    """Play a start with one of its noises.

    Args:
        env: the environment.
        controller: a control loop without an actor. With proposals it measures how far they are
            apart; they change nothing of what is done.
        start: seed of the environment, below `NOISE_STRIDE`.
        noise: number of the noise.
        first_is_zero: what is done is of zero noise, and no draw.
    """
    layout = controller.layout
    variances: list[Array] = []

    def measure(transition: Transition) -> None:
        drawn = () if first_is_zero else (transition.base_action,)
        draws = np.concatenate([*drawn, transition.proposals])
        steps = draws.reshape(layout.proposals - first_is_zero, layout.decision_steps, -1)
        variances.append(steps.var(0, ddof=1).mean(0))

    measured = layout.proposals > 1
    episode = run_episode(
        env,
        controller,
        start,
        start + NOISE_STRIDE * noise,
        measure if measured else lambda transition: None,
    )
    return Attempt(noise, episode, np.mean(variances, 0) if measured else None)


class NoisePlayer:
    """An environment with the base policy alone.

    Args:
        run: the run; what it says of proposals, density and add-on plays no part.

    Raises:
        ResidualRLError: the environment cannot be made, or does not fit.
    """

    def __init__(self, run: ResolvedRun) -> None:
        config = replace(run.config, proposals=1, customisable=False, prior_width=())
        draws = SPREAD_DRAWS if run.policy.stochastic else 1
        measuring = replace(run, config=replace(config, proposals=draws))
        self.env = host(config, run.robot)
        self._first_is_zero = plays_zero(run)
        self._first = measuring.evaluation_controller(None)
        others = replace(run, config=config, policy=_drawing(run.policy))
        self._others = others.evaluation_controller(None)

    @classmethod
    def of(cls, config: RunConfig) -> NoisePlayer:
        """Return that of a run."""
        return cls(config.resolve())

    def play(self, job: tuple[int, int]) -> Attempt:
        """Play a start with a noise: the first one measures the spread too."""
        start, noise = job
        controller = self._others if noise else self._first
        return attempt(self.env, controller, start, noise, self._first_is_zero)

    def close(self) -> None:
        """End its threads and its environment."""
        self._first.close()
        self._others.close()
        self.env.close()


def plays_zero(run: ResolvedRun) -> bool:
    """Return whether the base policy has a noise input and does what zero noise says."""
    return run.policy.stochastic and run.policy.metadata.noise_default == 'zero'


def _drawing(policy: OnnxBasePolicy) -> OnnxBasePolicy:
    """Return the same policy that draws its noise, whatever its metadata say."""
    drawing = copy.copy(policy)
    drawing.metadata = replace(policy.metadata, noise_default='normal')
    return drawing


def predicted_seconds(
    run: ResolvedRun,
    starts: Sequence[int],
    noises: int,
    workers: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return about how long all episodes will take, from some of them [s].

    Raises:
        ResidualRLError: they cannot be played; nothing else has happened then.
    """
    player = NoisePlayer(run)
    some = [starts[len(starts) * index // TIMED_STARTS] for index in range(TIMED_STARTS)]
    kinds = {0: len(starts), 1: len(starts) * (noises - 1)}
    seconds = 0.0
    try:
        for noise, episodes in kinds.items():
            if episodes:
                begun = clock()
                for start in some:
                    _ = player.play((start, noise)).success
                seconds += episodes * (clock() - begun) / TIMED_STARTS
    finally:
        player.close()
    return seconds / min(workers, len(starts) * noises)


def play_noises(
    config: RunConfig, starts: Sequence[int], noises: int, workers: int = 2
) -> Iterator[Attempt]:
    """Yield the attempts of every start with every noise, start after start.

    Args:
        config: the run; `success` is settled.
        starts: environment seeds, each below `NOISE_STRIDE`.
        noises: how many noises each start is played with.
        workers: processes.
    """
    jobs = [(start, noise) for start in starts for noise in range(noises)]
    yield from in_processes(partial(NoisePlayer.of, config), NoisePlayer.play, jobs, workers)
