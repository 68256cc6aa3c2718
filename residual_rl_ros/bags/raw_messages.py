# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The messages of a raw bag that are about one robot, decoded, and what each is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.cdr import deserialize
from residual_rl_ros.bags.problems import BagError
from residual_rl_ros.bags.segment import RawMessage
from residual_rl_ros.bags.topics import FEEDBACK, FLAG, TAKEOVER_ACTIVE, TAKEOVER_COMMAND
from residual_rl_ros.message_values import stamp_of
from residual_rl_ros.robot import FLOAT_ARRAY, Channel, RobotConfig


class Role(Enum):
    """What a message is to the policy node."""

    CHANNEL = 'channel'
    COMMAND = 'command'
    FEEDBACK = 'feedback'
    TAKEOVER = 'takeover'
    ACTIVE = 'active'


@dataclass(frozen=True)
class Reading:
    """What a topic's messages are for."""

    role: Role
    type: str
    """ROS message type that it must have."""
    channel: Channel | None = None
    """Of the role `CHANNEL`."""


class Received(NamedTuple):
    """A message on its way to the loop."""

    raw: RawMessage
    reading: Reading
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
    """Reads the messages of one robot, as often as wanted.

    Args:
        bag: raw bag; what is wrong is added to its problems once, by `all`.
        robot: robot description of the recording.
        namespace: namespace of the robot, for relative topics.
        on_message: called with how many messages were handed out since `all` began or ended, and
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
        self._namespace = namespace.strip('/')
        self._on_message = on_message
        self._count = 0
        self._total: int | None = None
        self._readings: dict[str, list[Reading]] = {}
        for channel in robot.channels:
            self._read(channel.topic, Reading(Role.CHANNEL, channel.type, channel))
        for role, topic, kind in (
            (Role.COMMAND, robot.command.topic, robot.command.type),
            (Role.FEEDBACK, FEEDBACK, FLOAT_ARRAY),
            (Role.TAKEOVER, TAKEOVER_COMMAND, robot.command.type),
            (Role.ACTIVE, TAKEOVER_ACTIVE, FLAG),
        ):
            self._read(topic, Reading(role, kind))

    def _read(self, topic: str, reading: Reading) -> None:
        self._readings.setdefault(self.topic(topic), []).append(reading)

    def topic(self, name: str) -> str:
        """Return the absolute name of a topic of the robot."""
        return name if name.startswith('/') else '/' + f'{self._namespace}/{name}'.lstrip('/')

    def all(self) -> Iterator[Received]:
        """Yield every message in recorded order; report what cannot be read."""
        yield from self._messages(self.bag, set(Role))
        self._total, self._count = self._count, 0

    def of(self, *roles: Role) -> Iterator[Received]:
        """Yield the messages of some roles; what cannot be read was reported by `all`."""
        return self._messages(Bag(self.bag.path), set(roles))

    def _messages(self, bag: Bag, roles: set[Role]) -> Iterator[Received]:
        wanted = {
            topic: [reading for reading in readings if reading.role in roles]
            for topic, readings in self._readings.items()
        }
        for raw in bag.messages({topic for topic, readings in wanted.items() if readings}):
            for reading in wanted[raw.topic.name]:
                try:
                    if raw.topic.type != reading.type:
                        raise BagError(f'type is {raw.topic.type!r}, expected {reading.type!r}')
                    message = deserialize(raw.data, raw.topic.type)
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
                yield Received(raw, reading, message)
