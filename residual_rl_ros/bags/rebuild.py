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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

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
LARGEST_OFFSET_S = 60.0
"""Real time: commands whose stamps are further from their receipt are of another clock [s]."""


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
    episode_limit_s: float = 0.0
    """Real time: longer episodes were truncated [s]; 0 never."""


@dataclass(frozen=True)
class _Reading:
    """What a topic's messages are for."""

    kind: str
    """`channel`, `command`, `feedback`, `takeover` or `active`."""
    type: str
    """ROS message type that it must have."""
    channel: Channel | None = None


class _Received(NamedTuple):
    """A message on its way to the loop."""

    raw: RawMessage
    reading: _Reading
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
        self._handled: RawMessage | None = None
        self._waiting: deque[_Received] = deque()
        self._marks = deque(sorted(options.marks, key=lambda mark: mark.stamp))
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
            else RealTimeLoop(
                parts,
                1.0 / robot.control_rate_hz,
                RealTimeRules(True, math.inf, options.episode_limit_s),
            )
        )

    def transitions(self) -> Iterator[Transition]:
        """Yield the transitions, once.

        Raises:
            BagError: a channel or the command was not recorded, or the commands are of several
                runs or of another clock.
        """
        try:
            self._collect_commands()
            self._loop.activate()
            for _ in self._lockstep() if self._options.lockstep else self._real_time():
                while self._made:
                    yield self._made.popleft()
        finally:
            self.controller.queue.close()
        self._handled = None
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
        handled = self._handled
        where = self._bag.path if handled is None else f'{handled.path}: {handled.place}'
        raise BagError(f'{where}: {reason}')

    # --- reading

    def _topic(self, name: str) -> str:
        namespace = self._options.namespace.strip('/')
        return name if name.startswith('/') else '/' + f'{namespace}/{name}'.lstrip('/')

    def _reads(self, topic: str, reading: _Reading) -> None:
        self._readings.setdefault(self._topic(topic), []).append(reading)

    def _messages(self) -> Iterator[_Received]:
        """Yield every message of the robot, decoded, and what it is for."""
        for raw in self._bag.messages(set(self._readings)):
            self._handled = raw
            for reading in self._readings[raw.topic.name]:
                if raw.topic.type != reading.type:
                    self._report(f'type is {raw.topic.type!r}, expected {reading.type!r}')
                    continue
                try:
                    message = deserialize(raw.data, raw.topic.type)
                except BagError as error:
                    self._report(str(error), kind='malformed')
                    continue
                yield _Received(raw, reading, message)

    def _collect_commands(self) -> None:
        """Read all commands: in lockstep they come after what they answer."""
        before = len(self._bag.problems)
        seen: dict[str, float] = {}
        offset = math.inf
        for received in self._messages():
            channel = received.reading.channel
            if channel is not None:
                if channel.name not in seen:
                    self._readers[channel.name].check(received.message)
                seen[channel.name] = self._same_run(received, seen.get(channel.name, -math.inf))
            elif received.reading.kind == 'command':
                values = self._command(received)
                if values is None:
                    continue
                self.controller.commands[to_nanoseconds(received.stamp)] = values
                offset = min(offset, abs(received.stamp - received.time))
        missing = [report.topic for name, report in self.channels.items() if name not in seen]
        if not self.controller.commands:
            missing.append(self._topic(self._robot.command.topic))
        if missing:
            raise BagError(
                f'{self._bag.path} has no usable message on {", ".join(missing)}; record every '
                'channel and the command, and give --namespace'
            )
        if offset > LARGEST_OFFSET_S and not self._options.lockstep:
            raise BagError(
                f'{self._bag.path}: commands are stamped {offset:.0f} s or more from when they '
                "were recorded: the node had another clock (use_sim_time) than the recorder's; "
                'record with ros2 bag record --use-sim-time, or give --lockstep for a simulator '
                'that waits'
            )
        self._bag.problems.forget_after(before)  # They are found again when all is replayed.

    def _command(self, received: _Received) -> Array | None:
        """Return a recorded command, shape (m,); None if it cannot be used."""
        try:
            return self._command_reader.values(received.message)
        except CommandError as error:
            self._report(str(error), kind='command')
            return None

    def _same_run(self, received: _Received, latest: float) -> float:
        """Return the stamp of an observation, the latest if it has none [s].

        Raises:
            BagError: a lockstep simulator was restarted: commands of one run would answer the
                observations of another.
        """
        stamp = stamp_of(received.message)
        if stamp is None:
            return latest
        if stamp < latest and self._options.lockstep:
            raw = received.raw
            raise BagError(
                f'{raw.path}: {raw.topic.name}: {raw.place}: stamps go back from {latest:.3f} s to '
                f'{stamp:.3f} s: several runs of a simulator; record each into a bag of its own'
            )
        return stamp

    # --- replaying

    def _lockstep(self) -> Iterator[None]:
        """Hand over messages in the order of their stamps.

        A recorder serves one topic after the other, so that a busy one has a stamp on one topic
        before the stamp before it on another.
        """
        waiting: list[tuple[float, int, _Received]] = []
        newest = -math.inf
        for number, received in enumerate(self._messages()):
            if received.reading.kind == 'command':
                self._command(received)
                continue
            stamp = self._observed_at(received.reading, received.message)
            newest = newest if stamp is None else max(newest, stamp)
            heapq.heappush(waiting, (newest if stamp is None else stamp, number, received))
            if len(waiting) > REORDERED_MESSAGES:
                self._take(heapq.heappop(waiting)[2])
                yield
        while waiting:
            self._take(heapq.heappop(waiting)[2])
            yield

    def _observed_at(self, reading: _Reading, message: Any) -> float | None:
        """Return the stamp that a message belongs to [s]; None if it has none."""
        if reading.kind == 'feedback':
            usable = len(message.data) and np.isfinite(message.data[0])
            return rounded(message.data[0]) if usable else None
        return stamp_of(message) if reading.channel is not None else None

    def _real_time(self) -> Iterator[None]:
        """Tick at every command, with what had been received by then."""
        latest = -math.inf
        for received in self._messages():
            if received.reading.kind != 'command':
                self._waiting.append(received)
                continue
            now = received.stamp
            values = self._command(received)
            if values is None or now == latest:
                continue
            if now - latest > self._options.pause_s:
                self._finish(latest, now)
                yield
            self._receive_until(now)
            self._handled = received.raw
            self.controller.commands = {to_nanoseconds(now): values}
            self._tick(now)
            latest = now
            yield
        self._finish(latest, math.inf)
        yield

    def _receive_until(self, now: float) -> None:
        """Hand over what had been received by a time, and the judgements up to it."""
        while self._waiting and self._waiting[0].time <= now:
            received = self._waiting.popleft()
            self._judge_until(received.time)
            self._take(received)
        self._judge_until(now)

    def _judge_until(self, now: float) -> None:
        """Hand over the marks up to a time."""
        while self._marks and self._marks[0].stamp <= now:
            self._judge()

    def _judge(self) -> None:
        """Hand over the next mark."""
        assert isinstance(self._loop, RealTimeLoop)
        mark = self._marks.popleft()
        if not self._loop.end_episode(mark.feedback, mark.stamp):
            self._bag.problems.add(
                self._bag.path,
                f'the mark at {mark.stamp:.3f} s is not used: no episode is open then',
            )

    def _finish(self, latest: float, until: float) -> None:
        """End an episode after its last command.

        Args:
            latest: time of that command [s].
            until: time of the next one: what is said before it judges the episode [s].
        """
        assert isinstance(self._loop, RealTimeLoop)
        end = min(latest + 1.0 / self._robot.control_rate_hz, until)
        self._receive_until(end)
        if self._loop.in_episode:
            self._receive_judgement(until)
            if not self._loop.ending:
                success = self._options.end_is_success
                self._loop.end_episode(MARK_SUCCESS if success else END_EPISODE, end)
            self._tick(end)
        if until == math.inf:
            self._receive_until(until)

    def _receive_judgement(self, until: float) -> None:
        """Hand over the feedback and the marks of a pause, up to the first that ends the episode.

        An operator judges when the motion has stopped.
        """
        assert isinstance(self._loop, RealTimeLoop)
        said = deque(r for r in self._waiting if r.reading.kind == 'feedback' and r.time <= until)
        while not self._loop.ending:
            marked = self._marks[0].stamp if self._marks else math.inf
            if said and said[0].time < marked:
                received = said.popleft()
                self._waiting.remove(received)
                self._take(received)
            elif self._marks and marked <= until:
                self._judge()
            else:
                return

    def _tick(self, now: float) -> None:
        assert isinstance(self._loop, RealTimeLoop)
        self._loop.tick(now)

    def _take(self, received: _Received) -> None:
        """Hand a message to the loop, as the policy node does."""
        loop = self._loop
        self._handled, reading, message = received
        if reading.channel is not None:
            name = reading.channel.name
            reader = self._readers[name]
            try:
                stamp, values = reader.stamp(message), reader.values(message)
            except ObservationError as error:
                loop.refuse_observation(error)
                return
            self.channels[name].add(stamp, received.time)
            loop.observe(name, received.time if stamp is None else stamp, values)
        elif reading.kind == 'feedback':
            self._take_feedback(np.array(message.data, dtype=np.float64))
        elif reading.kind == 'takeover':
            try:
                loop.receive_takeover(self._command_reader.values(message))
            except CommandError as error:
                loop.refuse_takeover(error)
        elif reading.kind == 'active':
            loop.set_takeover(bool(message.data))

    def _take_feedback(self, data: Array) -> None:
        if data.size and np.isfinite(data[0]):
            data[0] = rounded(data[0])
        open_before = self._loop.in_episode or self._options.lockstep
        self._loop.receive_feedback(data)
        if not open_before and data.shape == (5,) and data[2:4].any():
            self._report('feedback that ends an episode is not used: none is open', kind='unused')

    def _report(self, reason: str, topic: str = '', kind: str = '', count: int = 1) -> None:
        """Add a problem, of the message that is being handled if there is one."""
        path, place = self._bag.path, ''
        if self._handled is not None:
            path, place = self._handled.path, self._handled.place
            topic = self._handled.topic.name
        self._bag.problems.add(path, reason, topic=topic, place=place, kind=kind, count=count)
