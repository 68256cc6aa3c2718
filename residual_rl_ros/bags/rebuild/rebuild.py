# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Transitions from a raw bag: recorded observations and commands through the live node's loop.

Messages are read by the rules of the live node, assembled by its assembler and accounted for by its
loop and controller; only the commands come from the recording instead of from an actor.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.rebuild.messages import (
    ChannelReport,
    RawMessages,
    RecordedMessage,
    Role,
    survey,
)
from residual_rl_ros.bags.rebuild.real_time import (
    Mark,
    RealTimeRecording,
    RealTimeReplay,
    ReplayedController,
)
from residual_rl_ros.bags.segment import RawMessage
from residual_rl_ros.base_policy.distribution import BasePolicy
from residual_rl_ros.control.composition import BlendRamp
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.gates import RealTimeRules
from residual_rl_ros.control.lockstep_loop import LockstepLoop
from residual_rl_ros.control.policy_loop import LoopParts
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.errors import BagError, CommandError, ObservationError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.command import CommandDecoder, CommandVector
from residual_rl_ros.robot.decoders import message_decoder
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.robot.stamps import rounded, stamp_of, to_nanoseconds
from residual_rl_ros.transitions.transition import Source, Transition

REORDERED_MESSAGES = 512
"""Lockstep: how far apart a recorder may have written messages of one stamp."""


@dataclass(frozen=True)
class RebuildOptions:
    """How a raw bag is read."""

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


