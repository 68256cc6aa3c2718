# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Send one action vector to everything that moves a robot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock
from rclpy.duration import Duration

from residual_rl_ros.control.trajectory import Trajectory
from residual_rl_ros.errors import CommandError, ConfigError, UnsafeCommandError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.command import Command, check_lockstep
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.command_stream import CommandStream, SampleSchedule, SteadySleep
from residual_rl_ros.ros.common.command_writers import CommandWriter
from residual_rl_ros.ros.common.gripper_goals import GripperGoals
from residual_rl_ros.ros.common.managed_node import ManagedNode

SERVER_LIMIT_S = 5.0
"""How long an action server is waited for before the robot may move [s]."""
ARRIVAL_LIMIT_S = 0.2
"""How long a node that stops waits for its last commands to arrive [s]."""


@dataclass(frozen=True)
class CommandTopic:
    """A command that is sent with the control steps."""

    command: Command
    writer: CommandWriter
    publisher: Any

    def send(self, vector: Array, stamp: float, trajectory: Trajectory | None) -> None:
        """Send its part of an action vector; see `CommandOutputs.send`."""
        self.publisher.publish(
            self.writer.trajectory(trajectory, stamp)
            if self.command.horizon_steps and trajectory is not None
            else self.writer.message(self.command.part_of(vector), stamp)
        )


