# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A summary of a bag as tables on a terminal, and as a figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from rich import markup
from rich.table import Column, Table

from residual_rl_ros.bags.transitions.inventory import TopicCount
from residual_rl_ros.bags.transitions.summary import BagSummary, Gap, RobotSummary
from residual_rl_ros.errors import BagError, one_line
from residual_rl_ros.transitions.transition import Success

matplotlib.use('Agg')

WORST = 5
"""Gaps that are listed; the others are counted."""


def escape(name: str) -> str:
    """Return a name from outside as a terminal may show it."""
    return markup.escape(one_line(name))


def tables(title: str, summary: BagSummary) -> Iterator[Table]:
    """Yield what a bag holds: of each robot facts, gaps and ranges, then the topics.

    Args:
        title: name of the bag.
        summary: what it holds.
    """
    for robot in summary.robots:
        yield _facts(f'{title} {robot.robot}'.rstrip(), robot)
        if robot.gaps:
            yield _gaps(robot.gaps)
        yield _ranges(robot)
    if summary.topics:
        what = 'topics' if summary.robots else 'no transitions'
        yield _topics(f'{title}: {what}, {summary.seconds:.1f} s', summary.topics)


def _facts(title: str, summary: RobotSummary) -> Table:
    """Return one robot's part of a bag."""
    facts = summary.to_json()
    shortest, median, longest = facts['decisions_per_episode']
    rate = facts['decision_rate_hz']
    k = summary.layout.decision_steps
    missing = f'{summary.missing} in {len(summary.gaps)} gaps' if summary.gaps else 'none'
    table = Table(title=escape(title), show_header=False)
    for name, value in (
        ('layout', facts['layout']),
        ('transitions', f'{summary.transitions} of {k} control steps each'),
        ('missing decisions', missing),
        ('episodes', f'{facts["episodes"]}, {shortest} to {longest} decisions, median {median:g}'),
        ('outcomes', _counts(facts['outcomes'])),
        ('endings', _counts(facts['endings'])),
        ('sources', _counts(facts['sources'])),
        ('takeovers', _takeovers(facts)),
        ('decisions', 'rate unknown' if rate is None else f'{rate:.3g} Hz'),
    ):
        table.add_row(name, escape(value))
    return table


def _takeovers(facts: Mapping[str, Any]) -> str:
    """Return how often an operator has helped, and for how long."""
    if not facts['takeovers']:
        return 'none'
    times = (facts['operator_minutes'], facts['robot_minutes'])
    operator, robot = ('?' if minutes is None else f'{minutes:.2g}' for minutes in times)
    return (
        f'{facts["takeovers"]} in {facts["helped_episodes"]} episodes, '
        f'{facts["helped_successes"]} of them successes; {operator} of {robot} min'
    )


def _gaps(gaps: list[Gap]) -> Table:
    """Return the gaps in which most is missing."""
    table = Table('episode', 'step', 'missing', 'goes on at', title='gaps')
    for gap in sorted(gaps, key=lambda gap: -gap.missing)[:WORST]:
        table.add_row(
            str(gap.episode), str(gap.step), str(gap.missing), f'{gap.until_s:.2f} s of the bag'
        )
    if len(gaps) > WORST:
        table.caption = f'and {len(gaps) - WORST} more, none of them larger'
    return table


def _ranges(summary: RobotSummary) -> Table:
    """Return what was observed and done, and on what the base policy was trained."""
    layout, beyond = summary.layout, summary.beyond_training()
    table = Table('name', 'recorded', 'base policy trained on', title='ranges')
    for name, low, high, least, most in zip(
        layout.action_names,
        summary.action_low,
        summary.action_high,
        layout.action_min,
        layout.action_max,
        strict=True,
    ):
        mark = ' [red]beyond[/]' if name in beyond else ''
        trained = f'{least:.4g} to {most:.4g}'
        table.add_row(escape(name), f'{low:.4g} to {high:.4g}{mark}', trained)
    for name, low, high in zip(
        layout.observation_names, summary.observation_low, summary.observation_high, strict=True
    ):
        constant = ' (constant)' if low == high else ''
        table.add_row(escape(name), f'{low:.4g} to {high:.4g}{constant}', '')
    return table


