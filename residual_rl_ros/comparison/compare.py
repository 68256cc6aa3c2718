# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compare presets over tasks and seeds: run the grid, aggregate, draw, write a table.

Aggregates follow Agarwal et al., "Deep RL at the Edge of the Statistical Precipice",
arXiv 2108.13264: interquartile means with stratified bootstrap intervals.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from rich.console import Console

from residual_rl_ros.comparison.grid import (
    BIN_STEPS,
    RETURN,
    SUCCESS,
    CompareOptions,
    RunResult,
    cell_config,
    cell_folder,
    is_done,
    read_result,
    run_grid,
    train_options,
)
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.evaluation.intervals import (
    RESAMPLES,
    interquartile_mean,
    probability_of_improvement,
)
from residual_rl_ros.evaluation.progress import say
from residual_rl_ros.learner.episodes import RECENT_EPISODES
from residual_rl_ros.resources import write_text
from residual_rl_ros.tasks.success_probe import settle_success
from residual_rl_ros.training.run_folder import write_json

mpl.use('Agg')

Array = npt.NDArray[np.float64]


def run_comparison(options: CompareOptions, console: Console) -> dict[str, Any]:
    """Run what is missing of the grid, and write `compare.md`, `.json` and `.png`.

    Runs that were finished are read, runs that were interrupted are continued. Where runs fail, the
    results are of the seeds for which no run did.

    Raises:
        ResidualRLError: bad input, runs failed, or a folder holds a run that is not of the grid.
    """
    for config in options.configs:
        for variant in options.variants:
            cell_config(config, variant).learner_config()

    def tell(text: str) -> None:
        say(console, text)

    options = replace(
        options,
        configs=[
            config.told_by(settle_success(config.task, config.success, tell))
            for config in options.configs
        ],
    )
    cells = [
        (config, variant, seed)
        for seed in options.seeds
        for config in options.configs
        for variant in options.variants
    ]
    runs = [train_options(options, *cell) for cell in cells]
    if options.recordings.paths and not any(run.recordings.paths for run in runs):
        raise ResidualRLError(
            'no preset of this comparison samples demonstrations; add one with '
            'demonstration_share > 0, such as resfit, or leave --demonstrations out'
        )
    folders = Counter(run.output_dir for run in runs)
    for folder, count in folders.items():
        if count > 1:
            raise ResidualRLError(
                f'{count} runs of this comparison would share {str(folder)!r}; give every task, '
                'variant and seed once, and two configurations of one task another --out each'
            )
    missing = [run for run in runs if not is_done(run)]
    say(console, f'{len(runs)} runs, {len(runs) - len(missing)} of them done')
    failed = run_grid(missing, options, console)
    spoilt = {cell[2] for cell, run in zip(cells, runs, strict=True) if run.output_dir in failed}
    seeds = [seed for seed in options.seeds if seed not in spoilt]
    report = _write_results(options, seeds) if seeds else {}
    if failed:
        reasons = '; '.join(f'{folder}: {reason}' for folder, reason in failed.items())
        left = (
            f'the results in {str(options.output_dir)!r} are of seeds {", ".join(map(str, seeds))}'
            if seeds
            else 'there are no results'
        )
        raise ResidualRLError(
            f'{len(failed)} of {len(missing)} runs failed: {reasons}; {left}; the same command '
            'runs these again'
        )
    return report


def _write_results(options: CompareOptions, seeds: Sequence[int]) -> dict[str, Any]:
    """Write the results of the seeds for which every run is finished."""
    results = {
        (config.task, variant.name): [
            read_result(cell_folder(options, config, variant, seed)) for seed in seeds
        ]
        for config in options.configs
        for variant in options.variants
    }
    report = aggregate(results, len(seeds), np.random.default_rng(0))
    out = options.output_dir
    write_json(out / 'compare.json', report)
    write_text(out / 'compare.md', to_markdown(report))
    draw_curves(out / 'compare.png', results)
    return report


