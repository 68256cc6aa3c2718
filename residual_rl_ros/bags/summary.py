# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a transition bag holds: episodes, outcomes, losses, sources and ranges, robot by robot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions import TransitionReader
from residual_rl_ros.gaps import GapCounter
from residual_rl_ros.transition import Source, Success, TransitionLayout
from residual_rl_ros.transition_table import TransitionTable

Array = npt.NDArray[np.float64]

SAME = 1e-6
"""Actions that leave the trained range by less, as a share of it, have not: models are float32."""


@dataclass
class BagEpisode:
    """One episode of one robot."""

    epoch: int
    episode: int
    start: float
    """Stamp of the first decision [s]."""
    end: float
    """Stamp of the last decision [s]."""
    decisions: int = 0
    """Transitions recorded."""
    next_step: int = 0
    """Step of the decision that would follow without a gap."""
    reward: float = 0.0
    """Sum of the rewards recorded."""
    ending: str = 'open'
    """`terminated`, `truncated`, or `open`: its last transition was not recorded."""
    success: Success = Success.UNLABELLED
    """Outcome label of its last transition."""


@dataclass
class RobotSummary:
    """What a bag holds of one robot."""

    robot: str
    """Namespace."""
    layout: TransitionLayout
    episodes: list[BagEpisode] = field(default_factory=list)
    sources: Counter[Source] = field(default_factory=Counter)
    """Transitions of each source."""
    observation_low: Array = field(default_factory=lambda: np.empty(0))
    """Smallest observation, shape (n,)."""
    observation_high: Array = field(default_factory=lambda: np.empty(0))
    action_low: Array = field(default_factory=lambda: np.empty(0))
    """Smallest executed action, shape (m,)."""
    action_high: Array = field(default_factory=lambda: np.empty(0))
    decision_s: float = np.nan
    """Median time between two decisions of an episode [s]."""
    missing: int = 0
    """Decisions that are not in the bag, at least: lost, or cut short by a hold."""

    @property
    def transitions(self) -> int:
        """Number of transitions."""
        return sum(self.sources.values())

    def beyond_training(self) -> list[str]:
        """Return the actions that left the range that the base policy was trained on."""
        layout = self.layout
        low, high = np.array(layout.action_min), np.array(layout.action_max)
        slack = SAME * (high - low)
        outside = (self.action_low < low - slack) | (self.action_high > high + slack)
        return [name for name, out in zip(layout.action_names, outside, strict=True) if out]

    def outcomes(self) -> Counter[str]:
        """Return the number of episodes of each outcome; `open` ones are not finished."""
        return Counter(
            'open' if episode.ending == 'open' else episode.success.name.lower()
            for episode in self.episodes
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        lengths = [episode.decisions for episode in self.episodes]
        return {
            'robot': self.robot,
            'layout': self.layout.label,
            'transitions': self.transitions,
            'missing_transitions': self.missing,
            'episodes': len(self.episodes),
            'outcomes': dict(self.outcomes()),
            'endings': dict(Counter(episode.ending for episode in self.episodes)),
            'sources': {source.name.lower(): n for source, n in self.sources.items()},
            'decisions_per_episode': [min(lengths), float(np.median(lengths)), max(lengths)],
            'decision_rate_hz': 1.0 / self.decision_s if self.decision_s > 0.0 else None,
            'observation': _ranges(
                self.layout.observation_names, self.observation_low, self.observation_high
            ),
            'action': _ranges(self.layout.action_names, self.action_low, self.action_high),
            'trained_action': _ranges(
                self.layout.action_names, self.layout.action_min, self.layout.action_max
            ),
            'beyond_training': self.beyond_training(),
        }


def summarise(bag: Bag) -> list[RobotSummary]:
    """Read a bag and return what it holds, one entry for each robot and layout.

    Args:
        bag: the bag; what is wrong is added to its problems.
    """
    counters: dict[tuple[str, str], _Counter] = {}
    for block in TransitionReader(bag).blocks():
        key = (block.robot, block.table.layout.label)
        if key not in counters:
            counters[key] = _Counter(RobotSummary(block.robot, block.table.layout))
        counters[key].add(block.table)
    return [counter.result() for counter in counters.values()]


class _Counter:
    """Adds up the blocks of one robot."""

    def __init__(self, summary: RobotSummary) -> None:
        self._summary = summary
        self._intervals: list[Array] = []
        self._gaps = GapCounter()

    def add(self, table: TransitionTable) -> None:
        summary, layout = self._summary, table.layout
        for source, count in zip(
            *np.unique(table.header('source').astype(int), return_counts=True), strict=True
        ):
            summary.sources[Source(int(source))] += int(count)
        observation = table.block('observation')
        executed = table.block('executed_action').reshape(-1, layout.action_size)
        summary.observation_low = _low(summary.observation_low, observation)
        summary.observation_high = -_low(-summary.observation_high, -observation)
        summary.action_low = _low(summary.action_low, executed)
        summary.action_high = -_low(-summary.action_high, -executed)
        self._intervals.append(np.diff(table.header('stamp'))[table.follows()])
        cuts = np.flatnonzero(~table.follows()) + 1
        for begin, end in pairwise([0, *cuts.tolist(), len(table)]):
            self._add_piece(table.rows(slice(begin, end)))

    def _add_piece(self, piece: TransitionTable) -> None:
        """Take in decisions that follow one another."""
        episodes, k = self._summary.episodes, piece.layout.decision_steps
        epoch, number, step = (int(piece.header(key)[0]) for key in ('epoch', 'episode', 'step'))
        stamp = piece.header('stamp')
        last = episodes[-1] if episodes else None
        goes_on = (
            last is not None
            and last.ending == 'open'
            and (last.epoch, last.episode) == (epoch, number)
            and step >= last.next_step
        )
        if last is None:
            self._gaps.expect(number, 0)
        if last is None or not goes_on:
            last = BagEpisode(epoch, number, float(stamp[0]), float(stamp[0]))
            episodes.append(last)
        self._summary.missing += self._gaps.before(number, step, k)
        last.next_step = int(piece.header('step')[-1]) + k
        last.decisions += len(piece)
        last.end = float(stamp[-1])
        last.reward += float(piece.header('reward').sum())
        done = bool(piece.done[-1])
        self._gaps.expect(*((number + 1, 0) if done else (number, last.next_step)))
        if done:
            last.ending = 'terminated' if piece.header('terminated')[-1] else 'truncated'
            last.success = Success(int(piece.header('success')[-1]))

    def result(self) -> RobotSummary:
        intervals = np.concatenate(self._intervals)
        if len(intervals):
            self._summary.decision_s = float(np.median(intervals))
        return self._summary


def _ranges(
    names: Sequence[str], low: npt.ArrayLike, high: npt.ArrayLike
) -> dict[str, tuple[float, float]]:
    """Return the smallest and the largest value by name."""
    pairs = zip(np.asarray(low).tolist(), np.asarray(high).tolist(), strict=True)
    return dict(zip(names, pairs, strict=True))


def _low(known: Array, rows: Array) -> Array:
    """Return the smallest of what is known and of rows, column by column."""
    least: Array = rows.min(axis=0)
    return np.minimum(known, least) if known.size else least
