# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Transition bags: the transitions of every robot in them, thousands at a time.

Messages are not made into objects: their numbers are cut out of the file's bytes and checked as
columns of a table, by the rules of `TransitionLayout.decode`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.log_order import BagFile
from residual_rl_ros.bags.segment import Integers, RawMessage, Segment, Topic
from residual_rl_ros.errors import BagError, ConfigError, MalformedTransitionError
from residual_rl_ros.numerics import Mask
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.transitions.cdr import ArrayPrefix, deserialize
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import HEADER

FAR_AHEAD = 10.0
"""A decision that takes this many times the median is one in which the clock jumped."""
FAR_AHEAD_S = 1.0
"""A shorter jump cannot be distinguished from a late base policy [s]."""
ENOUGH = 5
"""Decisions from which the median is known."""


class SequenceJump(NamedTuple):
    """One kind of thing that is wrong with rows of a table."""

    kind: str
    row: int
    """The first of these rows."""
    rows: int
    """How many there are."""
    reason: str


class SequenceCheck:
    """Checks a robot's transitions, table by table, in recorded order."""

    def __init__(self) -> None:
        self._last = np.empty(0)
        self._decision_s = np.nan

    def repeats(self, table: TransitionTable) -> Mask:
        """Return which rows say exactly what the row before says, shape (count,)."""
        values, repeats = table.values, np.zeros(len(table), dtype=bool)
        repeats[0] = np.array_equal(values[0], self._last)
        near = np.flatnonzero(np.diff(values[:, 0]) == 0.0) + 1  # Few: so few rows are compared.
        repeats[near] = (values[near] == values[near - 1]).all(axis=1)
        return repeats

    def jumps(self, table: TransitionTable) -> list[SequenceJump]:
        """Return where the clock goes back or far ahead; the table becomes what is before."""
        before = self._last[None, : len(HEADER)] if len(self._last) else np.empty((0, len(HEADER)))
        head = np.concatenate([before, table.values[:, : len(HEADER)]])
        self._last = table.values[-1].copy()
        columns = dict(zip(HEADER, head.T, strict=True))
        elapsed = np.diff(columns['stamp'])
        same = (np.diff(columns['epoch']) == 0.0) & (np.diff(columns['episode']) == 0.0)
        next_to = same & (np.diff(columns['step']) == table.layout.decision_steps)
        if next_to.sum() >= ENOUGH:
            self._decision_s = float(np.median(elapsed[next_to]))
        limit = np.maximum(FAR_AHEAD_S, FAR_AHEAD * self._decision_s)  # NaN: nothing is above it.
        remarks = []
        for kind, found, says in (
            ('back', same & (elapsed < 0.0), 'goes back by {:.3f} s within an episode'),
            (
                'ahead',
                next_to & (elapsed > limit),
                f'jumps ahead by {{:.3f}} s between two decisions of an episode, which take '
                f'{self._decision_s:.3f} s',
            ),
        ):
            rows = np.flatnonzero(found)
            if len(rows):
                reason = f'the clock {says.format(abs(elapsed[rows[0]]))}'
                remarks.append(
                    SequenceJump(kind, int(rows[0]) + 1 - len(before), len(rows), reason)
                )
        return remarks


TEXT = 'std_msgs/msg/String'
TRANSITIONS = 'policy_node/transitions'
LAYOUT = 'policy_node/transition_layout'
CUSTOMISATION = 'policy_node/customisation'


MessageRows = tuple[Integers, TransitionTable]
"""Which messages of a segment these transitions are, in order."""


@dataclass(frozen=True)
class TransitionBlock:
    """Transitions of one robot that a bag holds in a row."""

    robot: str
    """Namespace of the robot, empty if it has none."""
    table: TransitionTable
    time_ns: Integers
    """When each was recorded [ns], shape (count,)."""


@dataclass
class _Stream:
    """The transitions topic of one robot."""

    robot: str
    layouts: dict[str, tuple[TransitionLayout, ArrayPrefix]]
    """Layouts received, by label; the newest is the last."""
    refused: bool = False
    """A layout was received and could not be used; this was reported."""
    sequence: SequenceCheck = field(default_factory=SequenceCheck)


