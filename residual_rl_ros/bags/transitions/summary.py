# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a bag holds: topics, episodes, outcomes, losses and silences, found in one reading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.log_order import BagFile
from residual_rl_ros.bags.segment import Segment
from residual_rl_ros.bags.transitions.inventory import Inventory, TopicCount
from residual_rl_ros.bags.transitions.reader import TransitionBlock, TransitionReader
from residual_rl_ros.numerics import Array
from residual_rl_ros.transitions.feed import LossCounter
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Source, Success

SAME = 1e-6
"""Actions beyond the trained range by less than this share of it count as inside: models are
float32."""


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
    takeovers: int = 0
    """How often an operator took over."""
    taken_over: bool = False
    """Whether its latest decision was an operator's."""


@dataclass(frozen=True)
class Gap:
    """Decisions of a robot that are not in the bag, though a later one is."""

    episode: int
    """Of the first that is missing."""
    step: int
    """Control step of the episode at which it was due."""
    missing: int
    """How many, at least: lost, or cut short by a hold."""
    stamp: float
    """Of the decision after them [s]."""
    until_s: float
    """When that was received, after the bag's start [s]."""


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
    gaps: list[Gap] = field(default_factory=list)
    """Where decisions are missing, in recorded order."""

    @property
    def transitions(self) -> int:
        """Number of transitions."""
        return sum(self.sources.values())

    @property
    def missing(self) -> int:
        """Decisions that are not in the bag, at least."""
        return sum(gap.missing for gap in self.gaps)

    @property
    def helped(self) -> list[BagEpisode]:
        """Episodes in which an operator took over: no success of theirs is the policy's."""
        return [episode for episode in self.episodes if episode.takeovers]

    def minutes(self, *sources: Source) -> float | None:
        """Return the time of the decisions of given sources [min]; None if it is not known."""
        if not self.decision_s > 0.0:
            return None
        return self.decision_s * sum(self.sources[source] for source in sources) / 60.0

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
            'gaps': [asdict(gap) for gap in self.gaps],
            'episodes': len(self.episodes),
            'outcomes': dict(self.outcomes()),
            'endings': dict(Counter(episode.ending for episode in self.episodes)),
            'robot_minutes': self.minutes(*Source),
            'operator_minutes': self.minutes(Source.TAKEOVER),
            'takeovers': sum(episode.takeovers for episode in self.episodes),
            'helped_episodes': len(self.helped),
            'helped_successes': sum(e.success is Success.SUCCESS for e in self.helped),
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


@dataclass(frozen=True)
class BagSummary:
    """What a bag holds."""

    robots: list[RobotSummary]
    """One for each robot and layout of transitions."""
    topics: list[TopicCount]
    """All with messages, by name."""
    seconds: float
    """Time from the first message to the last [s]."""
    at_zero: int = 0
    """Messages recorded at time 0, before the first /clock; times are without them."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            'seconds': self.seconds,
            'messages_at_time_0': self.at_zero,
            'robots': [robot.to_json() for robot in self.robots],
            'topics': [topic.to_json() for topic in self.topics],
        }


def summarise(bag: Bag, on_read: Callable[[int], None] = lambda nbytes: None) -> BagSummary:
    """Read a bag and return what it holds.

    Args:
        bag: the bag; findings are added to its problems.
        on_read: called with the bytes of files read since the last call.
    """
    inventory = Inventory()
    counters: dict[tuple[str, str], _Counter] = {}

    def on_segment(file: BagFile, segment: Segment) -> None:
        inventory.add(file, segment)
        on_read(segment.file_bytes)

    for block in TransitionReader(bag, on_segment).blocks():
        key = (block.robot, block.table.layout.label)
        if key not in counters:
            counters[key] = _Counter(RobotSummary(block.robot, block.table.layout))
        counters[key].add(block, inventory.start_ns)
    robots = [counter.result() for counter in counters.values()]
    return BagSummary(robots, inventory.topics(), inventory.seconds, inventory.without_clock)


class _Counter:
    """Adds up the blocks of one robot."""

    def __init__(self, summary: RobotSummary) -> None:
        self._summary = summary
        self._intervals: list[Array] = []
        self._gaps = LossCounter()

    def add(self, block: TransitionBlock, start_ns: int) -> None:
        summary, table, layout = self._summary, block.table, block.table.layout
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
            since_start = 1e-9 * (int(block.time_ns[begin]) - start_ns)
            self._add_piece(table.rows(slice(begin, end)), since_start)

    def _add_piece(self, piece: TransitionTable, since_start: float) -> None:
        """Take in decisions that follow one another, the first of them received at a time [s]."""
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
        missing, due = self._gaps.before(number, step, k), self._gaps.expected
        if missing and due is not None:
            self._summary.gaps.append(Gap(*due, missing, float(stamp[0]), since_start))
        last.next_step = int(piece.header('step')[-1]) + k
        last.decisions += len(piece)
        by_operator = piece.header('source') == Source.TAKEOVER
        before = np.concatenate([[last.taken_over], by_operator[:-1]])
        last.takeovers += int((by_operator & ~before).sum())
        last.taken_over = bool(by_operator[-1])
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
