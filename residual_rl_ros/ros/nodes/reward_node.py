# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The reward node: observations in, step feedback out, for robots without a simulator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from std_msgs.msg import Float64MultiArray

from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.control.reward import RewardSource, SuccessClassifier, load_function
from residual_rl_ros.errors import ConfigError, ObservationError, RewardError
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import ChannelReader
from residual_rl_ros.ros.common.managed_node import (
    OK,
    WARN,
    Diagnostics,
    ManagedNode,
    control_clock,
    run,
)
from residual_rl_ros.ros.common.node_parameters import RewardParameters
from residual_rl_ros.ros.common.parameters import read_parameters, read_tree
from residual_rl_ros.transitions.cdr import labelled_array


class RewardNode(ManagedNode):
    """Asks a reward source once a control step."""

    def __init__(self) -> None:
        super().__init__('reward_node')
        self._problem = ''
        self._asked = self._answered = self._successes = self._refused = 0

    def configure(self) -> None:
        """Load robot and reward source, open the topics."""
        parameters = read_parameters(self, RewardParameters, ('robot',))
        self._robot = robot = RobotConfig.from_mapping(read_tree(self, 'robot'))
        self._source = _make_source(parameters, robot)
        self._assembler = ObservationAssembler(robot.channels)
        for channel in robot.channels:
            ChannelReader(channel).feed(self, self._assembler, self._now, self._refuse)
        self._publisher = self.create_lifecycle_publisher(
            Float64MultiArray, 'step_feedback', qos.FEEDBACK
        )
        Diagnostics(self, self._report, parameters.diagnostics_period_s, robot.name)

    def activate(self) -> None:
        """Begin to ask."""
        self._timer = self.create_timer(
            1.0 / self._robot.control_rate_hz, self._tick, clock=control_clock(self)
        )

    def deactivate(self) -> None:
        """Stop asking."""
        self.destroy_timer(self._timer)

    def _refuse(self, error: ObservationError) -> None:
        self._refused += 1
        self._warn(str(error))

    def _tick(self) -> None:
        now = self._now()
        try:
            observation = self._assembler.assemble(now)
        except ObservationError as error:
            self._warn(str(error))
            return
        self._asked += 1
        try:
            feedback = self._source(observation)
        except RewardError as error:
            self._warn(str(error))
            return
        if feedback is not None:
            self._answered += 1
            self._successes += feedback.terminated and int(feedback.success) == 1
            self._publisher.publish(labelled_array(_values(now, feedback)))

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _warn(self, reason: str) -> None:
        self._problem = reason
        self.get_logger().warning(reason, throttle_duration_sec=2.0)

    def _report(self) -> tuple[bytes, str, Mapping[str, Any]]:
        message, self._problem = self._problem or 'running', ''
        values = {
            'active': self.active,
            'asked': self._asked,
            'answered': self._answered,
            'successes': self._successes,
            'refused_observations': self._refused,
        }
        return (OK if message == 'running' else WARN), message, values


def _make_source(parameters: RewardParameters, robot: RobotConfig) -> RewardSource:
    if bool(parameters.classifier) == bool(parameters.function):
        raise ConfigError(
            f'reward_node needs classifier or function, and has {parameters.classifier!r} and '
            f'{parameters.function!r}'
        )
    names = robot.observation_names
    if parameters.function:
        return load_function(parameters.function, names)
    return SuccessClassifier(
        Path(parameters.classifier),
        names,
        parameters.threshold,
        parameters.consecutive,
        parameters.classifier_sha256,
    )


def _values(stamp: float, feedback: StepFeedback) -> list[float]:
    return [
        stamp,
        feedback.reward,
        float(feedback.terminated),
        float(feedback.truncated),
        float(feedback.success),
    ]


def main() -> int:
    """Run the reward node."""
    return run(RewardNode)


if __name__ == '__main__':
    raise SystemExit(main())
