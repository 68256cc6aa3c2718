# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say how a base policy can be improved: by choosing among its noises, by a residual, or by both.

Choosing can reach no more than the best of the noises that are drawn. What all of them fail is left
to a residual, which adds what the base never does. So episodes of the base alone, of each start
with several noises, tell both apart before anything is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from residual_rl_ros.config.run import ResolvedRun, RunConfig
from residual_rl_ros.config.success import RETURN
from residual_rl_ros.control.composition import ResidualBound
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.intervals import ROUNDING, Estimate
from residual_rl_ros.evaluation.noises import (
    NOISE_STRIDE,
    SPREAD_DRAWS,
    NoiseStudy,
    play_noises,
    plays_zero,
    predicted_seconds,
    resampled_means,
    study_noise,
)
from residual_rl_ros.evaluation.progress import progress, say
from residual_rl_ros.numerics import Array
from residual_rl_ros.tasks.success_probe import settled

POINTS = 0.1
"""Success that makes a way worth its while."""
FEWEST_FAILURES = 0.05
"""A base that fails less often has nothing to gain."""
FEW_STARTS = 50
"""With fewer, resamples agree although the next starts would not."""
RULE = (
    f'choosing pays if the best of k noises adds {100 * POINTS:.0f} points to pass@1, or at least '
    f'half of what is missing; a residual pays if k noises leave {100 * POINTS:.0f} points, or at '
    f'least half of what is missing; neither does if less than {100 * FEWEST_FAILURES:.0f} points '
    'are missing, or if nothing ever succeeds'
)


class Verdict(StrEnum):
    """What can improve a base policy."""

    RESIDUAL = 'residual'
    CHOOSE = 'choose'
    BOTH = 'both'
    NOTHING = 'nothing'


def verdict_of(first: float, best: float) -> Verdict:
    """Return what pays by `RULE`.

    Args:
        first: pass@1.
        best: pass@k of the largest k.
    """
    missing, gain, left = 1.0 - first, best - first, 1.0 - best
    if missing < FEWEST_FAILURES - ROUNDING or best <= 0.0:
        return Verdict.NOTHING
    # Gain and what is left make up what is missing: one of them is at least half of it.
    enough = POINTS - ROUNDING
    if left < min(enough, gain - ROUNDING):
        return Verdict.CHOOSE
    if gain < min(enough, left - ROUNDING):
        return Verdict.RESIDUAL
    return Verdict.BOTH


@dataclass(frozen=True)
class Spread:
    """How far the noise moves one action, between draws at the same observation."""

    action: str
    std: float
    """Standard deviation over the draws, root mean square over decisions [command units]."""
    bound: float
    """Bound of the residual [command units]; 0 where there is none."""
    in_bounds: Estimate | None
    """Standard deviation over bound; None without a bound."""

    def __str__(self) -> str:
        if self.in_bounds is None:
            return f'{self.action} {self.std:.2g} command units, no residual there'
        return f'{self.action} {self.in_bounds.shown(".2f")}'

    def summary(self) -> dict[str, Any]:
        """Return it as plain numbers for JSON."""
        in_bounds = None if self.in_bounds is None else _summary(self.in_bounds)
        return {'std': self.std, 'bound': self.bound, 'in_bounds': in_bounds}


def spread_of(
    variances: Array, names: Sequence[str], bound: ResidualBound, generator: np.random.Generator
) -> tuple[Spread, ...]:
    """Return the spread of each action, with intervals over starts.

    Args:
        variances: of each start, shape (S, m), command units squared.
        names: of the actions.
        bound: of the residual.
        generator: source of the resamples.
    """
    stds = np.sqrt(variances.mean(0))
    resampled = np.sqrt(resampled_means(variances, generator))
    return tuple(
        Spread(
            name,
            float(std),
            float(limit),
            Estimate.of(float(std / limit), each / limit) if limit > 0.0 else None,
        )
        for name, std, limit, each in zip(names, stds, bound.values, resampled.T, strict=True)
    )


