# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compare presets over tasks and seeds: run the grid, aggregate, draw, write a table.

Aggregates follow Agarwal et al., "Deep RL at the Edge of the Statistical Precipice",
arXiv 2108.13264: interquartile means with stratified bootstrap intervals, by `rliable`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import yaml
from rich.console import Console

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.finetune import FinetuneConfig
from residual_rl_ros.learner.checkpoint import checkpoint_exists
from residual_rl_ros.learner.learner import RECENT_EPISODES, EpisodeRecord
from residual_rl_ros.summary import CHECKPOINTS, SUMMARY, read_history, steps_to
from residual_rl_ros.training import TrainOptions, run_training

mpl.use('Agg')
from matplotlib import pyplot as plt

Array = npt.NDArray[np.float64]
BOOTSTRAPS = 5000
LEVEL = 0.9
BIN_STEPS = 2000


class CompareError(ResidualRLError):
    """A comparison cannot be made."""


@dataclass(frozen=True)
class Variant:
    """A preset with changes, as the command line names it: `preset` or `preset:key=value:…`."""

    name: str
    preset: str
    overrides: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read `preset:key=value:key=value`.

        Raises:
            CompareError: a part is no assignment.
        """
        preset, *changes = text.split(':')
        overrides = {}
        for change in changes:
            key, equals, value = change.partition('=')
            if not equals:
                raise CompareError(f'{text!r}: {change!r} is no assignment, expected key=value')
            overrides[key] = yaml.safe_load(value)
        return cls(text, preset, overrides)

    @property
    def folder(self) -> str:
        """Name as a folder."""
        return self.name.replace(':', '__').replace('/', '_')


@dataclass(frozen=True)
class CompareOptions:
    """The grid."""

    configs: Sequence[FinetuneConfig]
    variants: Sequence[Variant]
    seeds: Sequence[int]
    output_dir: Path
    jobs: int
    """Runs at the same time."""
    ray: str | None = None
    """Address of a Ray cluster to run on instead of this machine."""
    curve_steps: int = 6000
    """Control steps between two evaluations during training."""
    paired_seeds: int = 100
    """Episodes of base and of base + residual at the end of each run."""


@dataclass(frozen=True)
class RunResult:
    """What a comparison needs of one run."""

    base: float
    """Success of the base policy on the paired seeds."""
    final: float
    """Success with the residual on the same seeds."""
    curve: Array
    """Control steps and success of the evaluations during training, shape (points, 2)."""
    steps_to_level: float
    """Control steps until success over 50 training episodes first was 90 %; inf if never."""
    excess: Array
    """Success of the training episodes with a residual, exploration included, minus that of the
    base-only ones, for every `BIN_STEPS` control steps since the first; NaN where there were none.
    """
    worst: float | None
    """Lowest success over 50 training episodes with residual, exploration included; None before
    there were as many."""
    rollbacks: int
    """How often the guard rolled back."""


def run_comparison(options: CompareOptions, console: Console) -> dict[str, Any]:
    """Run what is missing of the grid, and write `compare.md`, `.json` and `.png`.

    Runs that were finished are read, runs that were interrupted are continued.

    Raises:
        ResidualRLError: bad input, or a run failed.
    """
    for config in options.configs:
        for variant in options.variants:
            cell_config(config, variant).learner_config()
    cells = [
        (config, variant, seed)
        for seed in options.seeds
        for config in options.configs
        for variant in options.variants
    ]
    missing = [cell for cell in cells if not (cell_folder(options, *cell) / SUMMARY).exists()]
    console.print(f'{len(cells)} runs, {len(cells) - len(missing)} of them done')
    _run_all([train_options(options, *cell) for cell in missing], options, console)
    results = {
        (config.task, variant.name): [
            read_result(cell_folder(options, config, variant, seed)) for seed in options.seeds
        ]
        for config in options.configs
        for variant in options.variants
    }
    report = aggregate(results, len(options.seeds))
    out = options.output_dir
    (out / 'compare.json').write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
    (out / 'compare.md').write_text(to_markdown(report), encoding='utf-8')
    draw_curves(out / 'compare.png', results)
    return report


def cell_config(config: FinetuneConfig, variant: Variant) -> FinetuneConfig:
    """Return the configuration of one variant on one task."""
    return replace(
        config,
        preset=variant.preset,
        # A task's own overrides are tuned for its own preset.
        overrides={
            **(config.overrides if variant.preset == config.preset else {}),
            **variant.overrides,
        },
    )


def cell_folder(
    options: CompareOptions, config: FinetuneConfig, variant: Variant, seed: int
) -> Path:
    """Return the output folder of one run."""
    task = config.task.replace('/', '_').replace(':', '_')
    return options.output_dir / task / variant.folder / f'seed{seed}'


def train_options(
    options: CompareOptions, config: FinetuneConfig, variant: Variant, seed: int
) -> TrainOptions:
    """Return the training run of one cell."""
    folder = cell_folder(options, config, variant, seed)
    return TrainOptions(
        cell_config(config, variant),
        seed,
        folder,
        resume=checkpoint_exists(folder / CHECKPOINTS / 'latest'),
        curve_steps=options.curve_steps,
        paired_seeds=options.paired_seeds,
    )


def _run_quietly(options: TrainOptions) -> str:
    """Run one cell in a worker process; return its folder."""
    run_training(options, Console(quiet=True))
    return str(options.output_dir)


def _run_all(runs: Sequence[TrainOptions], options: CompareOptions, console: Console) -> None:
    try:
        import joblib
    except ImportError as error:
        raise CompareError("compare needs joblib: pip install 'residual_rl_ros[bench]'") from error
    if options.ray is None:
        parallel = joblib.Parallel(options.jobs, backend='loky', return_as='generator_unordered')
        for number, folder in enumerate(parallel(joblib.delayed(_run_quietly)(r) for r in runs)):
            console.print(f'{number + 1}/{len(runs)} {folder}')
        return
    for number, folder in enumerate(_on_ray(runs, options.ray)):
        console.print(f'{number + 1}/{len(runs)} {folder}')


def _on_ray(runs: Sequence[TrainOptions], address: str) -> Any:
    """Yield the folders of runs as a Ray cluster finishes them; they share a file system."""
    try:
        import ray
    except ImportError as error:
        raise CompareError("--ray needs Ray: pip install 'residual_rl_ros[ray]'") from error
    try:
        ray.init(address=address, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise CompareError(f'no Ray cluster at {address!r}: {error}') from error
    try:
        remote: Callable[..., Any] = ray.remote(num_cpus=1)(_run_quietly).remote
        waiting = [remote(replace(run, output_dir=run.output_dir.resolve())) for run in runs]
        while waiting:
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    finally:
        ray.shutdown()


def read_result(folder: Path) -> RunResult:
    """Read a finished run.

    Raises:
        CompareError: its summary is missing or lacks the evaluations.
    """
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding='utf-8'))
        base, final = (float(summary[key]['success']) for key in ('base', 'final'))
        rollbacks = int(summary['rollbacks'])
        curve = np.array(summary['evaluations'], dtype=np.float64).reshape(-1, 2)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CompareError(f'{str(folder)!r} holds no finished run: {error}') from error
    history = read_history(folder)
    reached = steps_to(LEVEL, history)
    return RunResult(
        base,
        final,
        curve,
        float('inf') if reached is None else reached,
        excess_over_base(history, base),
        worst_success(history),
        rollbacks,
    )


def excess_over_base(history: Sequence[EpisodeRecord], otherwise: float) -> Array:
    """Return success minus that of the base-only episodes, per `BIN_STEPS` control steps.

    Args:
        history: episodes of a run.
        otherwise: success of the base on other seeds, for a run without base-only episodes.
    """
    rated = [record for record in history if record.success is not None]
    base = [float(bool(record.success)) for record in rated if not record.residual]
    base_success = float(np.mean(base)) if base else otherwise
    residual = [record for record in rated if record.residual]
    if not residual:
        return np.zeros(0)
    steps = np.array([record.control_steps for record in residual])
    outcomes = np.array([record.success for record in residual], dtype=np.float64)
    bins = (steps - steps[0]) // BIN_STEPS
    count, successes = np.bincount(bins), np.bincount(bins, weights=outcomes)
    return np.where(count, successes / np.maximum(count, 1), np.nan) - base_success


def worst_success(history: Sequence[EpisodeRecord]) -> float | None:
    """Return the lowest success over 50 consecutive training episodes with a residual, if any."""
    outcomes = [r.success for r in history if r.residual and r.success is not None]
    if len(outcomes) < RECENT_EPISODES:
        return None
    window = np.ones(RECENT_EPISODES) / RECENT_EPISODES
    return float(np.convolve(np.array(outcomes, dtype=np.float64), window, 'valid').min())


def aggregate(results: Mapping[tuple[str, str], Sequence[RunResult]], seeds: int) -> dict[str, Any]:
    """Return the figures of every task and variant, and over all tasks.

    Args:
        results: runs by (task, variant); the first variant is compared with the others.
        seeds: number of runs of each.
    """
    try:
        from rliable import library, metrics
    except ImportError as error:
        raise CompareError("compare needs rliable: pip install 'residual_rl_ros[bench]'") from error
    tasks = list(dict.fromkeys(task for task, _ in results))
    names = list(dict.fromkeys(name for _, name in results))
    final = {
        name: np.array([[run.final for run in results[task, name]] for task in tasks]).T
        for name in names
    }

    def interquartile_mean(scores: Array) -> Array:
        return np.array([metrics.aggregate_iqm(scores)])

    def estimate(scores: Any, function: Any) -> Any:
        generator = np.random.RandomState(0)
        points, intervals = library.get_interval_estimates(
            scores, function, reps=BOOTSTRAPS, random_state=generator
        )
        return {
            name: [float(np.ravel(points[name])[0]), *np.ravel(intervals[name]).tolist()]
            for name in points
        }

    pairs = {f'{names[0]} > {name}': (final[names[0]], final[name]) for name in names[1:]}
    return {
        'seeds': seeds,
        'tasks': {task: {name: _describe(results[task, name]) for name in names} for task in tasks},
        'iqm': estimate(final, interquartile_mean),
        'probability_of_improvement': (
            estimate(pairs, metrics.probability_of_improvement) if pairs else {}
        ),
    }


def _describe(runs: Sequence[RunResult]) -> dict[str, Any]:
    steps = np.array([run.steps_to_level for run in runs])
    reached = np.isfinite(steps)
    median = float(np.median(steps))
    dips = [run.base - run.worst for run in runs if run.worst is not None]
    length = min(len(run.excess) for run in runs)
    excess = np.array([run.excess[:length] for run in runs]).mean(0)
    lowest = float(np.nanmin(excess)) if np.isfinite(excess).any() else None
    return {
        'base': round(float(np.mean([run.base for run in runs])), 4),
        'final': [run.final for run in runs],
        'final_mean': round(float(np.mean([run.final for run in runs])), 4),
        'steps_to_90': [int(step) if np.isfinite(step) else None for step in steps],
        'steps_to_90_median': int(median) if np.isfinite(median) else None,
        'reached_90': int(reached.sum()),
        'worst_training': [run.worst for run in runs],
        'rollbacks': [run.rollbacks for run in runs],
        'dip_mean': round(float(np.mean(dips)), 4) if dips else None,
        'excess_over_base': [None if np.isnan(x) else round(float(x), 4) for x in excess],
        'dip_of_mean': None if lowest is None else round(max(0.0, -lowest), 4),
    }


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return the figures as tables."""
    lines = []
    for task, variants in report['tasks'].items():
        lines += [
            f'## {task}',
            '',
            f'{report["seeds"]} seeds. Success on paired seeds; steps are control steps until '
            f'{RECENT_EPISODES} training episodes succeeded at 90 %. Dip is how far the training '
            f'episodes fall below the base-only ones: averaged over the seeds, in the worst '
            f'{BIN_STEPS} control steps; and in the worst {RECENT_EPISODES} episodes of each seed, '
            'averaged, to which chance adds.',
            '',
            '| variant | base | final, each seed | mean | steps to 90 %, median (reached) | '
            'dip of the mean | mean of the dips | rollbacks |',
            '|---|---|---|---|---|---|---|---|',
        ]
        for name, entry in variants.items():
            steps = entry['steps_to_90_median']
            of_mean, mean = (
                '-' if entry[key] is None else f'{100 * entry[key]:.0f} points'
                for key in ('dip_of_mean', 'dip_mean')
            )
            lines.append(
                f'| `{name}` | {entry["base"]:.0%} | '
                f'{" ".join(f"{value:.0%}" for value in entry["final"])} | '
                f'{entry["final_mean"]:.1%} | '
                f'{"not reached" if steps is None else steps} '
                f'({entry["reached_90"]}/{report["seeds"]}) | '
                f'{of_mean} | {mean} | {sum(entry["rollbacks"])} |'
            )
        lines.append('')
    lines += ['## all tasks', '', '| | estimate | 95 % interval |', '|---|---|---|']
    for name, (point, low, high) in report['iqm'].items():
        lines.append(f'| IQM of final success, `{name}` | {point:.3f} | {low:.3f} to {high:.3f} |')
    for name, (point, low, high) in report['probability_of_improvement'].items():
        lines.append(f'| P({name}) | {point:.2f} | {low:.2f} to {high:.2f} |')
    return '\n'.join(lines) + '\n'