class CommandOutputs:
    """Publishers and action clients of a robot's commands.

    Args:
        node: gets them.
        commands: of the robot.
        action: limits of the action vector.
        period_s: control period [s].
        lockstep: every command goes out with every control step, with the stamp that it answers.

    Raises:
        ConfigError: in lockstep, a type that cannot carry a stamp; or its package is missing.
    """

    def __init__(
        self,
        node: ManagedNode,
        commands: Sequence[Command],
        action: ActionSpec,
        period_s: float,
        lockstep: bool,
    ) -> None:
        if lockstep:
            check_lockstep(commands)
        self._node = node
        self._streams: list[CommandStream] = []
        self._timers: list[Any] = []
        self._schedule = SampleSchedule({}, 0.0, time.sleep)  # Of a robot that comes to rest.
        self._fault: Callable[[str], object] = lambda reason: None
        self._topics: list[CommandTopic] = []
        self._publishers: list[tuple[str, Any]] = []
        self._grippers: list[tuple[Command, GripperGoals]] = []
        self._clients: list[tuple[Command, Any]] = []
        self._lockstep = lockstep
        self._step = 0
        self.horizon_steps = max(command.horizon_steps for command in commands)
        """How many control steps of the way on `send` wants to know; 0: none."""
        for command in commands:
            between_s = period_s * command.every / (1 if lockstep else command.samples)
            reached_s = period_s if command.horizon_steps else between_s
            writer = CommandWriter(command, reached_s, lockstep)
            if command.is_action:
                self._grippers.append((command, self._goals(command, writer)))
                continue
            publisher = node.create_lifecycle_publisher(
                writer.message_type, command.topic, qos.COMMAND
            )
            if command.samples > 1 and not lockstep:
                self._streams.append(CommandStream(command, writer, publisher, action, period_s))
            else:
                self._topics.append(CommandTopic(command, writer, publisher))
            self._publishers.append((command.topic, publisher))

    @property
    def lag_s(self) -> float:
        """How long after the last command of a control step the robot is told it [s]."""
        return max((stream.lag_s for stream in self._streams), default=0.0)

    def _goals(self, command: Command, writer: CommandWriter) -> GripperGoals:
        from rclpy.action import ActionClient  # 40 ms, for robots that have such a gripper.

        client = ActionClient(self._node, writer.message_type, command.topic)
        self._node.made.callback(client.destroy)
        self._clients.append((command, client))
        status = f'{self._node.resolve_topic_name(command.topic)}/_action/status'

        def servers() -> frozenset[bytes]:
            found = self._node.get_publishers_info_by_topic(status)
            return frozenset(bytes(each.endpoint_gid) for each in found)

        return GripperGoals(
            command,
            client.server_is_ready,
            servers,
            lambda values, stamp: client.send_goal_async(writer.message(values, stamp)),
            lambda reason: self._node.get_logger().warning(reason, throttle_duration_sec=2.0),
        )

    def send(
        self,
        vector: Array,
        stamp: float,
        holding: bool = False,
        trajectory: Trajectory | None = None,
        waiting: bool = False,
    ) -> None:
        """Send each command its part.

        Args:
            vector: action vector, shape (m,).
            stamp: the observation that it answers in lockstep, otherwise now [s].
            holding: the robot holds: every topic is told so at once, and goals are cancelled.
            trajectory: from the vector on, for trajectories of several points.
            waiting: it holds for its base policy: every topic is told so at once, and goals go on.

        Raises:
            CommandError: the codec of a topic's type failed; all others have been sent theirs.
        """
        at_once = holding or waiting
        step = 0 if at_once or self._lockstep else self._step
        self._step = 0 if at_once else step + 1
        calls: list[Callable[[], object]] = [
            partial(topic.send, vector, stamp, trajectory)
            for topic in self._topics
            if step % topic.command.every == 0
        ]
        calls += [partial(stream.aim, vector, stamp) for stream in self._streams]
        for command, goals in self._grippers:
            if holding:
                calls.append(goals.cancel)
            elif step % command.every == 0:
                calls.append(partial(goals.take, command.part_of(vector), stamp))
        _call_each(calls)

    def start(self, clock: Clock, now: Callable[[], float], fault: Callable[[str], object]) -> None:
        """Begin to send between control steps, where a command wants that.

        Args:
            clock: of the control steps.
            now: tells the time [s].
            fault: called with the reason where a motion cannot go on.
        """
        self._fault = fault
        for stream in self._streams:
            stream.begin()
        for sample_s, send in self._samples().items():
            self._timers.append(
                self._node.create_timer(sample_s, partial(_tell, send, now), clock=clock)
            )

    def _samples(self) -> dict[float, Callable[[float], None]]:
        """Return what sends the samples of each rate: to wake up costs more than to send."""
        sends: dict[float, list[Callable[[float], None]]] = {}
        for stream in self._streams:
            sends.setdefault(stream.sample_s, []).append(stream.send)
        return {each: partial(self._send_each, sends[each]) for each in sorted(sends)}

    def _send_each(self, sends: Sequence[Callable[[float], None]], now: float) -> None:
        """Let each stream send; one that cannot is a fault, once all others have."""
        problems = []
        for send in sends:
            try:
                send(now)
            except (CommandError, UnsafeCommandError) as error:
                problems.append(str(error))
        for problem in problems:
            self._fault(problem)

    def stop(self, now: float, sleep: Callable[[float], object] | None = None) -> None:
        """Cancel goals, and end the timers: the robot is to come to rest in `pass_time`.

        Args:
            now: time [s].
            sleep: lets time pass [s].
        """
        while self._timers:
            self._node.destroy_timer(self._timers.pop())
        self._schedule = SampleSchedule(self._samples(), now, sleep or SteadySleep())
        _call_each(goals.cancel for _, goals in self._grippers)

    def pass_time(self, seconds: float) -> None:
        """Let time pass after `stop` [s], and send between control steps as before."""
        self._schedule.wait(seconds)

    def finish(self, limit_s: float) -> None:
        """Send the rest of what is on its way, then each last command itself.

        Args:
            limit_s: time since `stop` at which that must be done [s].
        """
        while (moving := self._moving()) and (left_s := limit_s - self._schedule.elapsed_s) > 0.0:
            self.pass_time(min(left_s, *(stream.sample_s for stream in moving)))
        self._send_each([stream.settle for stream in moving], self._schedule.now)
        for stream in moving:
            self._node.get_logger().warning(
                f'command {stream.name!r}: its motion had not come to rest in {limit_s:g} s, so '
                'the last command went out at once; if the robot can stop sooner, raise '
                'max_velocity of its actions, or max_acceleration and max_jerk of the command, in '
                'the robot YAML'
            )

    def _moving(self) -> list[CommandStream]:
        return [stream for stream in self._streams if not stream.arrived]

    def check_servers(self) -> None:
        """Refuse to start where nobody serves an action.

        Raises:
            ConfigError: names the action.
        """
        for command, client in self._clients:
            if not client.wait_for_server(SERVER_LIMIT_S):
                raise ConfigError(
                    f'command {command.name!r}: no {command.type} server at '
                    f'{self._node.resolve_topic_name(command.topic)} within {SERVER_LIMIT_S:g} s; '
                    'start the driver of the gripper, or correct topic in the robot YAML'
                )

    def wait_for_arrival(self) -> list[str]:
        """Let the last commands arrive: what is on its way when a process ends is lost.

        Returns:
            Topics of which a subscriber has not acknowledged the last one in `ARRIVAL_LIMIT_S`.
        """
        late, deadline = [], time.monotonic() + ARRIVAL_LIMIT_S
        for topic, publisher in self._publishers:
            left_s = max(deadline - time.monotonic(), 0.0)
            try:
                if not publisher.wait_for_all_acked(Duration(seconds=left_s)):
                    late.append(topic)
            except RCLError:  # An RMW without acknowledgements, as Zenoh's.
                continue
        return late

    def unheard(self) -> str:
        """Return which topics nobody listens to, and what to do; empty if somebody does to each."""
        alone = [
            self._node.resolve_topic_name(topic)
            for topic, publisher in self._publishers
            if not publisher.get_subscription_count()
        ]
        if not alone:
            return ''
        return (
            f'nobody listens to the command {", ".join(alone)}: start the controller of the robot, '
            'or correct topic in the robot YAML'
        )

    def unanswered(self) -> list[str]:
        """Return the topics of actions whose server has not answered a goal or its cancellation."""
        return [command.topic for command, goals in self._grippers if not goals.settled]

    def report(self) -> dict[str, int]:
        """Return counters for diagnostics."""
        values: dict[str, int] = {}
        for command, goals in self._grippers:
            values[f'{command.name}_goals'] = goals.goals
            values[f'{command.name}_goals_refused'] = goals.refused
            values[f'{command.name}_goals_unsent'] = goals.unsent
        return values


def _tell(send: Callable[[float], object], now: Callable[[], float]) -> None:
    send(now())


def _call_each(functions: Iterable[Callable[[], object]]) -> None:
    """Call each function, also after one that fails; then raise the first error."""
    errors = []
    for function in functions:
        try:
            function()
        except Exception as error:  # noqa: BLE001 - what moves a robot hears of it first.
            errors.append(error)
    if errors:
        raise errors[0]