class TransitionReader:
    """Reads the transitions of a bag.

    Args:
        bag: the bag; findings are added to its problems.
        on_segment: called with every part of a file before its transitions are yielded.
    """

    def __init__(
        self,
        bag: Bag,
        on_segment: Callable[[BagFile, Segment], None] = lambda file, segment: None,
    ) -> None:
        self.bag = bag
        self._on_segment = on_segment
        self._streams: dict[str, _Stream] = {}

    def blocks(self) -> Iterator[TransitionBlock]:
        """Yield the transitions, each robot's in recorded order."""
        return chain.from_iterable(self.segments())

    def segments(self) -> Iterator[list[TransitionBlock]]:
        """Yield the blocks that lie beside each other in a file: one robot after the other."""
        self._find_layouts()
        count = 0
        for file, segment in self.bag.segments():
            self._on_segment(file, segment)
            blocks: list[TransitionBlock] = []
            for key, topic in file.topics.items():
                if not (_ends(topic, LAYOUT) or _ends(topic, TRANSITIONS)):
                    continue
                chosen = np.flatnonzero(segment.channel == key)
                if not len(chosen):
                    continue
                if _ends(topic, LAYOUT):
                    self._take_layouts(file, segment, {key: topic})
                else:
                    blocks += self._cut(file, topic, segment, chosen)
            count += len(blocks)
            yield blocks
        if not count and not len(self.bag.problems):
            reason = f'no message on a topic .../{TRANSITIONS}'
            hint = 'residual-rl bag rebuild makes them of observations and commands'
            self.bag.problems.add(self.bag.path, f'{reason}; {hint}')

    def _find_layouts(self) -> None:
        """Read up to the layouts of every file's robots: they may come after transitions."""
        problems = self.bag.problems
        before = len(problems)
        for file in self.bag.files:
            for _, segment in self.bag.segments(file):
                topics = file.topics
                self._take_layouts(file, segment, topics)
                seen = {
                    _robot(topic, name)
                    for topic in topics.values()
                    for name in (LAYOUT, TRANSITIONS)
                    if _ends(topic, name)
                }
                known = {stream.robot for stream in self._streams.values() if stream.layouts}
                if (seen or file.knows_topics) and seen <= known:
                    break
        problems.forget_after(before)  # They are found again when everything is read.

    def _stream(self, robot: str) -> _Stream:
        return self._streams.setdefault(robot, _Stream(robot, {}))

    def _take_layouts(self, file: BagFile, segment: Segment, topics: dict[int, Topic]) -> None:
        wanted = {key: topic for key, topic in topics.items() if _ends(topic, LAYOUT)}
        for message in segment.messages(file.path, wanted) if wanted else ():
            stream = self._stream(_robot(message.topic, LAYOUT))
            try:
                layout = _layout(message)
            except (BagError, ConfigError) as error:
                stream.refused = True
                self._report(file, message.topic, message.place, f'layout refused: {error}')
                continue
            prefix = ArrayPrefix(layout.label, layout.size)
            stream.layouts.pop(layout.label, None)
            stream.layouts[layout.label] = layout, prefix

    def _cut(
        self, file: BagFile, topic: Topic, segment: Segment, chosen: Integers
    ) -> Iterator[TransitionBlock]:
        """Yield the transitions among some messages of a segment, one block for each layout."""
        if topic.type != FLOAT_ARRAY:
            reason = f'type is {topic.type!r}, expected {FLOAT_ARRAY!r}'
            place = segment.place_of(int(chosen[0]))
            self._report(file, topic, place, reason, count=len(chosen))
            return
        stream = self._stream(_robot(topic, TRANSITIONS))
        pieces: list[MessageRows] = []
        for layout, prefix in reversed(list(stream.layouts.values())):
            long_enough = chosen[segment.size[chosen] >= prefix.nbytes]
            values, fits = prefix.cut(segment.buffer, segment.start[long_enough])
            found = long_enough[fits]
            if len(found):
                chosen = np.setdiff1d(chosen, found, assume_unique=True)
                pieces.append((found, TransitionTable(layout, values[fits])))
        pieces += self._one_by_one(file, topic, segment, chosen)
        for found, table in _in_recorded_order(pieces):
            yield from self._checked(file, topic, segment, found, table)

    def _checked(
        self,
        file: BagFile,
        topic: Topic,
        segment: Segment,
        chosen: Integers,
        table: TransitionTable,
    ) -> Iterator[TransitionBlock]:
        """Yield the valid rows of a table, each once; report the others, and clocks that jump."""
        stream = self._stream(_robot(topic, TRANSITIONS))
        valid = table.valid()
        if not valid.all():
            bad = int(np.flatnonzero(~valid)[0])
            try:
                table.layout.decode(table.values[bad], table.layout.label)
            except MalformedTransitionError as error:
                place = segment.place_of(int(chosen[bad]))
                count = int((~valid).sum())
                self._report(file, topic, place, str(error), kind='malformed', count=count)
            table, chosen = table.rows(valid), chosen[valid]
        if not len(table):
            return
        repeats = stream.sequence.repeats(table)
        if repeats.any():
            place = segment.place_of(int(chosen[np.flatnonzero(repeats)[0]]))
            reason = 'repeats the transition before it; dropped'
            self._report(file, topic, place, reason, count=int(repeats.sum()))
            table, chosen = table.rows(~repeats), chosen[~repeats]
        if not len(table):
            return
        for kind, row, count, reason in stream.sequence.jumps(table):
            place = segment.place_of(int(chosen[row]))
            self._report(file, topic, place, reason, kind=kind, count=count)
        yield TransitionBlock(stream.robot, table, segment.time_ns[chosen])

    def _one_by_one(
        self, file: BagFile, topic: Topic, segment: Segment, chosen: Integers
    ) -> Iterator[MessageRows]:
        """Decode messages that are written differently, or say what is wrong with them."""
        stream = self._stream(_robot(topic, TRANSITIONS))
        if not stream.layouts:
            if len(chosen) and not stream.refused:
                place = segment.place_of(int(chosen[0]))
                reason = f'no layout on {topic.name.removesuffix(TRANSITIONS)}{LAYOUT}; record it'
                self._report(file, topic, place, reason, count=len(chosen))
            return
        layout = list(stream.layouts.values())[-1][0]
        for index in chosen.tolist():
            begin, size = int(segment.start[index]), int(segment.size[index])
            try:
                message = deserialize(segment.buffer[begin : begin + size], FLOAT_ARRAY)
                dimensions = message.layout.dim
                label = dimensions[0].label if dimensions else ''
                layout = stream.layouts.get(label, (layout,))[0]
                layout.decode(message.data, label)
            except (BagError, MalformedTransitionError) as error:
                place = segment.place_of(index)
                self._report(file, topic, place, str(error), kind='malformed')
                continue
            values = np.array(message.data, dtype=np.float64)[None]
            yield np.array([index]), TransitionTable(layout, values)

    def _report(
        self, file: BagFile, topic: Topic, place: str, reason: str, kind: str = '', count: int = 1
    ) -> None:
        self.bag.problems.add(
            file.path, reason, topic=topic.name, place=place, kind=kind, count=count
        )


