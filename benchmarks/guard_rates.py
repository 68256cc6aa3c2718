# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Delays and false alarms of the guard on simulated episodes, for docs/explanation/guard.md.

`.venv/bin/python benchmarks/guard_rates.py --figure docs/images/guard_rates.png` prints the tables
and draws the figure: first of success, then of returns. The guards are the package's own classes;
the robot draws its episodes with the share that was asked for one episode earlier, because weights
take about that long. `guard_worlds.py` has what is simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import typer
from guard_worlds import (
    BASES,
    LAWS,
    RETURN_WORLDS,
    WARM_UP,
    WORLDS,
    Curve,
    Law,
    constant,
    shift,
)
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from residual_rl_ros.evaluation.intervals import wilson
from residual_rl_ros.learner.guard import Alarm, Guard, GuardConfig, ReturnGuard

mpl.use('Agg')

CONFIG = GuardConfig(drop=0.3, false_alarm_episodes=100_000.0)
EPISODES = 2000
RUNS = 800
"""Runs of each world; a quarter as many of each delay."""
LATE = 1000
"""Episode at which a sound residual is sabotaged, or falls behind."""
DELAY = 1
"""Episodes until the robot draws with the share that the guard asks for."""
LOSSES = (0.5, 1.0, 2.0)
"""What a residual loses of its returns, in units of the spread of the base's."""
REMAINING = (0.0, 1.0 / 3.0, 0.5, 2.0 / 3.0, 0.8)
"""Success of the residual as a share of that of the base."""
Play = Callable[[int, float, bool, float], Alarm | None]
"""Lets a guard count an episode: its number, luck from 0 to 1, whether it runs with the residual,
and the share with which it was drawn."""


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

    def play(number: int, luck: float, on: bool, share: float) -> Alarm | None:
        success = bool(luck < (residual if on else base)(number))
        return guard.record_outcome(success, residual=on, base_share=share)

    return _follow(guard, play, rng, episodes, warm_up, sabotaged_at)


def simulate_returns(
    law: Law,
    rng: np.random.Generator,
    drop: float = 0.0,
    world: Curve = lambda number: 0.0,
    warm_up: int = WARM_UP,
) -> Outcome:
    """Return what becomes of a run whose task tells returns alone.

    Args:
        law: of the base's returns.
        rng: source of luck.
        drop: what the residual loses, in units of the law's spread.
        world: what base and residual gain at an episode, in the same units.
        warm_up: base-only episodes before.
    """
    guard = ReturnGuard(CONFIG)

    def play(number: int, luck: float, on: bool, share: float) -> Alarm | None:
        value = law.quantile(luck) + law.spread * (world(number) - drop * on)
        return guard.record_return(value, on, share)

    return _follow(guard, play, rng, EPISODES, warm_up, 0)


def _follow(
    guard: Guard,
    play: Play,
    rng: np.random.Generator,
    episodes: int,
    warm_up: int,
    sabotaged_at: int,
) -> Outcome:
    """Let a robot draw its episodes as a guard asks for."""
    for number in range(-warm_up, 0):
        play(number, rng.random(), False, 1.0)
    asked = [CONFIG.share] * (DELAY + 1)
    alone = counted = 0
    for number, (draw, luck) in enumerate(rng.random((episodes, 2))):
        asked = [*asked[1:], guard.base_share]
        on = bool(draw >= asked[0])
        alone += not on
        counted += on and number >= sabotaged_at
        alarm = play(number, luck, on, asked[0])
        if alarm is not None and number >= sabotaged_at:
            return Outcome(counted, number + 1 - sabotaged_at, alone / (number + 1))
    return Outcome(None, None, alone / episodes)


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