@dataclass(frozen=True)
class Diagnosis:
    """What episodes of a base policy alone say about how to improve it."""

    study: NoiseStudy
    spread: tuple[Spread, ...]
    """Of each action; empty for a deterministic base."""
    deterministic: bool
    """The base has no noise to choose among."""
    drawn_success: float | None = None
    """Success of a drawn noise, where the policy as it is, of which pass@1 tells, has zero noise;
    None where the policy itself draws."""

    @property
    def verdict(self) -> Verdict:
        """What pays."""
        pass_at = self.study.pass_at
        return verdict_of(pass_at[1].point, pass_at[self.study.most].point)

    @property
    def agreement(self) -> float:
        """Share of the resamples of the starts that have the same verdict."""
        verdicts = [verdict_of(*pair) for pair in self.study.resampled.tolist()]
        return verdicts.count(self.verdict) / len(verdicts)

    @property
    def reason(self) -> str:
        """Why, in a sentence or two."""
        study, most = self.study, self.study.most
        first, best = (study.pass_at[k].point for k in (1, most))
        if best <= 0.0:
            return (
                f'none of {study.starts * study.noises} episodes succeeded: there is nothing to '
                'choose, and nothing says that success is within reach of a residual of this '
                'bound; a learner would see no reward. Give it demonstrations, a larger '
                'residual_scale, or a better base'
            )
        if 1.0 - first < FEWEST_FAILURES:
            played = study.starts * (1 if self.drawn_success is not None else study.noises)
            return f'the base succeeds in {first:.1%} of {played} episodes: little is missing'
        if self.deterministic:
            return (
                'the base has no noise input, so there is nothing to choose; what it fails '
                f'({1.0 - first:.0%}) is left to a residual'
            )
        words = (
            f'{100 * (1.0 - first):.1f} points are missing, of which the best of {most} noises '
            f'repairs {100 * (best - first):.1f} and leaves {100 * (1.0 - best):.1f}'
        )
        if self.verdict is not Verdict.RESIDUAL and self._within_bound:
            words += (
                '; the spread of the noise is below half the bound of every action, so that a '
                'residual may reach what choosing does'
            )
        return words

    @property
    def _within_bound(self) -> bool:
        return all(2.0 * each.std <= each.bound for each in self.spread)

    def lines(self) -> list[str]:
        """Return it in words."""
        study = self.study
        lines = [f'pass@{k}: {value.shown(".0%")}' for k, value in study.pass_at.items()]
        if not self.deterministic:
            share = 'unknown, all outcomes are the same'
            if study.start_share is not None:
                share = study.start_share.shown('.0%')
            noise = '; '.join(map(str, self.spread))
            if self.drawn_success is not None:
                lines.append(
                    'pass@1 is the policy as it is, with zero noise (noise 0), and pass@k the best '
                    f'of zero and k - 1 drawn noises; a drawn one alone: {self.drawn_success:.0%}'
                )
            lines += [
                f'pass@{study.most} - pass@1: {study.gain.shown(".0%")}',
                f'share of the outcome that the start explains: {share}',
                f'spread of the noise in bounds of the residual: {noise}',
            ]
        same = f'{self.agreement:.0%} of {len(study.resampled)} resamples of the starts agree'
        if study.starts < FEW_STARTS:
            same += f', which says little: of {study.starts} starts all may be alike; give more'
        return [*lines, f'verdict: {self.verdict} ({same})', f'why: {self.reason}', f'rule: {RULE}']

    def summary(self) -> dict[str, Any]:
        """Return it as plain numbers for JSON."""
        study = self.study
        share = None if study.start_share is None else _summary(study.start_share)
        return {
            'starts': study.starts,
            'noises': study.noises,
            'pass_at': {str(k): _summary(value) for k, value in study.pass_at.items()},
            'gain': _summary(study.gain),
            'start_share': share,
            'zero_noise': None if self.drawn_success is None else study.pass_at[1].point,
            'drawn_noise': self.drawn_success,
            'spread': {each.action: each.summary() for each in self.spread},
            'verdict': str(self.verdict),
            'agreement': self.agreement,
            'why': self.reason,
            'rule': RULE,
        }


def _summary(estimate: Estimate) -> dict[str, float | None]:
    return {'value': estimate.point, 'low_95': estimate.low, 'high_95': estimate.high}


