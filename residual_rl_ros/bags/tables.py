# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The summary of a bag as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.markup import escape
from rich.table import Column, Table

from residual_rl_ros.bags.inventory import TopicCount
from residual_rl_ros.bags.summary import BagSummary, Gap, RobotSummary

WORST = 5
"""Gaps that are listed; the others are counted."""


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
        ('decisions', 'rate unknown' if rate is None else f'{rate:.3g} Hz'),
    ):
        table.add_row(name, escape(value))
    return table


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
            f'{escape(topic.name)}\n[dim]{topic.type}[/]',
            str(topic.messages),
            rate,
            silence if topic.messages > 1 else '',
        )
    return table


def _counts(counts: Mapping[str, int]) -> str:
    return ', '.join(f'{count} {name}' for name, count in counts.items())
