# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The messages of a raw bag in recorded order, a survey of its commands, a report per channel."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.recorder import FLAG
from residual_rl_ros.bags.segment import RawMessage
from residual_rl_ros.control.feedback import STEP_FEEDBACK
from residual_rl_ros.errors import BagError, CommandError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.command import CommandVector
from residual_rl_ros.robot.consistency import TAKEOVER_ACTIVE
from residual_rl_ros.robot.decoders import message_decoder
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.names import full_name
from residual_rl_ros.robot.stamps import stamp_of, to_nanoseconds
from residual_rl_ros.robot.topics import FLOAT_ARRAY, SERIALIZED_TYPES, Channel
from residual_rl_ros.transitions.cdr import deserialize


class Role(Enum):
    """What a message is to the policy node."""

    CHANNEL = 'channel'
    COMMAND = 'command'
    FEEDBACK = 'feedback'
    TAKEOVER = 'takeover'
    ACTIVE = 'active'


@dataclass(frozen=True)
class TopicReading:
    """What a topic's messages are for."""

    role: Role
    type: str
    """ROS message type that it must have."""
    channel: Channel | None = None
    """Of the role `CHANNEL`."""
    command: int = 0
    """Of the role `COMMAND`: which of the robot's."""
    second: bool = False
    """Of the role `CHANNEL`: the topic is the second of its sources."""


class RecordedMessage(NamedTuple):
    """A message on its way to the loop."""

    raw: RawMessage
    reading: TopicReading
    message: Any

    @property
    def time(self) -> float:
        """When the recorder received it [s]."""
        return self.raw.time_ns * 1e-9

    @property
    def stamp(self) -> float:
        """The time in it, or when it was received [s]."""
        stamp = stamp_of(self.message)
        return self.time if stamp is None else stamp


class RawMessages:
    """Reads the messages of one robot, any number of times.

    Args:
        bag: raw bag; findings are added to its problems once, by `all`.
        robot: robot description of the recording.
        namespace: namespace of the robot, for relative topics.
        on_message: called with how many messages were yielded since `all` began or ended, and
            how many there are, which is not known before it has ended.
    """

    def __init__(
        self,
        bag: Bag,
        robot: RobotConfig,
        namespace: str,
        on_message: Callable[[int, int | None], None],
    ) -> None:
        self.bag = bag
        self._namespace = namespace
        self._on_message = on_message
        self._count = 0
        self._total: int | None = None
        self._readings: dict[str, list[TopicReading]] = {}
        for channel in robot.channels:
            for index, source in enumerate(channel.sources):
                reading = TopicReading(Role.CHANNEL, source.type, channel, second=index > 0)
                self._read(source.topic, reading)
        for index, command in enumerate(robot.commands):
            self._read(command.topic, TopicReading(Role.COMMAND, command.type, command=index))
        for role, topic, kind in (
            (Role.FEEDBACK, STEP_FEEDBACK, FLOAT_ARRAY),
            (Role.TAKEOVER, robot.takeover.topic, robot.takeover.type),
            (Role.ACTIVE, TAKEOVER_ACTIVE, FLAG),
        ):
            self._read(topic, TopicReading(role, kind))

    def _read(self, topic: str, reading: TopicReading) -> None:
        self._readings.setdefault(self.topic(topic), []).append(reading)

    def topic(self, name: str) -> str:
        """Return the absolute name of a topic of the robot."""
        return full_name(name, self._namespace)

    def all(self) -> Iterator[RecordedMessage]:
        """Yield every message in recorded order; report what cannot be read."""
        yield from self._messages(self.bag, set(Role))
        self._total, self._count = self._count, 0

    def of(self, *roles: Role) -> Iterator[RecordedMessage]:
        """Yield the messages of some roles; what cannot be read was reported by `all`."""
        return self._messages(Bag(self.bag.path), set(roles))

    def _messages(self, bag: Bag, roles: set[Role]) -> Iterator[RecordedMessage]:
        wanted = {
            topic: [reading for reading in readings if reading.role in roles]
            for topic, readings in self._readings.items()
        }
        for raw in bag.messages({topic for topic, readings in wanted.items() if readings}):
            for reading in wanted[raw.topic.name]:
                try:
                    if raw.topic.type != reading.type:
                        raise BagError(f'type is {raw.topic.type!r}, expected {reading.type!r}')
                    as_is = reading.type in SERIALIZED_TYPES
                    message = bytes(raw.data) if as_is else deserialize(raw.data, reading.type)
                except BagError as error:
                    bag.problems.add(
                        raw.path,
                        str(error),
                        topic=raw.topic.name,
                        place=raw.place,
                        kind=f'malformed {reading.role.value}',
                    )
                    continue
                self._count += 1
                self._on_message(self._count, self._total)
                yield RecordedMessage(raw, reading, message)


LARGEST_OFFSET_S = 60.0
"""Real time: commands whose stamps are further from their receipt are of another clock [s]."""