def _topics(title: str, topics: list[TopicCount]) -> Table:
    """Return the topics of a bag; one message alone, as of a latched topic, has no silence."""
    whole = Column('topic and type', overflow='fold')
    table = Table(whole, 'messages', 'rate', 'longest silence', title=escape(title))
    for topic in topics:
        rate = '' if topic.rate_hz is None else f'{topic.rate_hz:.3g} Hz'
        silence = f'{topic.silence.seconds:.3g} s\nfrom {topic.silence.from_s:.2f} s'
        table.add_row(
            f'{escape(topic.name)}\n[dim]{escape(topic.type)}[/]',
            str(topic.messages),
            rate,
            silence if topic.messages > 1 else '',
        )
    return table


def _counts(counts: Mapping[str, int]) -> str:
    return ', '.join(f'{count} {name}' for name, count in counts.items())


COLOURS = {
    Success.SUCCESS: '#0072b2',
    Success.FAILURE: '#e69f00',
    Success.UNLABELLED: '#999999',
}
"""Blue and orange of Okabe and Ito, which colour-blind people can tell apart."""
HATCHES = {Success.FAILURE: '//'}
"""So that they differ in print too."""


def draw_bag(path: Path, title: str, summaries: Sequence[RobotSummary]) -> None:
    """Draw episodes, gaps and action ranges.

    Args:
        path: PNG file; its folder is made.
        title: heading.
        summaries: what to draw, one below the other; each holds at least one episode.

    Raises:
        BagError: the file cannot be written.
    """
    count = len(summaries)
    figure = plt.figure(figsize=(11, 6 * count), constrained_layout=True)
    for part, summary in zip(
        figure.subfigures(count, 1, squeeze=False)[:, 0], summaries, strict=True
    ):
        episodes, ranges = part.subplots(2, 1)
        episodes.set_title(f'{title} {summary.robot}'.rstrip())
        _draw_episodes(episodes, summary)
        _draw_ranges(ranges, summary)
        for axes in (episodes, ranges):
            axes.legend(loc='upper left', bbox_to_anchor=(1.0, 1.0))  # Beside: bars fill the axes.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, format='png')
    except OSError as error:
        raise BagError(f'figure {str(path)!r} cannot be written: {error.strerror}') from error
    finally:
        plt.close(figure)


def _draw_episodes(axes: Axes, summary: RobotSummary) -> None:
    """Draw a bar for each episode over time, and where decisions are missing."""
    first = min(episode.start for episode in summary.episodes)
    for outcome, colour in COLOURS.items():
        chosen = [episode for episode in summary.episodes if episode.success is outcome]
        if chosen:
            axes.bar(
                [(episode.start - first) / 60.0 for episode in chosen],
                [episode.decisions for episode in chosen],
                width=[max(0.01, (episode.end - episode.start) / 60.0) for episode in chosen],
                align='edge',
                color=colour,
                hatch=HATCHES.get(outcome),
                label=f'{outcome.name.lower()} ({len(chosen)})',
            )
    if summary.gaps:
        at = [(gap.stamp - first) / 60.0 for gap in summary.gaps]
        axes.plot(at, [0.0] * len(at), 'kx', clip_on=False, label=f'missing ({summary.missing})')
    axes.set(xlabel='time [min]', ylabel='decisions per episode')


def _draw_ranges(axes: Axes, summary: RobotSummary) -> None:
    """Draw what was executed over what the base policy was trained on."""
    layout = summary.layout
    low, high = np.array(layout.action_min), np.array(layout.action_max)
    index = np.arange(layout.action_size)
    axes.bar(index, high - low, bottom=low, color='lightgray', label='base policy trained on')
    axes.vlines(
        index, summary.action_low, summary.action_high, color='#0072b2', lw=4, label='executed'
    )
    axes.set_xticks(index, layout.action_names, rotation=20, ha='right', fontsize=8)
    axes.set_ylabel('action [command units]')
