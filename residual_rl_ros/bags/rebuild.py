# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Transitions from a raw bag: recorded observations and commands through the live node's loop.

Messages are read by the rules of the live node, assembled by its assembler and accounted for by its
loop and controller; only the commands come from the recording instead of from an actor.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.cdr import deserialize
from residual_rl_ros.bags.channel_report import ChannelReport
from residual_rl_ros.bags.problems import BagError
from residual_rl_ros.bags.replayed import ReplayedController
from residual_rl_ros.bags.segment import RawMessage
from residual_rl_ros.bags.topics import FEEDBACK, TAKEOVER_ACTIVE, TAKEOVER_COMMAND
from residual_rl_ros.base_policy.chunk_queue import BasePolicy
from residual_rl_ros.message_values import (
    CommandError,
    CommandReader,
    MessageReader,
    rounded,
    stamp_of,
    to_nanoseconds,
)
from residual_rl_ros.observation import ObservationAssembler, ObservationError
from residual_rl_ros.residual.blend import BlendRamp
from residual_rl_ros.residual.controller import StepFeedback
from residual_rl_ros.residual.controller_config import ControllerConfig
from residual_rl_ros.residual.lockstep_loop import LockstepLoop
from residual_rl_ros.residual.policy_loop import END_EPISODE, MARK_SUCCESS, LoopParts
from residual_rl_ros.residual.real_time_loop import RealTimeLoop, RealTimeRules
from residual_rl_ros.robot import Channel, RobotConfig
from residual_rl_ros.transition import Transition

Array = npt.NDArray[np.float64]


REORDERED_MESSAGES = 512
"""Lockstep: how far apart a recorder may have written messages of one stamp."""


@dataclass(frozen=True)
class Mark:
    """An operator's judgement, given by hand after the recording."""

    stamp: float
    """ROS time [s]."""
    feedback: StepFeedback


@dataclass(frozen=True)
class RebuildOptions:
    """How a raw bag is to be understood."""

    controller: ControllerConfig
    """As the live node ran: decision_steps, residual_scale, seed."""
    lockstep: bool = False
    """Commands answer the stamps of observations (a simulator), instead of ticks of time."""
    namespace: str = ''
    """Namespace of the robot, for relative topics."""
    end_is_success: bool = False
    """Real time: a pause between commands ends an episode, successfully; without this it ends
    unlabelled."""
    pause_s: float = 1.0
    """Real time: commands further apart belong to different episodes [s]."""
    marks: tuple[Mark, ...] = ()
    """Real time: judgements that the recording lacks."""


@dataclass(frozen=True)
class _Reading:
    """What a topic's messages are for."""

    kind: str
    """`channel`, `command`, `feedback`, `takeover` or `active`."""
    type: str
    """ROS message type that it must have."""
    channel: Channel | None = None


