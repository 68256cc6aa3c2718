# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The reward node: it judges a robot without a simulator, and shows what add-ons are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from std_msgs.msg import Float64MultiArray, String

from residual_rl_ros.control.feedback import STEP_FEEDBACK
from residual_rl_ros.control.reward import RewardSource, SuccessClassifier, load_function
from residual_rl_ros.errors import (
    ConfigError,
    MalformedTransitionError,
    ObservationError,
    RewardError,
)
from residual_rl_ros.rewards.composition import AddOns, BoundAddOns, decision_reward
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.robot.stamps import label_of
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import ChannelReader
from residual_rl_ros.ros.common.managed_node import (
    Diagnostics,
    ManagedNode,
    control_clock,
    run,
)
from residual_rl_ros.ros.common.node_parameters import RewardParameters
from residual_rl_ros.ros.common.parameters import follow_parameters, read_parameters, read_tree
from residual_rl_ros.transitions.cdr import labelled_array
from residual_rl_ros.transitions.layout import TransitionLayout

ADD_ON_HEAD = ('stamp', 'episode', 'step', 'total')
"""Numbers of `~/add_on` before those of each add-on; its label names all of them."""


class ShownAddOns:
    """Says of each decision what add-ons are worth, as whoever replays its transition does.

    It reads the transitions of the policy node, and no actions: these have neither the observation
    that was decided upon nor all digits. What it publishes is to be looked at. It is not added to
    `step_feedback`, from which policy and learner would count it again.

    Args:
        robot: has the names until the policy node's layout comes.
        warn: told what is wrong; the next decision is another try.
    """

    def __init__(self, robot: RobotConfig, warn: Callable[[str], None]) -> None:
        self._robot = robot
        self._warn = warn
        self._add_ons = AddOns()
        self._layout: TransitionLayout | None = None
        self._reward: BoundAddOns | None = None
        self._episode = -1
        self.sum = 0.0
        """Add-on return of the episode in progress, or of the last one."""
        self.failures = 0
        """Transitions that were malformed, or whose add-on is no number."""

    def check(self, text: str) -> None:
        """Refuse add-ons that this robot cannot have.

        Args:
            text: add-ons as YAML; empty is none.

        Raises:
            ConfigError: the text is no add-on, or the robot lacks what it names.
        """
        self._bind(AddOns.from_message(text))

    def ask(self, text: str) -> None:
        """Show other add-ons from the next decision on; those before stay if this raises.

        Raises:
            ConfigError: as `check`.
        """
        add_ons = AddOns.from_message(text)
        self._reward, self._add_ons, self._episode = self._bind(add_ons), add_ons, -1

    def _bind(self, add_ons: AddOns) -> BoundAddOns | None:
        """Return the reward by the layout; before it has come, only look the names up."""
        if self._layout is not None:
            return decision_reward(add_ons, self._layout)
        steps = 2  # How many a decision has is not known yet, and one may be too few.
        add_ons.bind(self._robot.observation_names, self._robot.action.names, steps)
        return None

    def take_layout(self, text: str) -> None:
        """Look the names up in the layout of the policy node; a digest is a comment of its YAML."""
        self._layout = self._reward = None
        try:
            self._layout = TransitionLayout.from_yaml(text)
            self._reward = decision_reward(self._add_ons, self._layout)
        except (ConfigError, RewardError) as error:
            self._warn(f'no add-on is shown: {error}')

    def of(self, data: npt.ArrayLike, label: str) -> bytes | None:
        """Return the message for a decision; None if there is nothing to say.

        Args:
            data: numbers of the transition.
            label: label of its message.
        """
        if self._layout is None or self._reward is None or not self._add_ons:
            return None
        try:
            transition = self._layout.decode(data, label)
            each = self._reward.of_each(transition)
        except (MalformedTransitionError, RewardError) as error:
            self.failures += 1
            self._warn(f'{error} ({self.failures} so far)')
            return None
        if transition.episode != self._episode:
            self._episode, self.sum = transition.episode, 0.0
        total = sum(each)
        self.sum += total
        names = [part.name for part in self._add_ons.parts]
        head = (transition.stamp, transition.episode, transition.step)
        return labelled_array((*head, total, *each), ','.join((*ADD_ON_HEAD, *names)))


