# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What finished runs came to: curves over control steps, and the figures that follow from them.

All of it is about evaluations of the policy that does not explore, on scenes that the base plays
too. Intervals are percentiles of `hierarchical_means`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from residual_rl_ros.comparison.protocol import Judgement
from residual_rl_ros.config.success import SUCCESS
from residual_rl_ros.errors import FormatError, ResidualRLError
from residual_rl_ros.evaluation.curves import area_under, first_passage, hierarchical_means
from residual_rl_ros.evaluation.intervals import Estimate
from residual_rl_ros.files.json_text import read_run_json
from residual_rl_ros.numerics import Array
from residual_rl_ros.training.curve import LearningCurve
from residual_rl_ros.training.run_folder import SUMMARY

POINTS = 200
"""Most points of the common grid of control steps."""


@dataclass(frozen=True)
class RunResult:
    """Results of one run."""

    measure: str
    """`success`, or `return` where the task tells none."""
    steps: Array
    """Control steps of the evaluations, 0 (the base) first, shape (points,)."""
    outcomes: Array
    """Outcome of each scene at each, shape (points, scenes)."""
    base: Array
    """Outcome of the base on each scene of the end, shape (final scenes,)."""
    final: Array
    """Outcome of what was learned on the same scenes."""
    control_steps: int
    rate_hz: float
    """Control rate [Hz]."""
    episodes: int
    """Training episodes."""
    failed_episodes: int
    rollbacks: int
    operator_minutes: float | None
    """Time for which an operator commanded; None where there was none."""
    wall_s: float
    commit: str
    """Of the source tree that it ran with; empty outside of one."""
    returns: Array | None = None
    """Returns taken apart, shape (base and final, basic and add-on, final scenes); None without an
    add-on."""

    @property
    def worst(self) -> float:
        """How far the worst evaluation is below the base on the same scenes; 0 if none is."""
        means = self.outcomes.mean(1)
        return max(0.0, float((means[0] - means).max()))


