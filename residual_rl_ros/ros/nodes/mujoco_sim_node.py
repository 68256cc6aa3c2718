# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The simulator node: publishes what a robot would and executes its commands.

Lockstep: stamps count simulated time; every stamp is answered by one command, and only the answer
to the current stamp advances the simulation. Real time: a wall timer steps with the newest command,
and stamps are wall time, as a robot's are.

It stays in its namespace: a real robot may have the same topics.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.clock import Clock as SteadyClock
from rclpy.clock import ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray

from residual_rl_ros.control.feedback import STEP_FEEDBACK, StepFeedback
from residual_rl_ros.errors import CommandError, ConfigError, ResidualRLError
from residual_rl_ros.robot.command import CommandVector, check_lockstep
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import ChannelEncoder, to_time
from residual_rl_ros.ros.common.managed_node import OK, Diagnostics, run
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.common.node_parameters import SIMULATION, SimParameters
from residual_rl_ros.ros.common.parameters import (
    every_parameter_valued,
    read_parameters,
    read_tree,
)
from residual_rl_ros.tasks.checked import CheckedEnvironment
from residual_rl_ros.tasks.hosting import check_environment, make_environment
from residual_rl_ros.tasks.robot_view import split_observation
from residual_rl_ros.tasks.success_probe import settle_success
from residual_rl_ros.transitions.cdr import labelled_array