class Rebuilder:
    """Makes transitions of the messages of one robot.

    Args:
        bag: raw bag; what is wrong is added to its problems.
        robot: robot description of the recording.
        policy: base policy that is run over the observations.
        options: how the bag is to be understood.
    """

    def __init__(
        self, bag: Bag, robot: RobotConfig, policy: BasePolicy, options: RebuildOptions
    ) -> None:
        self._bag = bag
        self._robot = robot
        self._options = options
        controller = options.controller.build(policy, robot.action, ReplayedController)
        assert isinstance(controller, ReplayedController)
        controller.commands = {}
        self.controller = controller
        self.channels = {
            c.name: ChannelReport(c.name, self._topic(c.topic)) for c in robot.channels
        }
        """What was found on each channel."""
        self._readers = {channel.name: MessageReader(channel) for channel in robot.channels}
        self._command_reader = CommandReader(robot.command, robot.action.size)
        self._readings: dict[str, list[_Reading]] = {}
        for channel in robot.channels:
            self._reads(channel.topic, _Reading('channel', channel.type, channel))
        for kind, topic, message_type in (
            ('command', robot.command.topic, robot.command.type),
            ('feedback', FEEDBACK, 'std_msgs/msg/Float64MultiArray'),
            ('takeover', TAKEOVER_COMMAND, robot.command.type),
            ('active', TAKEOVER_ACTIVE, 'std_msgs/msg/Bool'),
        ):
            self._reads(topic, _Reading(kind, message_type))
        self._made: deque[Transition] = deque()
        self._place = ''
        parts = LoopParts(
            self.controller,
            ObservationAssembler(robot.channels),
            BlendRamp(0.0),
            self,
            time.perf_counter,
        )
        self._loop: LockstepLoop | RealTimeLoop = (
            LockstepLoop(parts, math.inf)
            if options.lockstep
            else RealTimeLoop(parts, 1.0 / robot.control_rate_hz, RealTimeRules(True, math.inf))
        )

    def transitions(self) -> Iterator[Transition]:
        """Yield the transitions.

        Raises:
            BagError: a channel or the command was not recorded.
        """
        self._collect_commands()
        self._loop.activate()
        replay = self._lockstep if self._options.lockstep else self._real_time
        for _ in replay():
            while self._made:
                yield self._made.popleft()
        for report in self.channels.values():
            for remark in report.remarks():
                self._report(remark, topic=report.topic)
        if self.controller.unanswered:
            self._report(
                'observations without a recorded command: their decisions are dropped',
                count=self.controller.unanswered,
            )

    # --- what the loop says (Outlet)

    def send_command(self, command: Array, stamp: float) -> None:
        """Ignore what would be sent: it was recorded."""

    def send_transition(self, transition: Transition) -> None:
        """Take a finished decision."""
        self._made.append(transition)

    def warn(self, reason: str) -> None:
        """Report a message that the live node would have refused."""
        self._report(reason, kind=reason.split(':')[0])

    def fault(self, reason: str) -> None:
        """End what the live node would have ended."""
        raise BagError(f'{self._bag.path}: {self._place}: {reason}')

    # --- reading

    def _topic(self, name: str) -> str:
        namespace = self._options.namespace.strip('/')
        return name if name.startswith('/') else '/' + f'{namespace}/{name}'.lstrip('/')

    def _reads(self, topic: str, reading: _Reading) -> None:
        self._readings.setdefault(self._topic(topic), []).append(reading)

    def _messages(self) -> Iterator[tuple[RawMessage, _Reading, Any]]:
        """Yield every message of the robot, decoded, and what it is for."""
        for raw in self._bag.messages(set(self._readings)):
            self._place = raw.place
            for reading in self._readings[raw.topic.name]:
                if raw.topic.type != reading.type:
                    reason = f'type is {raw.topic.type!r}, expected {reading.type!r}'
                    self._report(reason, topic=raw.topic.name)
                    continue
                try:
                    yield raw, reading, deserialize(raw.data, raw.topic.type)
                except BagError as error:
                    self._report(str(error), topic=raw.topic.name, kind='malformed')

    def _collect_commands(self) -> None:
        """Read all commands: in lockstep they come after what they answer."""
        seen: set[str] = set()
        for raw, reading, message in self._messages():
            if reading.channel is not None:
                if reading.channel.name not in seen:
                    self._readers[reading.channel.name].check(message)
                seen.add(reading.channel.name)
            elif reading.kind == 'command':
                try:
                    values = self._command_reader.values(message)
                except CommandError as error:
                    self._report(str(error), topic=raw.topic.name, kind='command')
                    continue
                self.controller.commands[to_nanoseconds(_stamp(message, raw))] = values
        missing = [report.topic for name, report in self.channels.items() if name not in seen]
        if not self.controller.commands:
            missing.append(self._topic(self._robot.command.topic))
        if missing:
            raise BagError(
                f'{self._bag.path} has no usable message on {", ".join(missing)}; record every '
                'channel and the command, and give --namespace'
            )

    # --- replaying

    def _lockstep(self) -> Iterator[None]:
        """Hand over messages in the order of their stamps.

        A recorder serves one topic after the other, so that a busy one has a stamp on one topic
        before the stamp before it on another.
        """
        waiting: list[tuple[float, int, RawMessage, _Reading, Any]] = []
        newest = -math.inf
        for number, (raw, reading, message) in enumerate(self._messages()):
            if reading.kind == 'command':
                continue
            stamp = self._observed_at(reading, message)
            newest = newest if stamp is None else max(newest, stamp)
            heapq.heappush(
                waiting, (newest if stamp is None else stamp, number, raw, reading, message)
            )
            if len(waiting) > REORDERED_MESSAGES:
                self._take(*heapq.heappop(waiting)[2:])
                yield
        while waiting:
            self._take(*heapq.heappop(waiting)[2:])
            yield

    def _observed_at(self, reading: _Reading, message: Any) -> float | None:
        """Return the stamp that a message belongs to [s]; None if it has none."""
        if reading.kind == 'feedback':
            usable = len(message.data) and np.isfinite(message.data[0])
            return rounded(message.data[0]) if usable else None
        return stamp_of(message) if reading.channel is not None else None

    def _real_time(self) -> Iterator[None]:
        """Tick at every command, with what had been received by then."""
        waiting: deque[tuple[float, RawMessage, _Reading, Any]] = deque()
        marks = deque(sorted(self._options.marks, key=lambda mark: mark.stamp))
        latest = -math.inf

        def receive_until(now: float) -> None:
            while waiting and waiting[0][0] <= now:
                self._take(*waiting.popleft()[1:])
            while marks and marks[0].stamp <= now:
                mark = marks.popleft()
                self._end(mark.feedback, mark.stamp)

        for raw, reading, message in self._messages():
            if reading.kind != 'command':
                waiting.append((raw.time_ns * 1e-9, raw, reading, message))
                continue
            now = _stamp(message, raw)
            if now == latest or to_nanoseconds(now) not in self.controller.commands:
                continue
            if now - latest > self._options.pause_s:
                self._finish(latest, receive_until)
                yield
            receive_until(now)
            self._tick(now)
            latest = now
            yield
        self._finish(latest, receive_until)
        yield

    def _finish(self, latest: float, receive_until: Callable[[float], None]) -> None:
        """End an episode after its last command."""
        if not self._loop.in_episode:
            return
        end = latest + 1.0 / self._robot.control_rate_hz
        receive_until(end)
        self._end(MARK_SUCCESS if self._options.end_is_success else END_EPISODE, end)
        self._tick(end)

    def _end(self, feedback: StepFeedback, stamp: float) -> None:
        assert isinstance(self._loop, RealTimeLoop)
        self._loop.end_episode(feedback, stamp)

    def _tick(self, now: float) -> None:
        assert isinstance(self._loop, RealTimeLoop)
        self._loop.tick(now)

    def _take(self, raw: RawMessage, reading: _Reading, message: Any) -> None:
        """Hand a message to the loop, as the policy node does."""
        loop = self._loop
        if reading.channel is not None:
            name = reading.channel.name
            reader = self._readers[name]
            try:
                stamp, values = reader.stamp(message), reader.values(message)
            except ObservationError as error:
                loop.refuse_observation(error)
                return
            received = raw.time_ns * 1e-9
            self.channels[name].add(stamp, received)
            loop.observe(name, received if stamp is None else stamp, values)
        elif reading.kind == 'feedback':
            data = np.array(message.data, dtype=np.float64)
            if data.size and np.isfinite(data[0]):
                data[0] = rounded(data[0])
            loop.receive_feedback(data)
        elif reading.kind == 'takeover':
            try:
                loop.receive_takeover(self._command_reader.values(message))
            except CommandError as error:
                loop.refuse_takeover(error)
        elif reading.kind == 'active':
            loop.set_takeover(bool(message.data))

    def _report(self, reason: str, topic: str = '', kind: str = '', count: int = 1) -> None:
        self._bag.problems.add(
            self._bag.path, reason, topic=topic, place=self._place, kind=kind, count=count
        )


def _stamp(message: Any, raw: RawMessage) -> float:
    """Return the time in a command, or when it was recorded [s]."""
    stamp = stamp_of(message)
    return raw.time_ns * 1e-9 if stamp is None else stamp