def read_result(folder: Path) -> RunResult:
    """Read a finished run.

    Raises:
        ResidualRLError: its summary is missing or lacks the evaluations.
    """
    try:
        summary = read_run_json(folder / SUMMARY)
        curve = LearningCurve.of_mapping(summary['evaluations'])
        scenes = summary['scenes']
        base, final = (np.array(scenes[key], dtype=np.float64) for key in ('base', 'final'))
        # Without evaluations during training the end is the only one.
        ends = [(int(summary['control_steps']), final)]
        points = curve.points if curve.base else ends
        outcomes = np.array([curve.base or base, *(row for _, row in points)], dtype=np.float64)
        minutes = summary.get('operator_minutes') or None  # Without an operator it is 0.
        result = RunResult(
            curve.measure,
            np.array([0, *(at for at, _ in points)], dtype=np.float64),
            outcomes,
            base,
            final,
            int(summary['control_steps']),
            float(summary['control_rate_hz']),
            int(summary['episodes']),
            int(summary['failed_episodes']),
            int(summary['rollbacks']),
            None if minutes is None else float(minutes),
            float(summary['wall_s']),
            str(summary['git_commit'] or ''),
            _returns(scenes.get('returns'), len(base)),
        )
        if base.shape != final.shape or base.ndim != 1 or not len(base) or outcomes.ndim != 2:
            raise ValueError('base and residual were not evaluated on the same scenes')
        if not (np.diff(result.steps) > 0.0).all() or not len(points):
            raise ValueError('there are no evaluations in order of control steps')
        numbers = (base, final, outcomes, result.rate_hz, result.wall_s)
        if not all(np.isfinite(each).all() for each in numbers) or result.rate_hz <= 0.0:
            raise ValueError('an outcome, a time or a rate is no number')
    except (FormatError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ResidualRLError(f'{str(folder)!r} holds no finished run: {error!r}') from error
    return result


def _returns(stored: Any, scenes: int) -> Array | None:
    """Return the returns of a summary taken apart, None if it has none.

    Raises:
        ValueError: they are of other scenes, or no numbers.
    """
    if stored is None:
        return None
    sides, parts = ('base', 'final'), ('basic', 'add_on')
    found = np.array([[stored[side][part] for part in parts] for side in sides], dtype=np.float64)
    if found.shape != (2, 2, scenes) or not np.isfinite(found).all():
        raise ValueError(f'returns of shape {found.shape}, expected numbers (2, 2, {scenes})')
    return found


@dataclass(frozen=True)
class Curve:
    """The mean curve of a method on a task."""

    steps: Array
    """Control steps, shape (points,)."""
    mean: Array
    """Mean over seeds and scenes, shape (points,)."""
    resampled: Array
    """The same of every resample, shape (resamples, points); none of fewer than three seeds."""
    measure: str = SUCCESS

    @classmethod
    def of(cls, runs: Sequence[RunResult], generator: np.random.Generator) -> Curve:
        """Return the mean of runs, on a common grid of control steps that the shortest reaches.

        Args:
            runs: of one method on one task; evaluated on as many scenes each.
            generator: source of the resamples.
        """
        end = min(run.steps[-1] for run in runs)
        count = max(2, min(POINTS, min(len(run.steps) for run in runs)))
        grid = np.linspace(0.0, end, count)
        outcomes = np.array([_at(grid, run) for run in runs])
        resampled = hierarchical_means(outcomes, generator)
        if runs[0].measure == SUCCESS:
            resampled = resampled.clip(0.0, 1.0)
        return cls(grid, outcomes.mean((0, 2)), resampled, runs[0].measure)

    def _estimate(self, function: Any) -> Estimate:
        """Return what a function says of the mean curve, and of those of the resamples."""
        return Estimate.of(float(function(self.mean[None])[0]), function(self.resampled))

    @property
    def area(self) -> Estimate:
        """Area under the curve, as the mean over the control steps."""
        return self._estimate(lambda curves: area_under(self.steps, curves))

    def _passage(self, curves: Array, level: float | None, gain: float) -> Array:
        levels = curves[:, 0] + gain if level is None else np.full(len(curves), level)
        return first_passage(self.steps, curves, levels)

    def passage(self, level: float | None, gain: float = 0.0) -> Estimate:
        """Return the control steps at which it passes a level; infinite if it never does.

        Args:
            level: the level; None is that of the base, which a resample changes too.
            gain: how far above the base, without a level.
        """
        return self._estimate(lambda curves: self._passage(curves, level, gain))

    def ratio(self, other: Curve, level: float) -> Estimate | None:
        """Return this curve's control steps to a level, divided by another's; None if unknown.

        Where neither is ever there, the ratio is unknown; such a resample counts against both ends.
        """
        own, its = (
            (
                float(each._passage(each.mean[None], level, 0.0)[0]),
                each._passage(each.resampled, level, 0.0),
            )
            for each in (self, other)
        )
        if not np.isfinite(own[0]) and not np.isfinite(its[0]):
            return None
        with np.errstate(invalid='ignore', divide='ignore'):
            point = float(np.divide(own[0], its[0]))
            count = min(len(own[1]), len(its[1]))
            ratios = own[1][:count] / its[1][:count]
        if not count:
            return Estimate(point, None, None)
        unknown = np.isnan(ratios)
        low = Estimate.of(point, np.where(unknown, 0.0, ratios)).low
        high = Estimate.of(point, np.where(unknown, np.inf, ratios)).high
        return Estimate(point, low, high)


def _at(grid: Array, run: RunResult) -> Array:
    """Return the outcomes at control steps between the evaluations, shape (points, scenes)."""
    after = np.searchsorted(run.steps, grid).clip(1, len(run.steps) - 1)
    low, high = run.steps[after - 1], run.steps[after]
    share = ((grid - low) / (high - low))[:, None]
    between: Array = (1.0 - share) * run.outcomes[after - 1] + share * run.outcomes[after]
    return between


def final_estimates(
    runs: Sequence[RunResult], generator: np.random.Generator
) -> tuple[Estimate, Estimate, Estimate]:
    """Return base, final and final - base on the scenes of the end; the last one is paired."""
    values = np.array([[run.base, run.final, run.final - run.base] for run in runs])
    resampled = hierarchical_means(values, generator)
    if runs[0].measure == SUCCESS:
        resampled = resampled.clip((0.0, 0.0, -1.0), 1.0)
    mean = values.mean((0, 2))
    base, final, gain = (Estimate.of(float(mean[i]), resampled[:, i]) for i in range(3))
    return base, final, gain


def returns_apart(
    runs: Sequence[RunResult], generator: np.random.Generator
) -> dict[str, Any] | None:
    """Return base and final returns, basic, add-on and total, as JSON values; None without add-on.

    Args:
        runs: one for each seed.
        generator: source of the resamples.
    """
    each = [run.returns for run in runs if run.returns is not None]
    if len(each) < len(runs):
        return None
    values = np.array(each)
    parts = np.concatenate([values, values.sum(2, keepdims=True)], axis=2)
    gain = parts[:, 1:, 2] - parts[:, :1, 2]
    columns = np.concatenate([parts[:, 0], parts[:, 1], gain], axis=1)
    resampled = hierarchical_means(columns, generator)
    estimates = [
        _plain(Estimate.of(float(mean), resampled[:, index]))
        for index, mean in enumerate(columns.mean((0, 2)))
    ]
    names = ('basic', 'add_on', 'total')
    base, final = (dict(zip(names, side, strict=True)) for side in (estimates[:3], estimates[3:6]))
    return {'base': base, 'final': final, 'gain': estimates[6]}


def describe(
    runs: Sequence[RunResult],
    curve: Curve,
    first: Curve,
    judgement: Judgement,
    generator: np.random.Generator,
) -> dict[str, Any]:
    """Return the figures of a method on a task, as JSON values.

    Args:
        runs: one for each seed.
        curve: their mean curve.
        first: that of the method which the others are compared with.
        judgement: the levels.
        generator: source of the resamples.
    """
    base, final, gain = final_estimates(runs, generator)
    by_success = curve.measure == SUCCESS
    worst = [run.worst for run in runs]
    operator = [run.operator_minutes for run in runs if run.operator_minutes is not None]
    per_minute = 60.0 * runs[0].rate_hz
    passage = {
        'steps_to_level': curve.passage(judgement.level) if by_success else None,
        'steps_to_gain': curve.passage(None, judgement.gain) if by_success else None,
    }
    ratio = curve.ratio(first, judgement.level) if by_success and curve is not first else None
    ends = [None if end is None else end.tolist() for end in _band(curve)]
    apart = returns_apart(runs, generator)
    return {
        'measure': curve.measure,
        'seeds': len(runs),
        'base': _plain(base),
        'final': _plain(final),
        'gain': _plain(gain),
        'area': _plain(curve.area),
        **{key: None if each is None else _plain(each) for key, each in passage.items()},
        **{
            key.replace('steps', 'minutes'): None if each is None else _plain(each, per_minute)
            for key, each in passage.items()
        },
        'ratio_to_first': None if ratio is None else _plain(ratio),
        'worst_below_base': {'mean': float(np.mean(worst)), 'worst_seed': max(worst)},
        'failed_episodes': float(np.mean([run.failed_episodes for run in runs]))
        if by_success
        else None,
        'episodes': float(np.mean([run.episodes for run in runs])),
        'rollbacks': sum(run.rollbacks for run in runs),
        'operator_minutes': float(np.mean(operator)) if operator else None,
        **({} if apart is None else {'returns': apart}),
        'final_each_seed': [float(run.final.mean()) for run in runs],
        'wall_s': float(np.mean([run.wall_s for run in runs])),
        'curve': {
            'steps': curve.steps.tolist(),
            'mean': curve.mean.tolist(),
            'low': ends[0],
            'high': ends[1],
        },
    }


def _band(curve: Curve) -> tuple[Array | None, Array | None]:
    """Return the ends of the 95 % interval at each point."""
    if not len(curve.resampled):
        return None, None
    low, high = np.quantile(curve.resampled, (0.025, 0.975), axis=0)
    return low, high


def _plain(estimate: Estimate, unit: float = 1.0) -> dict[str, Any]:
    """Return an estimate as JSON values, in another unit; what is infinite is `never`."""

    def value(number: float | None) -> float | str | None:
        if number is None:
            return None
        return number / unit if np.isfinite(number) else 'never'

    return {key: value(number) for key, number in asdict(estimate).items()}