def false_alarms_of_returns(seed: int) -> dict[str, list[bool]]:
    """Print and return the false alarms of every world of returns."""
    rng = np.random.default_rng([seed, 4])
    print('\n| returns of both | false alarm in 2,000 episodes | base-only share |')
    print('|---|---|---|')
    found = {}
    for name, worlds in RETURN_WORLDS.items():
        runs = [
            simulate_returns(LAWS[law], rng, 0.0, world, warm_up)
            for law, world, warm_up in worlds
            for _ in range(RUNS // len(worlds))
        ]
        found[name] = [run.residual_episodes is not None for run in runs]
        shares = [run.base_share for run in runs if run.residual_episodes is None]
        print(f'| {name} | {rate(found[name])} | {np.mean(shares):.0%} |', flush=True)
    return found


def delays_of_returns(seed: int) -> dict[tuple[str, float], npt.NDArray[np.float64]]:
    """Print and return residual episodes to the alarm by law and by what the residual loses."""
    print('\n| returns | loss | residual episodes: median, 90 % | all episodes |')
    print('|---|---|---|---|')
    found = {}
    for number, (law, drop) in enumerate((law, drop) for law in LAWS for drop in LOSSES):
        rng = np.random.default_rng([seed, 5, number])
        runs = [simulate_returns(LAWS[law], rng, drop) for _ in range(RUNS // 4)]
        counted = np.array([run.residual_episodes or np.inf for run in runs], dtype=float)
        every = np.array([run.episodes or np.inf for run in runs], dtype=float)
        found[law, drop] = counted
        cells = [
            f'{law} | {drop:g}',
            f'{_number(counted, 50)}, {_number(counted, 90)}',
            f'{_number(every, 50)}, {_number(every, 90)}',
        ]
        print(f'| {" | ".join(cells)} |', flush=True)
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
    alarms: Mapping[str, Sequence[bool]],
    of_returns: dict[tuple[str, float], npt.NDArray[np.float64]],
    alarms_of_returns: Mapping[str, Sequence[bool]],
) -> None:
    """Draw delay against drop, and false alarms in 2,000 episodes: of success, then of returns."""
    figure, axes = plt.subplots(2, 2, figsize=(10.0, 8.8), dpi=100)
    by_success = {
        f'base {base:.0%}': [
            (100.0 * (1.0 - remaining), found[base, remaining]) for remaining in REMAINING
        ]
        for base in BASES
    }
    by_return = {law: [(loss, of_returns[law, loss]) for loss in LOSSES] for law in LAWS}
    _draw_delays(axes[0, 0], by_success, 'loss of success [% of the base]')
    _draw_delays(axes[1, 0], by_return, 'loss of return [standard deviations of the base]')
    _draw_alarms(axes[0, 1], alarms, 'Success of base and residual alike')
    _draw_alarms(axes[1, 1], alarms_of_returns, 'Returns of base and residual alike')
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _draw_delays(
    axes: Axes,
    curves: Mapping[str, Sequence[tuple[float, npt.NDArray[np.float64]]]],
    label: str,
) -> None:
    """Draw delays by loss, a curve for each name."""
    colours = plt.get_cmap('viridis')(np.linspace(0.85, 0.0, len(curves)))
    for (name, points), colour, marker in zip(curves.items(), colours, 'osD^v<>P', strict=False):
        losses = [loss for loss, _ in points]
        for percentile, style in ((50, '-'), (90, ':')):
            late_ones = [np.percentile(each, percentile, method='higher') for _, each in points]
            shown = name if percentile == 50 else None
            axes.plot(losses, late_ones, style, color=colour, marker=marker, ms=4, label=shown)
    axes.set_yscale('log')
    axes.set_xlabel(label)
    axes.set_ylabel('residual episodes to the alarm')
    axes.set_title('Delay: median (line) and 90 % (dotted)')
    axes.grid(alpha=0.3, which='both')
    axes.legend(fontsize=8)


def _draw_alarms(axes: Axes, alarms: Mapping[str, Sequence[bool]], title: str) -> None:
    """Draw the rate of false alarms of every world."""
    names = list(alarms)
    rates = [wilson(alarms[name]) for name in names]
    shares = np.array([100.0 * each.value for each in rates])
    limits = np.array([[100.0 * each.low, 100.0 * each.high] for each in rates])
    errors = np.abs(limits.T - shares)
    rows = np.arange(len(names))[::-1]
    axes.errorbar(shares, rows, xerr=errors, fmt='o', color='#1f6fb4', capsize=2, ms=4)
    for limit in (5.0, 10.0):
        axes.axvline(limit, color='#8c8c8c', linestyle='--', linewidth=0.8)
    axes.set_yticks(rows, names, fontsize=8)
    axes.set_xlim(left=0.0)
    axes.set_xlabel('runs with a false alarm in 2,000 episodes [%]')
    axes.set_title(title)
    axes.grid(alpha=0.3, axis='x')


def main(
    figure: Annotated[Path | None, typer.Option(help='PNG file of the curves.')] = None,
    seed: Annotated[int, typer.Option(help='Of the simulated outcomes.')] = 0,
) -> None:
    """Print the tables, and draw the figure."""
    alarms = false_alarms(seed)
    found = delays(seed)
    late(seed)
    better(seed)
    alarms_of_returns = false_alarms_of_returns(seed)
    of_returns = delays_of_returns(seed)
    if figure is not None:
        draw(figure, found, alarms, of_returns, alarms_of_returns)


if __name__ == '__main__':
    typer.run(main)