def diagnose(
    outcomes: npt.NDArray[np.bool_],
    variances: Array | None,
    names: Sequence[str],
    bound: ResidualBound,
    generator: np.random.Generator,
    first_is_zero: bool = False,
) -> Diagnosis:
    """Return what outcomes say about a base policy.

    Args:
        outcomes: success of every start with every noise, shape (S, M).
        variances: of the base action between draws at the same observation, for each start, shape
            (S, m), command units squared; None if it is deterministic.
        names: of the actions.
        bound: of the residual.
        generator: source of the resamples.
        first_is_zero: noise 0 is zero, the policy as it is; the others are drawn.
    """
    study = study_noise(outcomes, generator, first_is_zero=first_is_zero)
    spread = () if variances is None else spread_of(variances, names, bound, generator)
    drawn_success = float(outcomes[:, 1:].mean()) if first_is_zero else None
    return Diagnosis(study, spread, variances is None, drawn_success)


@dataclass(frozen=True)
class DiagnosisOptions:
    """What is played."""

    starts: int
    """Environment seeds S."""
    noises: int
    """Noises M of each; a deterministic base is played once."""
    first_seed: int
    """First environment seed."""
    seed: int
    """Seed of the resamples."""
    workers: int
    """Processes."""

    def __post_init__(self) -> None:
        """Check that no two starts share a noise."""
        if self.first_seed + self.starts > NOISE_STRIDE:
            raise ConfigError(
                f'first_seed is {self.first_seed}, expected at most {NOISE_STRIDE - self.starts}: '
                'seeds from there on are those of other noises'
            )


def run_diagnosis(config: RunConfig, options: DiagnosisOptions, console: Console) -> Diagnosis:
    """Play the base policy of a run alone, and say what can improve it.

    Args:
        config: names task, robot, base policy and residual scale.
        options: what is played.
        console: is told how long it will take, how far it is, and all seeds.

    Raises:
        ResidualRLError: the run cannot be played, the task tells no success, or the base draws
            random numbers of its own.
    """
    config = settled(config, partial(say, console))
    if config.success == RETURN:
        raise ConfigError(
            f'{config.task} tells no success, and only outcomes tell what choosing among noises is '
            'worth; say how it tells success (--success)'
        )
    run = config.resolve()
    _refuse_own_noise(run)
    noises = options.noises if run.policy.stochastic else 1
    starts = range(options.first_seed, options.first_seed + options.starts)
    _announce(run, starts, noises, options, console)
    outcomes = np.zeros((len(starts), noises), dtype=np.bool_)
    variances = []
    with progress(console, 'playing the base', outcomes.size) as report:
        for done, attempt in enumerate(play_noises(config, starts, noises, options.workers)):
            outcomes[divmod(done, noises)] = attempt.success
            if attempt.variance is not None:
                variances.append(attempt.variance)
            report(done + 1)
    meta = run.policy.metadata
    bound = ResidualBound.from_metadata(meta, config.residual_scale, run.robot.action.is_discrete)
    generator = np.random.default_rng(options.seed)
    measured = np.array(variances) if variances else None
    return diagnose(outcomes, measured, meta.action_names, bound, generator, plays_zero(run))


def _announce(
    run: ResolvedRun, starts: range, noises: int, options: DiagnosisOptions, console: Console
) -> None:
    """Say what will be played, how long it will take, and with which seeds."""
    seconds = round(predicted_seconds(run, starts, noises, options.workers))
    say(
        console,
        f'{run.policy.path.name} on {run.config.task}: {len(starts)} starts x {noises} '
        f'{"noise" if noises == 1 else "noises"}, {len(starts) * noises} episodes, about '
        f'{timedelta(seconds=seconds)} (processes: {options.workers})',
    )
    drawn = f'; {SPREAD_DRAWS} draws a decision for the spread' if run.policy.stochastic else ''
    say(
        console,
        f'seeds: environment {starts.start} to {starts.stop - 1}, noise 0 and the number of the '
        f'episode (environment seed + {NOISE_STRIDE} x noise), resamples {options.seed}{drawn}',
    )


def _refuse_own_noise(run: ResolvedRun) -> None:
    """Refuse a base whose graph draws random numbers: nothing could be chosen or repeated.

    Raises:
        ConfigError: the graph has operators that draw random numbers.
    """
    if run.policy.random_operators:
        raise ConfigError(
            f'{run.policy.path.name} draws random numbers in its graph '
            f'({", ".join(run.policy.random_operators)}): nobody can choose among them; export it '
            'with an input named noise instead (docs/reference/onnx_contract.md)'
        )