class Rebuilder:
    """Makes transitions of the messages of one robot.

    Args:
        bag: raw bag; findings are added to its problems.
        robot: robot description of the recording.
        policy: base policy that is run over the observations.
        options: how the bag is read.
        on_message: called with how many messages were read and how many there are, which is not
            known at the first reading.
    """

    def __init__(
        self,
        bag: Bag,
        robot: RobotConfig,
        policy: BasePolicy,
        options: RebuildOptions,
        on_message: Callable[[int, int | None], None] = lambda count, total: None,
    ) -> None:
        check_recorded(robot)
        self._bag = bag
        self._robot = robot
        self._options = options
        controller = options.controller.build(policy, robot.action, ReplayedController)
        assert isinstance(controller, ReplayedController)
        controller.commands = {}
        self.controller = controller
        self._messages = RawMessages(bag, robot, options.namespace, on_message)
        self.channels = {
            c.name: ChannelReport(c.name, self._messages.topic(c.topic)) for c in robot.channels
        }
        """What was found on each channel."""
        sizes = policy.metadata.image_sizes
        self._readers = {
            c.name: message_decoder(c, options.lockstep, image_size=sizes.get(c.name))
            for c in robot.channels
        }
        self._takeover_reader = CommandDecoder(robot.takeover, robot.action.size)
        self._made: deque[Transition] = deque()
        self._sources: Counter[Source] = Counter()
        self._handled: RawMessage | None = None
        self._assembler = _Assembler(robot.channels)
        parts = LoopParts(self.controller, self._assembler, BlendRamp(0.0), self)
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
            self.controller.commands = survey(self._messages, self._robot, self._options.lockstep)
            self._loop.activate()
            for _ in self._replay():
                while self._made:
                    made = self._made.popleft()
                    self._sources[made.source] += 1
                    yield made
        finally:
            self.controller.close()
        self._handled = None
        for report in self.channels.values():
            for remark in report.remarks():
                self._report(remark, topic=report.topic)
        if self.controller.unanswered:
            self._report(
                'observations without a recorded command: their decisions are dropped',
                count=self.controller.unanswered,
            )

    @property
    def remarks(self) -> list[str]:
        """What looks wrong in what was made."""
        made, operated = self._sources.total(), self._sources[Source.TAKEOVER]
        if operated <= 0.5 * made or self._options.lockstep:
            return []
        return [
            f"{operated} of {made} decisions are an operator's: their commands are further than "
            'the bound from what this base policy gives with these numbers, or an episode began '
            'elsewhere. A recording holds no service calls: write what they marked into --marks'
        ]

    # --- LoopCallbacks

    def send_command(self, command: Array, stamp: float, holding: bool = False) -> None:
        """Ignore what would be sent: it was recorded."""

    def send_transition(self, transition: Transition) -> None:
        """Take a finished decision."""
        self._made.append(transition)

    def warn(self, reason: str) -> None:
        """Report what the live node would have warned about, one line for each topic."""
        failure = self._assembler.failure
        if failure is not None and str(failure) == reason:  # The tick went on without it.
            self._report(reason, self._messages.topic(failure.topic), failure.kind)
        else:
            self._report(reason, kind='refused')

    def fault(self, reason: str) -> None:
        """End what the live node would have ended."""
        handled = self._handled
        where = self._bag.path if handled is None else f'{handled.path}: {handled.place}'
        raise BagError(f'{where}: {reason}')

    # --- replaying

    def _replay(self) -> Iterator[None]:
        """Pass the recording to the loop, step by step."""
        if isinstance(self._loop, LockstepLoop):
            return self._lockstep()
        options = self._options
        recording = RealTimeRecording(
            1.0 / self._robot.control_rate_hz,
            options.pause_s,
            options.end_is_success,
            options.marks,
        )
        vector = CommandVector(self._robot.commands, self._robot.action.size)
        return RealTimeReplay(
            self._messages, self._loop, recording, vector, self._take, self._answer
        ).ticks()

    def _lockstep(self) -> Iterator[None]:
        """Pass messages to the loop in the order of their stamps.

        A recorder serves one topic after the other, so that a busy one has a stamp on one topic
        before the stamp before it on another.
        """
        waiting: list[tuple[float, int, RecordedMessage]] = []
        newest = -math.inf
        others = self._messages.of(Role.CHANNEL, Role.FEEDBACK, Role.TAKEOVER, Role.ACTIVE)
        for number, received in enumerate(others):
            stamp = _observed_at(received)
            newest = newest if stamp is None else max(newest, stamp)
            heapq.heappush(waiting, (newest if stamp is None else stamp, number, received))
            if len(waiting) > REORDERED_MESSAGES:
                self._take(heapq.heappop(waiting)[2])
                yield
        while waiting:
            self._take(heapq.heappop(waiting)[2])
            yield

    def _answer(self, received: RecordedMessage, values: Array) -> None:
        """Take the command that the next tick has sent."""
        self._handled = received.raw
        self.controller.commands = {to_nanoseconds(received.stamp): values}

    def _take(self, received: RecordedMessage) -> None:
        """Pass a message to the loop, as the policy node does."""
        loop = self._loop
        self._handled, reading, message = received
        if reading.channel is not None:
            name = reading.channel.name
            reader = self._readers[name]
            try:
                heard = reader.read(message, lambda: received.time, second=reading.second)
            except ObservationError as error:
                loop.refuse_observation(error)
                return
            finally:
                self._assembler.hints[name] = reader.hint
            if heard is not None:
                own = heard.stamp if heard.stamped else None
                self.channels[name].add(own, received.time)
                loop.push_observation(name, heard.stamp, heard.values, heard.image)
        elif reading.role is Role.FEEDBACK:
            self._take_feedback(np.array(message.data, dtype=np.float64))
        elif reading.role is Role.TAKEOVER:
            try:
                loop.receive_takeover(self._takeover_reader.values(message))
            except CommandError as error:
                loop.refuse_takeover(error)
        elif reading.role is Role.ACTIVE:
            loop.set_takeover(bool(message.data))

    def _take_feedback(self, data: Array) -> None:
        if data.size and np.isfinite(data[0]):
            data[0] = rounded(data[0])
        open_before = self._loop.in_episode or self._options.lockstep
        self._loop.receive_feedback(data)
        if not open_before and data.shape == (5,) and data[2:4].any():
            self._report('feedback that ends an episode is not used: none is open', kind='unused')

    def _report(self, reason: str, topic: str = '', kind: str = '', count: int = 1) -> None:
        """Add a problem, by default of the message that is being handled if there is one."""
        path, place = self._bag.path, ''
        if self._handled is not None:
            path, place = self._handled.path, self._handled.place
            topic = topic or self._handled.topic.name
        self._bag.problems.add(path, reason, topic=topic, place=place, kind=kind, count=count)


def check_recorded(robot: RobotConfig) -> None:
    """Refuse a robot whose bags do not hold every command.

    Raises:
        BagError: one is a ROS action, which no bag holds, or is not sent once in a control step.
    """
    for command in robot.commands:
        if command.is_action or command.every > 1 or command.samples > 1:
            said = f'is a {command.type}' if command.is_action else 'has a rate_hz of its own'
            raise BagError(
                f'robot {robot.name!r}: command {command.name!r} {said}, so that no raw bag holds '
                'what was executed; record transitions (bag record) instead'
            )


class _Assembler(ObservationAssembler):
    """Keeps its latest error, whose topic the loop does not pass on."""

    failure: ObservationError | None = None

    def assemble(self, now: float | None = None, in_episode: bool = False) -> Array:
        try:
            return super().assemble(now, in_episode)
        except ObservationError as error:
            self.failure = error
            raise


def _observed_at(received: RecordedMessage) -> float | None:
    """Return the stamp that a message belongs to [s]; None if it has none."""
    reading, message = received.reading, received.message
    if reading.role is Role.FEEDBACK:
        usable = len(message.data) and np.isfinite(message.data[0])
        return rounded(message.data[0]) if usable else None
    return stamp_of(message) if reading.role is Role.CHANNEL else None
