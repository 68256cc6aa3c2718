# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Delays and false alarms of the guard on simulated outcomes, for docs/explanation/guard.md.

`.venv/bin/python benchmarks/guard_rates.py --figure docs/images/guard_rates.png` prints the tables
and draws the figure. The guard is the package's own class; the robot draws its episodes with the
share that the guard asked for one episode earlier, because weights take about that long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import typer
from matplotlib import pyplot as plt

from residual_rl_ros.evaluation.intervals import wilson
from residual_rl_ros.learner.guard import Guard, GuardConfig

mpl.use('Agg')

CONFIG = GuardConfig(drop=0.3, false_alarm_episodes=100_000.0)
EPISODES, WARM_UP = 2000, 200
RUNS = 800
"""Runs of each world; a quarter as many of each delay."""
LATE = 1000
"""Episode at which a sound residual is sabotaged, or falls behind."""
DELAY = 1
"""Episodes until the robot draws with the share that the guard asks for."""
BASES = (0.2, 0.4, 0.6, 0.8, 0.95)
REMAINING = (0.0, 1.0 / 3.0, 0.5, 2.0 / 3.0, 0.8)
"""Success of the residual as a share of that of the base."""
Curve = Callable[[int], float]
"""Success by the number of the episode; the warm-up has negative numbers."""


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    residual_episodes: int | None
    """Residual episodes from the sabotage to the alarm, None without one."""
    episodes: int | None
    """All episodes from the sabotage to the alarm."""
    base_share: float
    """Share of base-only episodes after the warm-up."""


def simulate(
    base: Curve,
    residual: Curve,
    rng: np.random.Generator,
    episodes: int = EPISODES,
    warm_up: int = WARM_UP,
    sabotaged_at: int = 0,
) -> Outcome:
    """Return what becomes of a run; alarms before `sabotaged_at` roll nothing back."""
    guard = Guard(CONFIG)
    for number in range(-warm_up, 0):
        guard.record_outcome(bool(rng.random() < base(number)), residual=False, base_share=1.0)
    asked = [CONFIG.share] * (DELAY + 1)
    alone = counted = 0
    for number, (draw, luck) in enumerate(rng.random((episodes, 2))):
        asked = [*asked[1:], guard.base_share]
        on = bool(draw >= asked[0])
        alone += not on
        counted += on and number >= sabotaged_at
        success = bool(luck < (residual if on else base)(number))
        alarm = guard.record_outcome(success, residual=on, base_share=asked[0])
        if alarm is not None and number >= sabotaged_at:
            return Outcome(counted, number + 1 - sabotaged_at, alone / (number + 1))
    return Outcome(None, None, alone / episodes)


def constant(success: float) -> Curve:
    """Return a success that stays."""
    return lambda number: success


def shift(before: float, after: float, at: int = 200, over: int = 1) -> Curve:
    """Return a success that changes, at once or over so many episodes."""
    return lambda number: before + (after - before) * min(max((number - at) / over, 0.0), 1.0)


