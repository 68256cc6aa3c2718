# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The report of a grid: Markdown, JSON, curves with bands, and tables on a terminal.

Aggregates over tasks follow Agarwal et al., "Deep RL at the Edge of the Statistical Precipice",
arXiv 2108.13264: interquartile means with stratified bootstrap intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table

from residual_rl_ros.comparison.protocol import Judgement
from residual_rl_ros.comparison.results import Curve, RunResult, describe
from residual_rl_ros.config.success import RETURN, SUCCESS
from residual_rl_ros.evaluation.intervals import interquartile_mean, probability_of_improvement

mpl.use('Agg')
Results = Mapping[tuple[str, str], Sequence[RunResult]]
"""Runs by (task, method)."""
LARGE_GAIN = 0.25
"""Gain that the overview counts."""


def summarise(
    results: Results, judgement: Judgement, development: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Return the figures of every task and method, and those over all tasks, as JSON values.

    Args:
        results: finished runs; the first method of each task is compared with the others.
        judgement: the levels.
        development: tasks that methods were tuned on; they do not count in what is over all tasks.
        seed: of the resamples.
    """
    generator = np.random.default_rng(seed)
    tasks: dict[str, dict[str, Any]] = {}
    firsts: dict[str, Curve] = {}
    for (task, method), runs in results.items():
        curve = Curve.of(runs, generator)
        first = firsts.setdefault(task, curve)
        tasks.setdefault(task, {})[method] = describe(runs, curve, first, judgement, generator)
    counted = [
        task
        for task, methods in tasks.items()
        if task not in development and next(iter(methods.values()))['measure'] == SUCCESS
    ]
    return {
        'level': judgement.level,
        'gain': judgement.gain,
        'development': [task for task in tasks if task in development],
        'tasks': tasks,
        'over_all_tasks': _overview(tasks, counted) | _aggregates(results, counted, generator),
        'commits': sorted({run.commit for runs in results.values() for run in runs}),
    }


def _overview(tasks: Mapping[str, Any], counted: Sequence[str]) -> dict[str, Any]:
    """Return on how many tasks each method gets how far."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for task in counted for name in tasks[task]):
        entries = [tasks[task][name] for task in counted if name in tasks[task]]
        reached = [entry['steps_to_level']['point'] != 'never' for entry in entries]
        found[name] = {
            'tasks': len(entries),
            'large_gain': sum(entry['gain']['point'] >= LARGE_GAIN for entry in entries),
            'reached': sum(reached),
            'gain': float(np.mean([entry['gain']['point'] for entry in entries])),
            'worst_below_base': max(entry['worst_below_base']['mean'] for entry in entries),
            'worst_seed': max(entry['worst_below_base']['worst_seed'] for entry in entries),
        }
    return {'methods': found}


def _aggregates(
    results: Results, counted: Sequence[str], generator: np.random.Generator
) -> dict[str, Any]:
    """Return interquartile means, and who beats whom, of methods that ran on every task."""
    names = dict.fromkeys(name for task, name in results if task in counted)
    scores = {}
    for name in names:
        runs = [results[task, name] for task in counted if (task, name) in results]
        if len(runs) == len(counted):
            # The bootstrap wants as many runs of each task.
            common = min(map(len, runs))
            finals = [[run.final.mean() for run in each[:common]] for each in runs]
            scores[name] = np.array(finals).T
    means = {
        name: list(astuple(interquartile_mean(each, generator))) for name, each in scores.items()
    }
    first, *others = scores or ['']
    improvement = {
        f'{first} > {other}': list(
            astuple(probability_of_improvement(scores[first], scores[other], generator))
        )
        for other in others
    }
    return {'iqm': means, 'probability_of_improvement': improvement}


Rows = list[tuple[str, ...]]


def tables(report: Mapping[str, Any]) -> list[tuple[str, Rows]]:
    """Return title and rows of each table, the head first."""
    made: list[tuple[str, Rows]] = []
    for task, methods in report['tasks'].items():
        kind = ' (development)' if task in report['development'] else ''
        by_success = next(iter(methods.values()))['measure'] == SUCCESS
        rows = _success_rows(report, methods) if by_success else _return_rows(methods)
        rows = _with_returns(rows, methods)
        made.append((f'{task}{kind}', rows))
    overall = report['over_all_tasks']
    if overall['methods']:
        level = f'{report["level"]:.0%}'
        head = ('method', 'tasks', 'gain of 25 points', f'{level} reached', 'mean gain')
        rows = [(*head, 'worst below base, mean', 'worst seed', 'IQM of final success')]
        for name, entry in overall['methods'].items():
            mean = overall['iqm'].get(name)
            rows.append(
                (
                    name,
                    *(f'{entry[key]}' for key in ('tasks', 'large_gain', 'reached')),
                    f'{100 * entry["gain"]:+.0f}',
                    *(f'{100 * entry[key]:.0f}' for key in ('worst_below_base', 'worst_seed')),
                    '-' if mean is None else _words(dict(zip(ENDS, mean, strict=True)), percent),
                )
            )
        made.append(('over all tasks', rows))
        rows = [('who beats whom', 'probability')]
        for name, values in overall['probability_of_improvement'].items():
            rows.append((name, _words(dict(zip(ENDS, values, strict=True)), '{:.2f}'.format)))
        if len(rows) > 1:
            made.append(('probability of improvement', rows))
    return made


ENDS = ('point', 'low', 'high')


def percent(value: float) -> str:
    """Return a share in words."""
    return f'{100 * value:.0f} %'


def _success_rows(report: Mapping[str, Any], methods: Mapping[str, Any]) -> Rows:
    level, gain = f'{report["level"]:.0%}', f'base + {100 * report["gain"]:.0f}'
    rows: Rows = [
        (
            'method',
            'seeds',
            'base',
            'final',
            'final - base',
            'area',
            *(f'steps to {level}', f'minutes to {level}', f'steps to {gain}', 'ratio to the first'),
            'worst below base (worst seed)',
            'failed episodes',
            'operator minutes',
            'rollbacks',
        )
    ]
    for name, entry in methods.items():
        worst, operator = entry['worst_below_base'], entry['operator_minutes']
        rows.append(
            (
                name,
                str(entry['seeds']),
                _words(entry['base'], percent),
                _words(entry['final'], percent),
                _words(entry['gain'], lambda value: f'{100 * value:+.0f}'),
                _words(entry['area'], percent),
                _words(entry['steps_to_level'], '{:,.0f}'.format),
                _words(entry['minutes_to_level'], '{:.1f}'.format),
                _words(entry['steps_to_gain'], '{:,.0f}'.format),
                _words(entry['ratio_to_first'], '{:.2f}'.format),
                f'{100 * worst["mean"]:.0f} ({100 * worst["worst_seed"]:.0f})',
                f'{entry["failed_episodes"]:.0f} of {entry["episodes"]:.0f}',
                '-' if operator is None else f'{operator:.1f}',
                str(entry['rollbacks']),
            )
        )
    return rows


def _return_rows(methods: Mapping[str, Any]) -> Rows:
    """Return the rows of a task that tells no success: returns are compared."""
    rows: Rows = [
        (
            'method',
            'seeds',
            'base return',
            'final return',
            'final - base',
            'area',
            'worst below base (worst seed)',
            'rollbacks by return',
        )
    ]
    plain = '{:.4g}'.format
    for name, entry in methods.items():
        worst = entry['worst_below_base']
        rows.append(
            (
                name,
                str(entry['seeds']),
                _words(entry['base'], plain),
                _words(entry['final'], plain),
                _words(entry['gain'], '{:+.4g}'.format),
                _words(entry['area'], plain),
                f'{worst["mean"]:.4g} ({worst["worst_seed"]:.4g})',
                str(entry['rollbacks']),
            )
        )
    return rows


def _with_returns(rows: Rows, methods: Mapping[str, Any]) -> Rows:
    """Return rows with the returns taken apart, where any method had an add-on."""
    if not any('returns' in entry for entry in methods.values()):
        return rows
    parts = {'basic': 'basic', 'add_on': 'add-on', 'total': 'total'}
    sides = ('base', 'final')
    head = [f'{side} return, {words}' for side in sides for words in parts.values()]
    made = [(*rows[0], *head, 'total, final - base')]
    for row, entry in zip(rows[1:], methods.values(), strict=True):
        apart = entry.get('returns')
        if apart is None:
            made.append((*row, *('-',) * (len(head) + 1)))
            continue
        cells = [_words(apart[side][part], '{:.4g}'.format) for side in sides for part in parts]
        made.append((*row, *cells, _words(apart['gain'], '{:+.4g}'.format)))
    return made


def _words(estimate: Mapping[str, Any] | None, show: Any) -> str:
    """Return an estimate with its interval in words."""
    if estimate is None:
        return '-'

    def end(value: Any) -> str:
        return 'never' if value == 'never' or value == np.inf else str(show(value))

    point = 'not reached' if estimate['point'] == 'never' else end(estimate['point'])
    if estimate['low'] is None:
        return point
    return f'{point} [{end(estimate["low"])}, {end(estimate["high"])}]'


def to_markdown(report: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """Return the report as Markdown.

    Args:
        report: as `summarise` gives it.
        notes: paragraphs that stand first.
    """
    lines = [line for note in notes for line in (note, '')]
    for title, (head, *rows) in tables(report):
        lines += [f'## {title}', '', _row(head), '|' + ' -- |' * len(head), *map(_row, rows), '']
    return '\n'.join(lines).rstrip() + '\n'


def _row(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cell.replace("|", " ") for cell in cells)} |'


def show(report: Mapping[str, Any], console: Console) -> None:
    """Show the tables on a terminal: figures as rows, a column for each method."""
    for title, (head, *rows) in tables(report):
        table = Table(title=title, title_justify='left')
        table.add_column(head[0])
        for name, *_ in rows:
            table.add_column(name, justify='right')
        for number, label in enumerate(head[1:], start=1):
            table.add_row(label, *(row[number] for row in rows))
        console.print(table)


def draw_curves(path: Path, report: Mapping[str, Any]) -> None:
    """Draw the mean curve of each method with its 95 % band, one panel a task."""
    tasks = report['tasks']
    columns = min(4, len(tasks))
    rows = -(-len(tasks) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(5.0 * columns, 3.6 * rows), dpi=130, squeeze=False
    )
    names = list(dict.fromkeys(name for methods in tasks.values() for name in methods))
    looks = {
        # Ten colours, then the same ones with another line.
        name: (f'C{index % 10}', ('-', '--', ':', '-.')[index // 10 % 4])
        for index, name in enumerate(names)
    }
    for axes, (task, methods) in zip(grid.flat, tasks.items(), strict=False):
        for name, entry in methods.items():
            curve, (colour, line) = entry['curve'], looks[name]
            axes.plot(curve['steps'], curve['mean'], line, color=colour, label=name, linewidth=1.6)
            if curve['low'] is not None:
                axes.fill_between(
                    curve['steps'], curve['low'], curve['high'], color=colour, alpha=0.15, lw=0.0
                )
        measure = next(iter(methods.values()))['measure']
        axes.set(title=task, xlabel='control steps', ylabel=measure)
        if measure != RETURN:
            axes.axhline(report['level'], color='0.7', linestyle=':', linewidth=1.0)
            axes.set_ylim(0.0, 1.02)
        axes.spines[['top', 'right']].set_visible(False)
    for axes in list(grid.flat)[len(tasks) :]:
        axes.set_visible(False)
    handles = {
        label: handle
        for axes in grid.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc='outside lower center', ncols=4, fontsize=8)
    figure.set_layout_engine('constrained')
    figure.savefig(path)
    plt.close(figure)