class RewardNode(ManagedNode):
    """Asks a reward source once a control step, and shows add-ons once a decision."""

    def __init__(self) -> None:
        super().__init__('reward_node')
        self._asked = self._answered = self._successes = self._refused = 0

    def configure(self) -> None:
        """Load robot and reward source, open the topics."""
        parameters = read_parameters(self, RewardParameters, ('robot',))
        self._robot = robot = RobotConfig.from_mapping(read_tree(self, 'robot'))
        self._source = _make_source(parameters, robot)
        self._show_add_ons(parameters)
        self._assembler = ObservationAssembler(robot.channels)
        # With add-ons alone there is nobody to ask, and nothing to listen to.
        for channel in robot.channels if self._source else ():
            ChannelReader(channel).feed(self, self._assembler, self._now, self._refuse)
        self._publisher = self.create_lifecycle_publisher(
            Float64MultiArray, STEP_FEEDBACK, qos.FEEDBACK
        )
        Diagnostics(self, self._report, parameters.diagnostics_period_s, robot.name)

    def _show_add_ons(self, parameters: RewardParameters) -> None:
        """Listen to the policy node.

        Raises:
            ConfigError: the add-ons are wrong.
        """
        self._shown = shown = ShownAddOns(self._robot, self.warn)
        shown.ask(parameters.add_on)
        publisher = self.create_lifecycle_publisher(Float64MultiArray, '~/add_on', qos.FEEDBACK)

        def on_transition(message: Float64MultiArray) -> None:
            worth = shown.of(message.data, label_of(message)) if self.active else None
            if worth is not None:
                publisher.publish(worth)

        create = self.create_subscription
        create(
            String,
            'policy_node/transition_layout',
            lambda message: shown.take_layout(message.data),
            qos.LATCHED,
        )
        create(Float64MultiArray, 'policy_node/transitions', on_transition, qos.TRANSITIONS)
        follow = follow_parameters(
            self,
            parameters,
            lambda changed: shown.ask(changed.add_on),
            lambda changed: shown.check(changed.add_on),
        )
        self.made.callback(follow)

    def activate(self) -> None:
        """Begin to ask."""
        if self._source:
            period_s = 1.0 / self._robot.control_rate_hz
            self._timer = self.create_timer(period_s, self._tick, clock=control_clock(self))

    def deactivate(self) -> None:
        """Stop asking."""
        if self._source:
            self.destroy_timer(self._timer)

    def _refuse(self, error: ObservationError) -> None:
        self._refused += 1
        self.warn(str(error))

    def _tick(self) -> None:
        assert self._source is not None
        now = self._now()
        try:
            observation = self._assembler.assemble(now)
        except ObservationError as error:
            self.warn(str(error))
            return
        self._asked += 1
        try:
            feedback = self._source(observation)
        except RewardError as error:
            self.warn(str(error))
            return
        if feedback is not None:
            self._answered += 1
            self._successes += feedback.terminated and int(feedback.success) == 1
            self._publisher.publish(labelled_array(feedback.to_array(now)))

    def _report(self) -> tuple[bytes, str, Mapping[str, Any]]:
        values = {
            'active': self.active,
            'asked': self._asked,
            'answered': self._answered,
            'successes': self._successes,
            'refused_observations': self._refused,
            'add_on_reward': self._shown.sum,
            'add_on_failures': self._shown.failures,
        }
        return *self._health(), values


def _make_source(parameters: RewardParameters, robot: RobotConfig) -> RewardSource | None:
    if not parameters.classifier and not parameters.function and parameters.add_on:
        return None
    if bool(parameters.classifier) == bool(parameters.function):
        raise ConfigError(
            f'reward_node needs classifier or function, or add_on alone, and has '
            f'{parameters.classifier!r} and {parameters.function!r}'
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


def main() -> int:
    """Run the reward node."""
    return run(RewardNode)


if __name__ == '__main__':
    raise SystemExit(main())