def batches(easy: float, hard: float, length: int) -> Curve:
    """Return a success that changes from batch to batch."""
    return lambda number: (easy, hard)[number // length % 2]


def lucky(success: float, luck: float) -> Curve:
    """Return a success that was another during the warm-up."""
    return lambda number: luck if number < 0 else success


WORLDS: dict[str, list[tuple[Curve, int]]] = {
    **{f'constant, {base:.0%}': [(constant(base), WARM_UP)] for base in (0.05, *BASES)},
    'both lose 30 points at episode 200': [
        (shift(a, a - 0.3), WARM_UP) for a in (0.95, 0.8, 0.7, 0.5, 0.4)
    ],
    'both lose 30 points at episode 1000': [
        (shift(a, a - 0.3, 1000), WARM_UP) for a in (0.95, 0.7, 0.4)
    ],
    'both gain 30 points at episode 200': [(shift(a, a + 0.3), WARM_UP) for a in (0.3, 0.6)],
    'both drift by 30 points in 500 episodes': [
        (shift(a, a - 0.3, 200, 500), WARM_UP) for a in (0.9, 0.7, 0.4)
    ],
    **{
        f'batches of {length}, easy and hard': [
            (batches(easy, easy - 0.6, length), WARM_UP) for easy in (0.95, 0.8)
        ]
        for length in (10, 20, 50, 100)
    },
    'first 60 base episodes 25 points lucky': [
        (lucky(success, success + 0.25), 60) for success in (0.4, 0.7)
    ],
}
"""Worlds in which the residual is as good as its base: curves of success, and warm-up."""


def rate(hits: Sequence[bool]) -> str:
    """Return a rate with its 95 % interval (Wilson)."""
    interval = wilson(hits)
    return f'{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]'


def false_alarms(seed: int) -> dict[str, list[bool]]:
    """Print and return the false alarms of every world."""
    rng = np.random.default_rng([seed, 0])
    print('| base and residual alike | false alarm in 2,000 episodes | base-only share |')
    print('|---|---|---|')
    found = {}
    for world, curves in WORLDS.items():
        runs = [
            simulate(curve, curve, rng, EPISODES, warm_up)
            for curve, warm_up in curves
            for _ in range(RUNS // len(curves))
        ]
        found[world] = [run.residual_episodes is not None for run in runs]
        # A run that ends with an alarm ends in a trial; the others show what a sound run costs.
        shares = [run.base_share for run in runs if run.residual_episodes is None]
        print(f'| {world} | {rate(found[world])} | {np.mean(shares):.0%} |', flush=True)
    return found


def delays(seed: int) -> dict[tuple[float, float], npt.NDArray[np.float64]]:
    """Print and return residual episodes to the alarm by base and remaining success."""
    print('\n| base | residual | residual episodes: median, 90 % | all episodes | found within |')
    print('|---|---|---|---|---|')
    found = {}
    for base in BASES:
        rng = np.random.default_rng([seed, 1, int(100 * base)])
        for remaining in REMAINING:
            runs = [
                simulate(constant(base), constant(remaining * base), rng) for _ in range(RUNS // 4)
            ]
            counted = np.array([run.residual_episodes or np.inf for run in runs], dtype=float)
            every = np.array([run.episodes or np.inf for run in runs], dtype=float)
            found[base, remaining] = counted
            limit = 20 if remaining == 0.0 else 40
            cells = [
                f'{base:.0%} | {remaining * base:.0%}',
                f'{_number(counted, 50)}, {_number(counted, 90)}',
                f'{_number(every, 50)}, {_number(every, 90)}',
                f'{limit}: {rate((counted <= limit).tolist())}',
            ]
            print(f'| {" | ".join(cells)} |', flush=True)
    return found


def late(seed: int) -> None:
    """Print delays of a residual that is sabotaged, or falls behind, in the middle of a run."""
    rng = np.random.default_rng([seed, 2])
    print(f'\n| at episode {LATE} | residual episodes: median, 90 % | all episodes |')
    print('|---|---|---|')
    cases = {
        f'base {base:.0%}, residual from {base:.0%} to 0': (
            constant(base),
            shift(base, 0.0, LATE),
        )
        for base in (0.4, 0.6, 0.8)
    } | {
        'base from 40 % to 80 %, residual stays': (shift(0.4, 0.8, LATE), constant(0.4)),
        'base from 60 % to 90 %, residual stays': (shift(0.6, 0.9, LATE), constant(0.6)),
    }
    for case, (base, residual) in cases.items():
        runs = [
            simulate(base, residual, rng, EPISODES + LATE, sabotaged_at=LATE)
            for _ in range(RUNS // 4)
        ]
        counted = np.array([run.residual_episodes or np.inf for run in runs], dtype=float)
        every = np.array([run.episodes or np.inf for run in runs], dtype=float)
        cells = [
            case,
            f'{_number(counted, 50)}, {_number(counted, 90)}',
            f'{_number(every, 50)}, {_number(every, 90)}',
        ]
        print(f'| {" | ".join(cells)} |', flush=True)


def better(seed: int) -> None:
    """Print what the guard costs a residual that is better than its base."""
    rng = np.random.default_rng([seed, 3])
    print('\n| base | residual | false alarm in 2,000 episodes | base-only share |')
    print('|---|---|---|---|')
    for base in (0.4, 0.6, 0.8):
        for gain in (0.05, 0.1, 0.15):
            runs = [simulate(constant(base), constant(base + gain), rng) for _ in range(RUNS // 4)]
            alarms = [run.residual_episodes is not None for run in runs]
            share = np.mean([run.base_share for run in runs])
            print(f'| {base:.0%} | {base + gain:.0%} | {rate(alarms)} | {share:.0%} |', flush=True)


def _number(counts: npt.NDArray[np.float64], percentile: float) -> str:
    """Return a percentile of counts, of which some may never have come."""
    value = np.percentile(counts, percentile, method='higher')
    return f'{value:.0f}' if np.isfinite(value) else '-'


def draw(
    path: Path,
    found: dict[tuple[float, float], npt.NDArray[np.float64]],
    alarms: dict[str, list[bool]],
) -> None:
    """Draw delay against drop, and false alarms in 2,000 episodes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 4.4), dpi=100)
    colours = plt.get_cmap('viridis')(np.linspace(0.85, 0.0, len(BASES)))
    for base, colour, marker in zip(BASES, colours, 'osD^v', strict=True):
        drops = [100.0 * (1.0 - remaining) for remaining in REMAINING]
        for percentile, style in ((50, '-'), (90, ':')):
            late_ones = [
                np.percentile(found[base, remaining], percentile, method='higher')
                for remaining in REMAINING
            ]
            label = f'base {base:.0%}' if percentile == 50 else None
            left.plot(drops, late_ones, style, color=colour, marker=marker, ms=4, label=label)
    left.set_yscale('log')
    left.set_xlabel('loss of success [% of the base]')
    left.set_ylabel('residual episodes to the alarm')
    left.set_title('Delay: median (line) and 90 % (dotted)')
    left.grid(alpha=0.3, which='both')
    left.legend()
    names = list(alarms)
    rates = [wilson(alarms[name]) for name in names]
    shares = np.array([100.0 * each.value for each in rates])
    limits = np.array([[100.0 * each.low, 100.0 * each.high] for each in rates])
    errors = np.abs(limits.T - shares)
    rows = np.arange(len(names))[::-1]
    right.errorbar(shares, rows, xerr=errors, fmt='o', color='#1f6fb4', capsize=2, ms=4)
    for limit in (5.0, 10.0):
        right.axvline(limit, color='#8c8c8c', linestyle='--', linewidth=0.8)
    right.set_yticks(rows, names, fontsize=8)
    right.set_xlim(left=0.0)
    right.set_xlabel('runs with a false alarm in 2,000 episodes [%]')
    right.set_title('Base and residual alike')
    right.grid(alpha=0.3, axis='x')
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main(
    figure: Annotated[Path | None, typer.Option(help='PNG file of the curves.')] = None,
    seed: Annotated[int, typer.Option(help='Of the simulated outcomes.')] = 0,
) -> None:
    """Print the tables, and draw the figure."""
    alarms = false_alarms(seed)
    found = delays(seed)
    late(seed)
    better(seed)
    if figure is not None:
        draw(figure, found, alarms)


if __name__ == '__main__':
    typer.run(main)