class MujocoSimNode(Node):
    """Hosts an environment."""

    def __init__(self) -> None:
        with every_parameter_valued('mujoco_sim_node'):
            super().__init__(
                'mujoco_sim_node',
                namespace=SIMULATION,  # A remapping of `__ns` overrules it.
                automatically_declare_parameters_from_overrides=True,
            )
        self.parameters = parameters = read_parameters(self, SimParameters, ('robot',))
        self.robot = robot = RobotConfig.from_mapping(read_tree(self, 'robot'))
        if parameters.lockstep:
            check_lockstep(robot.commands)
        success = settle_success(parameters.task, parameters.success, self.get_logger().info)
        env = make_environment(parameters.task, success=success)
        check_environment(env, robot)
        self._task = CheckedEnvironment(env)
        self._period_ns = round(1e9 / robot.control_rate_hz)
        self._channels = []
        for channel in robot.channels:
            writer = ChannelEncoder(channel)
            topic = self._inside(channel.topic)
            profile = qos.IMAGES if channel.is_image else qos.SENSOR
            publisher = self.create_publisher(writer.message_type, topic, profile)
            self._channels.append((writer, publisher))
        self._feedback_publisher = self.create_publisher(
            Float64MultiArray, STEP_FEEDBACK, qos.FEEDBACK
        )
        self._clock_publisher = self.create_publisher(Clock, 'clock', qos.SENSOR)
        self._vector = CommandVector(robot.commands, robot.action.size)
        topics = []
        for index, command in enumerate(robot.commands):
            if command.is_action:
                raise ConfigError(
                    f'robot {robot.name!r}: command {command.name!r} is a {command.type}, which '
                    'this simulator does not serve; describe a robot with topics for it'
                )
            topic = self._inside(command.topic)
            topics.append(self.resolve_topic_name(topic))
            callback = partial(self._on_command, index)
            self.create_subscription(message_class(command.type), topic, callback, qos.COMMAND)
        self._wall_clock = SteadyClock(clock_type=ClockType.STEADY_TIME)
        self._ticks = 0
        self._steps = 0
        self._episode = -1
        self._done = False
        self._command: npt.NDArray[np.float64] | None = None
        self._feedback: StepFeedback | None = None
        self._answered_at: float | None = None
        self._began: float | None = None
        self._rate_base = (time.monotonic(), 0)
        self._reset()
        if parameters.lockstep:
            self.create_timer(0.25, self._watch, clock=self._wall_clock)
        else:
            self.create_timer(self._period_ns * 1e-9, self._tick, clock=self._wall_clock)
        Diagnostics(self, self._report, parameters.diagnostics_period_s, robot.name)
        self.get_logger().info(
            f'{parameters.task} waits for commands on {", ".join(topics)}; its policy '
            f'needs the same namespace (-r __ns:={self.get_namespace()})'
        )

    def _inside(self, topic: str) -> str:
        """Return a topic of the robot YAML within this node's namespace, even an absolute one."""
        return topic.lstrip('/')

    def _stamp(self) -> float:
        """Return the stamp of the current state [s]; zero would mean unset in a header."""
        if self.parameters.lockstep:
            return (self._ticks + 1) * self._period_ns * 1e-9
        return self.get_clock().now().nanoseconds * 1e-9

    def _reset(self) -> None:
        self._episode += 1
        seed = self.parameters.first_seed + self._episode
        self._observation = self._task.reset(seed, self._episode)
        self._done = False
        self._feedback = None
        self._command = None

    def _step(self, command: npt.NDArray[np.float64]) -> None:
        """Advance one control step, or begin the next episode after the last one ended."""
        self._ticks += 1
        if self._done:
            budget = self.parameters.control_steps
            if budget and self._steps >= budget:
                self.get_logger().info(f'{self._steps} control steps done')
                raise SystemExit(0)
            self._reset()
            return
        self._began = self._began or time.monotonic()
        self._observation, feedback = self._task.step(command)
        self._steps += 1
        self._done = feedback.done
        self._feedback = feedback

    def _publish(self) -> None:
        """Publish clock, feedback and every channel under the current stamp."""
        stamp = self._stamp()
        self._clock_publisher.publish(Clock(clock=to_time(stamp)))
        if self._feedback is not None:
            self._feedback_publisher.publish(labelled_array(self._feedback.to_array(stamp)))
        parts = split_observation(self._observation, self.robot)
        for (writer, publisher), values in zip(self._channels, parts, strict=True):
            publisher.publish(writer.message(values, stamp))

    def _on_command(self, index: int, message: Any) -> None:
        reader = self._vector.readers[index]
        lockstep = self.parameters.lockstep
        if lockstep and not reader.answers(message, self._stamp()):
            return  # The answer to a stamp that was repeated.
        try:
            command = self._vector.put(index, reader.values(message), complete=lockstep)
        except CommandError as error:
            self.get_logger().error(f'refused: {error}', throttle_duration_sec=1.0)
            return
        if command is None:
            return
        if not lockstep:
            self._command = command
            return
        self._answered_at = time.monotonic()
        self._step(command)
        self._publish()

    def _watch(self) -> None:
        """Lockstep: repeat a stamp that is not answered; give up after the timeout."""
        if self._answered_at is None:
            self._publish()
            return
        waited = time.monotonic() - self._answered_at
        if waited > self.parameters.command_timeout_s:
            raise ResidualRLError(
                f'no command for stamp {self._stamp():.3f} s came in {waited:.0f} s on '
                f'{self.robot.commands[0].topic}; is policy_node alive and active, and in '
                f'namespace {self.get_namespace()}?'
            )
        if waited > 0.5:
            self._publish()

    def _tick(self) -> None:
        """Real time: step with the newest command; before the first one only publish."""
        if self._command is not None:
            self._step(self._command)
        else:
            self._ticks += 1
        self._publish()

    def _report(self) -> tuple[bytes, str, Mapping[str, Any]]:
        then, steps = self._rate_base
        now = time.monotonic()
        self._rate_base = (now, self._steps)
        return (
            OK,
            'running',
            {
                'control_steps': self._steps,
                'episode': self._episode,
                'steps_per_s': (self._steps - steps) / (now - then),
                'mean_steps_per_s': self._steps / (now - (self._began or now) + 1e-9),
            },
        )


def main() -> int:
    """Run the simulator node."""
    return run(MujocoSimNode)


if __name__ == '__main__':
    raise SystemExit(main())