def survey(messages: RawMessages, robot: RobotConfig, lockstep: bool) -> dict[int, Array]:
    """Read all messages once and report what is wrong with them.

    Args:
        messages: of the robot.
        robot: robot description of the recording.
        lockstep: commands answer the stamps of observations, and are recorded after these.

    Returns:
        In lockstep all commands by the nanosecond of the stamp that they answer, else none.

    Raises:
        BagError: a channel or the command was not recorded, or the commands are of several runs or
            of another clock.
    """
    readers = {channel.name: message_decoder(channel) for channel in robot.channels}
    vector = CommandVector(robot.commands, robot.action.size)
    answered = math.nan
    seen: dict[str, float] = {}
    commands: dict[int, Array] = {}
    offset = math.inf
    for received in messages.all():
        channel = received.reading.channel
        if channel is not None:
            if received.reading.second:
                continue
            if channel.name not in seen:
                readers[channel.name].check(received.message)
            latest = seen.get(channel.name, -math.inf)
            seen[channel.name] = _stamp_after(received, latest, lockstep)
        elif received.reading.role is Role.COMMAND:
            try:
                index = received.reading.command
                part = vector.readers[index].values(received.message)
            except CommandError as error:
                raw = received.raw
                messages.bag.problems.add(
                    raw.path, str(error), topic=raw.topic.name, place=raw.place, kind='command'
                )
                continue
            if lockstep and received.stamp != answered:
                vector.forget()
                answered = received.stamp
            values = vector.put(index, part)
            if values is None:
                continue
            offset = min(offset, abs(received.stamp - received.time))
            if lockstep:
                commands[to_nanoseconds(received.stamp)] = values
    missing = [messages.topic(c.topic) for c in robot.channels if c.name not in seen]
    if offset == math.inf:
        missing += [messages.topic(command.topic) for command in robot.commands]
    if missing:
        raise BagError(
            f'{messages.bag.path} has no usable message on {", ".join(missing)}; record every '
            'channel and the command, and give --namespace'
        )
    if offset > LARGEST_OFFSET_S and not lockstep:
        raise BagError(
            f'{messages.bag.path}: commands are stamped {offset:.0f} s or more from when they '
            "were recorded: the node had another clock (use_sim_time) than the recorder's; "
            'record with ros2 bag record --use-sim-time, or give --lockstep for a simulator '
            'that waits'
        )
    return commands


def _stamp_after(received: RecordedMessage, latest: float, lockstep: bool) -> float:
    """Return the stamp of an observation, the latest if it has none [s].

    Raises:
        BagError: a lockstep simulator was restarted: commands of one run would answer the
            observations of another.
    """
    stamp = stamp_of(received.message)
    if stamp is None:
        return latest
    if stamp < latest and lockstep:
        raw = received.raw
        raise BagError(
            f'{raw.path}: {raw.topic.name}: {raw.place}: stamps go back from {latest:.3f} s to '
            f'{stamp:.3f} s: several runs of a simulator; record each into a bag of its own'
        )
    return stamp


NEWEST = 10_000
"""Number of ages kept for the median; a recording may have any length."""


@dataclass
class ChannelReport:
    """Stamps of one channel, seen in recorded order."""

    name: str
    topic: str
    messages: int = 0
    stamped: int = 0
    """Messages whose own stamp counts; the time of receipt counts for the others."""
    backwards: int = 0
    """Messages older than the one before: the observation keeps the newer one."""
    ages: deque[float] = field(default_factory=lambda: deque(maxlen=NEWEST))
    """Time from stamp to receipt of the newest stamped messages [s]."""
    oldest: float = float('-inf')
    """Longest time from stamp to receipt [s]."""
    first: float = 0.0
    """Stamp of the first message [s]."""
    latest: float = float('-inf')
    """Newest stamp [s]."""

    def add(self, stamp: float | None, received: float) -> None:
        """Take in a message.

        Args:
            stamp: its own stamp, None if the receipt counts [s].
            received: when it was recorded [s].
        """
        time = received if stamp is None else stamp
        if not self.messages:
            self.first = time
        self.messages += 1
        self.backwards += time < self.latest
        self.latest = max(self.latest, time)
        if stamp is not None:
            self.stamped += 1
            self.ages.append(received - stamp)
            self.oldest = max(self.oldest, received - stamp)

    @property
    def rate_hz(self) -> float:
        """Messages per second of stamp time; 0 for a single one."""
        span = self.latest - self.first
        return (self.messages - 1) / span if span > 0.0 else 0.0

    def describe(self) -> str:
        """Return one line of facts."""
        if not self.ages:
            return f'{self.messages} messages, {self.rate_hz:.1f} Hz, by time of receipt'
        median = 1e3 * statistics.median(self.ages)
        return (
            f'{self.messages} messages, {self.rate_hz:.1f} Hz, {self.stamped} by header, '
            f'{median:.1f} ms old on receipt (median, at most {1e3 * self.oldest:.1f} ms)'
        )

    def remarks(self) -> list[str]:
        """Return what is wrong."""
        if not self.backwards:
            return []
        return [f'{self.backwards} stamps go back; the newer values were kept']