def draw_curves(path: Path, results: Mapping[tuple[str, str], Sequence[RunResult]]) -> None:
    """Draw the evaluations during training: every seed thin, their mean thick."""
    tasks = list(dict.fromkeys(task for task, _ in results))
    names = list(dict.fromkeys(name for _, name in results))
    figure, row = plt.subplots(
        1, len(tasks), figsize=(6.0 * len(tasks), 4.0), dpi=150, squeeze=False, sharey=True
    )
    for axes, task in zip(row[0], tasks, strict=True):
        for colour, name in zip(plt.get_cmap('tab10').colors, names, strict=False):  # type: ignore[attr-defined]
            runs = [run for run in results[task, name] if len(run.curve)]
            if not runs:
                continue
            for run in runs:
                axes.plot(run.curve[:, 0], run.curve[:, 1], color=colour, linewidth=0.5, alpha=0.4)
            grid = np.linspace(0.0, min(run.curve[-1, 0] for run in runs), 50)
            mean = np.mean([np.interp(grid, *run.curve.T) for run in runs], axis=0)
            axes.plot(grid, mean, color=colour, linewidth=2.0, label=name)
        axes.axhline(results[task, names[0]][0].base, color='0.5', linestyle='--', linewidth=1.0)
        axes.set(title=task, xlabel='control steps', ylim=(0.0, 1.02))
        axes.spines[['top', 'right']].set_visible(False)
    row[0][0].set_ylabel('success')
    row[0][0].legend(loc='lower right', fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