def _in_recorded_order(pieces: list[MessageRows]) -> Iterator[MessageRows]:
    """Yield the transitions of several layouts as they were recorded, cut where these change."""
    if len(pieces) < 2:
        yield from pieces
        return
    found = np.concatenate([found for found, _ in pieces])
    order = np.argsort(found)
    piece, row = (
        np.concatenate(numbers)[order]
        for numbers in zip(
            *((np.full(len(f), number), np.arange(len(f))) for number, (f, _) in enumerate(pieces)),
            strict=True,
        )
    )
    cuts = np.flatnonzero(np.diff(piece)) + 1
    for begin, end in pairwise([0, *cuts.tolist(), len(order)]):
        rows = slice(int(row[begin]), int(row[begin]) + end - begin)
        yield found[order[begin:end]], pieces[piece[begin]][1].rows(rows)


def _ends(topic: Topic, name: str) -> bool:
    return f'/{topic.name}'.endswith(f'/{name}')


def _robot(topic: Topic, name: str) -> str:
    """Return the namespace of the robot whose topic it is."""
    return topic.name.removesuffix(name).strip('/')


def _layout(message: RawMessage) -> TransitionLayout:
    if message.topic.type != TEXT:
        raise BagError(f'type is {message.topic.type!r}, expected {TEXT!r}')
    return TransitionLayout.from_yaml(deserialize(message.data, TEXT).data)
