# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Transition bags: the transitions of every robot in them, thousands at a time.

Messages are not made into objects: their numbers are cut out of the file's bytes and checked as
columns of a table, by the rules of `TransitionLayout.decode`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from residual_rl_ros.bags.bag import Bag, BagFile
from residual_rl_ros.bags.cdr import ArrayPrefix, deserialize
from residual_rl_ros.bags.problems import BagError
from residual_rl_ros.bags.segment import RawMessage, Segment, Topic
from residual_rl_ros.robot import FLOAT_ARRAY
from residual_rl_ros.spec import SpecificationError
from residual_rl_ros.transition import MalformedTransitionError, TransitionLayout
from residual_rl_ros.transition_table import TransitionTable

TEXT = 'std_msgs/msg/String'
TRANSITIONS = 'policy_node/transitions'
LAYOUT = 'policy_node/transition_layout'


@dataclass(frozen=True)
class Block:
    """Transitions of one robot that a bag holds in a row."""

    robot: str
    """Namespace of the robot, empty if it has none."""
    table: TransitionTable
    time_ns: npt.NDArray[np.int64]
    """When each was recorded [ns], shape (count,)."""


@dataclass
class _Stream:
    """The transitions topic of one robot."""

    robot: str
    layouts: dict[str, tuple[TransitionLayout, ArrayPrefix]]
    """Layouts received, by label; the newest is the last."""
    refused: bool = False
    """A layout was received and could not be used; that has been said."""
    latest: tuple[int, int, float] = (-1, -1, -np.inf)
    """Epoch, episode and stamp of the newest transition."""


class TransitionReader:
    """Reads the transitions of a bag.

    Args:
        bag: the bag; what is wrong is added to its problems.
    """

    def __init__(self, bag: Bag) -> None:
        self.bag = bag
        self._streams: dict[str, _Stream] = {}

    def blocks(self) -> Iterator[Block]:
        """Yield the transitions, each robot's in recorded order."""
        return chain.from_iterable(self.segments())

    def segments(self) -> Iterator[list[Block]]:
        """Yield the blocks that lie beside each other in a file: one robot after the other."""
        self._find_layouts()
        count = 0
        for file, segment in self.bag.segments():
            blocks: list[Block] = []
            for key, topic in file.topics.items():
                chosen = np.flatnonzero(segment.channel == key)
                if not len(chosen):
                    continue
                if _ends(topic, LAYOUT):
                    self._take_layouts(file, segment, {key: topic})
                elif _ends(topic, TRANSITIONS):
                    blocks += self._cut(file, topic, segment, chosen)
            count += len(blocks)
            yield blocks
        if not count and not len(self.bag.problems):
            self.bag.problems.add(self.bag.path, f'no message on a topic .../{TRANSITIONS}')

    def _find_layouts(self) -> None:
        """Read up to the layouts of every file's robots: they may come after transitions."""
        problems = self.bag.problems
        before = len(problems)
        for file in self.bag.files:
            for _, segment in self.bag.segments([file]):
                topics = file.topics
                self._take_layouts(file, segment, topics)
                seen = {_robot(t, TRANSITIONS) for t in topics.values() if _ends(t, TRANSITIONS)}
                known = {stream.robot for stream in self._streams.values() if stream.layouts}
                if seen and seen <= known:
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
            except (BagError, SpecificationError) as error:
                stream.refused = True
                self._report(file, message.topic, message.place, f'layout refused: {error}')
                continue
            prefix = ArrayPrefix(layout.label, layout.size)
            stream.layouts.pop(layout.label, None)
            stream.layouts[layout.label] = layout, prefix

    def _cut(
        self, file: BagFile, topic: Topic, segment: Segment, chosen: npt.NDArray[np.int64]
    ) -> Iterator[Block]:
        """Yield the transitions among some messages of a segment, one block for each layout."""
        if topic.type != FLOAT_ARRAY:
            reason = f'type is {topic.type!r}, expected {FLOAT_ARRAY!r}'
            place = segment.place_of(int(chosen[0]))
            self._report(file, topic, place, reason, count=len(chosen))
            return
        stream = self._stream(_robot(topic, TRANSITIONS))
        for layout, prefix in reversed(list(stream.layouts.values())):
            long_enough = chosen[segment.size[chosen] >= prefix.nbytes]
            values, fits = prefix.cut(segment.buffer, segment.start[long_enough])
            found = long_enough[fits]
            if len(found):
                chosen = np.setdiff1d(chosen, found, assume_unique=True)
                table = TransitionTable(layout, values[fits])
                yield from self._checked(file, topic, segment, found, table)
        yield from self._one_by_one(file, topic, segment, chosen)

    def _checked(
        self,
        file: BagFile,
        topic: Topic,
        segment: Segment,
        chosen: npt.NDArray[np.int64],
        table: TransitionTable,
    ) -> Iterator[Block]:
        """Yield the valid rows of a table; report the others, and clocks that went back."""
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
        self._check_clock(file, topic, segment, chosen, table, stream)
        yield Block(stream.robot, table, segment.time_ns[chosen])

    def _check_clock(
        self,
        file: BagFile,
        topic: Topic,
        segment: Segment,
        chosen: npt.NDArray[np.int64],
        table: TransitionTable,
        stream: _Stream,
    ) -> None:
        """Report stamps that go back within an episode; the transitions themselves are usable."""
        epochs, episodes, stamps = (table.header(k) for k in ('epoch', 'episode', 'stamp'))
        epoch, episode, stamp = stream.latest
        same = (np.r_[epoch, epochs[:-1]] == epochs) & (np.r_[episode, episodes[:-1]] == episodes)
        jumps = np.r_[stamp, stamps[:-1]] - stamps
        back = np.flatnonzero(same & (jumps > 0.0))
        if len(back):
            place = segment.place_of(int(chosen[back[0]]))
            reason = f'the clock goes back by {jumps[back[0]]:.3f} s within an episode'
            self._report(file, topic, place, reason, kind='clock', count=len(back))
        stream.latest = int(epochs[-1]), int(episodes[-1]), float(stamps[-1])

    def _one_by_one(
        self, file: BagFile, topic: Topic, segment: Segment, chosen: npt.NDArray[np.int64]
    ) -> Iterator[Block]:
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
            table = TransitionTable(layout, np.array(message.data, dtype=np.float64)[None])
            yield from self._checked(file, topic, segment, np.array([index]), table)

    def _report(
        self, file: BagFile, topic: Topic, place: str, reason: str, kind: str = '', count: int = 1
    ) -> None:
        self.bag.problems.add(
            file.path, reason, topic=topic.name, place=place, kind=kind, count=count
        )


def _ends(topic: Topic, name: str) -> bool:
    return f'/{topic.name}'.endswith(f'/{name}')


def _robot(topic: Topic, name: str) -> str:
    """Return the namespace of the robot whose topic it is."""
    return topic.name.removesuffix(name).strip('/')


def _layout(message: RawMessage) -> TransitionLayout:
    if message.topic.type != TEXT:
        raise BagError(f'type is {message.topic.type!r}, expected {TEXT!r}')
    return TransitionLayout.from_yaml(deserialize(message.data, TEXT).data)