def aggregate(
    results: Mapping[tuple[str, str], Sequence[RunResult]],
    seeds: int,
    generator: np.random.Generator,
) -> dict[str, Any]:
    """Return the results of every task and variant, and over all tasks.

    Args:
        results: runs by (task, variant); the first variant is compared with the others.
        seeds: number of runs of each.
        generator: source of the resamples that the intervals come from.
    """
    tasks = list(dict.fromkeys(task for task, _ in results))
    names = list(dict.fromkeys(name for _, name in results))
    described = {task: {name: _describe(results[task, name]) for name in names} for task in tasks}
    for task, variants in described.items():
        first = _steps(results[task, names[0]])
        for name in names[1:]:
            variants[name]['steps_ratio'] = [
                round(float(x), 3) if 0.0 < x < np.inf else None
                for x in ratio_of_medians(first, _steps(results[task, name]), generator)
            ]
    final = {
        name: np.array([[run.final for run in results[task, name]] for task in tasks]).T
        for name in names
    }
    measures = [results[task, names[0]][0].measure for task in tasks]
    told = [index for index, measure in enumerate(measures) if measure == SUCCESS]
    mean = {
        name: interquartile_mean(scores[:, told], generator)
        for name, scores in final.items()
        if told
    }
    # Returns of two tasks have no common scale.
    returns = {
        task: {
            name: list(astuple(interquartile_mean(scores[:, [index]], generator)))
            for name, scores in final.items()
        }
        for index, task in enumerate(tasks)
        if index not in told
    }
    improvement = {
        f'{names[0]} > {name}': probability_of_improvement(final[names[0]], final[name], generator)
        for name in names[1:]
    }
    return {
        'seeds': seeds,
        'tasks': described,
        'iqm': {name: list(astuple(estimate)) for name, estimate in mean.items()},
        'iqm_of_returns': returns,
        'probability_of_improvement': {
            name: list(astuple(estimate)) for name, estimate in improvement.items()
        },
    }


def ratio_of_medians(
    first: Array, other: Array, generator: np.random.Generator
) -> tuple[float, float, float]:
    """Return median(other) / median(first) of the steps to a level, and its 95 % interval.

    The interval is the bootstrap's percentiles over the runs of each. A run that never got there
    has infinite steps; a resample in which neither variant did can be anything and counts against
    both ends.
    """

    def medians(steps: Array) -> Array:
        drawn: Array = np.median(generator.choice(steps, (RESAMPLES, len(steps))), axis=1)
        return drawn

    with np.errstate(invalid='ignore'):
        point = np.median(other) / np.median(first)
        ratios = medians(other) / medians(first)
    unknown = np.isnan(ratios)
    low = np.quantile(np.where(unknown, 0.0, ratios), 0.025, method='inverted_cdf')
    high = np.quantile(np.where(unknown, np.inf, ratios), 0.975, method='inverted_cdf')
    return float(point), float(low), float(high)


def _steps(runs: Sequence[RunResult]) -> Array:
    return np.array([run.steps_to_level for run in runs])


def _describe(runs: Sequence[RunResult]) -> dict[str, Any]:
    steps = _steps(runs)
    reached = np.isfinite(steps)
    median = float(np.median(steps))
    dips = [run.base_in_training - run.worst for run in runs if run.worst is not None]
    length = min(len(run.excess) for run in runs)
    excess = np.array([run.excess[:length] for run in runs]).mean(0)
    lowest = float(np.nanmin(excess)) if np.isfinite(excess).any() else None
    return {
        'measure': runs[0].measure,
        'base': round(float(np.mean([run.base for run in runs])), 4),
        'base_in_training': [round(run.base_in_training, 4) for run in runs],
        'final': [run.final for run in runs],
        'final_mean': round(float(np.mean([run.final for run in runs])), 4),
        'steps_to_90': [int(step) if np.isfinite(step) else None for step in steps],
        'steps_to_90_median': int(median) if np.isfinite(median) else None,
        'reached_90': int(reached.sum()),
        'steps_ratio': None,
        'worst_training': [run.worst for run in runs],
        'far_below': [run.far_below for run in runs],
        'rollbacks': [run.rollbacks for run in runs],
        'dip_mean': round(float(np.mean(dips)), 4) if dips else None,
        'excess_over_base': [None if np.isnan(x) else round(float(x), 4) for x in excess],
        'dip_of_mean': None if lowest is None else round(max(0.0, -lowest), 4),
    }


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return the results as tables."""
    lines = []
    for task, variants in report['tasks'].items():
        if next(iter(variants.values()))['measure'] == RETURN:
            lines += _returns_table(task, report['seeds'], variants)
            continue
        lines += [
            f'## {task}',
            '',
            f'{report["seeds"]} seeds. Success on paired seeds; steps are control steps until '
            f'{RECENT_EPISODES} training episodes succeeded at 90 %, and their ratio is that of '
            'the medians, to the first variant, with its 95 % bootstrap interval. Dip is how far '
            'the training episodes fall below the base-only ones of the same run (without any: '
            f'below the paired base): averaged over the seeds, in the worst {BIN_STEPS} control '
            f'steps; and in the worst {RECENT_EPISODES} episodes of each seed, averaged, to which '
            'chance adds. Far below: the longest row of training episodes in which success over '
            f'{RECENT_EPISODES} was more than 10 points below the same.',
            '',
            '| variant | base | final, each seed | mean | steps to 90 %, median (reached) | '
            'steps, ratio to the first | dip of the mean | mean of the dips | '
            'far below, each seed | rollbacks |',
            '|---|---|---|---|---|---|---|---|---|---|',
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
                f'{_ratio(entry["steps_ratio"])} | '
                f'{of_mean} | {mean} | {" ".join(map(str, entry["far_below"]))} | '
                f'{sum(entry["rollbacks"])} |'
            )
        lines.append('')
    lines += ['## all tasks', '', '| | estimate | 95 % interval |', '|---|---|---|']
    for name, (point, *interval) in report['iqm'].items():
        lines.append(f'| IQM of final success, `{name}` | {point:.3f} | {_interval(interval, 3)} |')
    for task, estimates in report['iqm_of_returns'].items():
        for name, (point, low, high) in estimates.items():
            ends = ' to '.join('?' if end is None else f'{end:.4g}' for end in (low, high))
            lines.append(f'| IQM of final return, {task}, `{name}` | {point:.4g} | {ends} |')
    for name, (point, *interval) in report['probability_of_improvement'].items():
        lines.append(f'| P({name}) | {point:.2f} | {_interval(interval, 2)} |')
    return '\n'.join(lines) + '\n'


def _returns_table(task: str, seeds: int, variants: Mapping[str, Any]) -> list[str]:
    """Return the table of a task that tells no success."""
    lines = [
        *(f'## {task}', ''),
        f'{seeds} seeds. The task tells no success: episodes are unlabelled, and the mean returns '
        'on paired seeds are compared.',
        '',
        '| variant | base | final, each seed | mean | gain over the base | rollbacks |',
        '|---|---|---|---|---|---|',
    ]
    for name, entry in variants.items():
        lines.append(
            f'| `{name}` | {entry["base"]:.4g} | '
            f'{" ".join(f"{value:.4g}" for value in entry["final"])} | '
            f'{entry["final_mean"]:.4g} | {entry["final_mean"] - entry["base"]:+.4g} | '
            f'{sum(entry["rollbacks"])} |'
        )
    return [*lines, '']


def _ratio(values: Sequence[float | None] | None) -> str:
    """Return a ratio with its interval; an end that is not finite is open."""
    if values is None:
        return '-'
    point, low, high = ('?' if value is None else f'{value:.2f}' for value in values)
    return f'{point} [{low}, {high}]'


def _interval(ends: Sequence[float | None], digits: int) -> str:
    """Return an interval; one seed has none."""
    return ' to '.join('?' if end is None else f'{end:.{digits}f}' for end in ends)


def draw_curves(path: Path, results: Mapping[tuple[str, str], Sequence[RunResult]]) -> None:
    """Draw the evaluations during training: every seed thin, their mean thick."""
    tasks = list(dict.fromkeys(task for task, _ in results))
    names = list(dict.fromkeys(name for _, name in results))
    figure, row = plt.subplots(
        1, len(tasks), figsize=(6.0 * len(tasks), 4.0), dpi=150, squeeze=False
    )
    for axes, task in zip(row[0], tasks, strict=True):
        # Ten colours, then the same ones with another line.
        styles = itertools.cycle(itertools.product(('-', '--', ':', '-.'), range(10)))
        for (line, number), name in zip(styles, names, strict=False):
            colour = f'C{number}'
            runs = [run for run in results[task, name] if len(run.curve)]
            if not runs:
                continue
            for run in runs:
                axes.plot(run.curve[:, 0], run.curve[:, 1], color=colour, linewidth=0.5, alpha=0.4)
            grid = np.linspace(0.0, min(run.curve[-1, 0] for run in runs), 50)
            mean = np.mean([np.interp(grid, *run.curve.T) for run in runs], axis=0)
            axes.plot(grid, mean, line, color=colour, linewidth=2.0, label=name)
        axes.axhline(results[task, names[0]][0].base, color='0.5', linestyle='--', linewidth=1.0)
        measure = results[task, names[0]][0].measure
        axes.set(title=task, xlabel='control steps', ylabel=measure)
        if measure == SUCCESS:
            axes.set_ylim(0.0, 1.02)
        axes.spines[['top', 'right']].set_visible(False)
    if row[0][0].get_legend_handles_labels()[0]:  # There are none without evaluations.
        row[0][0].legend(loc='lower right', fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
