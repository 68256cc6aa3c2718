# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What happens between messages: episodes, commands, holds, takeovers and faults.

A loop knows no middleware. The policy node hands it what arrives and the time, and carries out
what it says through `LoopCallbacks`. There are two: `LockstepLoop` answers the stamps of a waiting
simulator, `RealTimeLoop` runs at the control rate whatever arrives.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from residual_rl_ros.control.composition import BlendRamp
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.feedback import PendingFeedback, StepFeedback
from residual_rl_ros.control.gates import RealTimeRules
from residual_rl_ros.control.safety import illegal_choice
from residual_rl_ros.errors import (
    BasePolicyError,
    CommandError,
    FormatError,
    MalformedTransitionError,
    ObservationError,
    RewardError,
    UnsafeCommandError,
    WeightsError,
)
from residual_rl_ros.numerics import Array, is_one_hot
from residual_rl_ros.residual_policy.mailbox import DecodedWeights
from residual_rl_ros.robot.image_preprocessing import RgbImage
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.transitions.transition import Transition

COUNTERS = (
    'ticks',
    'overruns',
    'missed_periods',
    'holds',
    'transitions',
    'refused_starts',
    'refused_observations',
    'refused_feedback',
    'refused_takeovers',
    'refused_transitions',
    'takeovers',
    'operator_ticks',
)


class LoopCallbacks(Protocol):
    """Where a loop's results go."""

    def send_command(self, command: Array, stamp: float, holding: bool = False) -> None:
        """Send a command, shape (m,), that answers a stamp [s], and say whether it is to hold.

        Raises:
            CommandError: it cannot be sent to a part of the robot; to all others it has been.
        """

    def send_transition(self, transition: Transition) -> None:
        """Send a finished decision to the learner."""

    def warn(self, reason: str) -> None:
        """Say that something is wrong; the robot goes on."""

    def fault(self, reason: str) -> None:
        """Say that the robot cannot go on, and call `deactivate`."""


@dataclass(frozen=True)
class Answer:
    """What a loop says to an operator who asks for something; true if it does it."""

    accepted: bool
    message: str

    def __bool__(self) -> bool:
        """Return whether it does it."""
        return self.accepted


@dataclass(frozen=True)
class LoopParts:
    """What every loop is put together from."""

    controller: ResidualController
    """Composes commands and accounts for transitions."""
    assembler: ObservationAssembler
    """Newest value of every channel."""
    blend: BlendRamp
    """Fades the residual in after activation, a takeover and a rollback."""
    callbacks: LoopCallbacks
    """Where commands, transitions and warnings go."""
    clock: Callable[[], float] = time.perf_counter
    """Monotonic time, for durations [s]."""


class PolicyLoop(ABC):
    """What both loops share.

    Args:
        parts: what it is put together from.
    """

    def __init__(self, parts: LoopParts) -> None:
        self.controller = parts.controller
        self.assembler = parts.assembler
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        """What happened, for diagnostics."""
        self.episode = -1
        """Number of the episode, -1 before the first."""
        self.in_episode = False
        self.active = False
        self.held = False
        """An operator's hold; above everything else."""
        self._stopping = False
        self._blend, self._callbacks, self._clock = parts.blend, parts.callbacks, parts.clock
        self._feedback = PendingFeedback()
        self._takeover: Array | None = None
        self._takeover_active = False

    def activate(self) -> None:
        """Start; the robot may have been moved since the last command, and what it saw is old."""
        self.active, self.in_episode = True, False
        self.assembler.clear()
        self.controller.limiter.begin()
        self._blend.restart()

    def deactivate(self, now: float) -> None:
        """Hold, then stop."""
        self._stopping = True
        try:
            if self._commanded or not self.controller.limiter.at_rest:
                self._send_hold(now)
                self._come_to_rest(now)
        finally:
            self.active = self.in_episode = self._stopping = False

    @property
    def _commanded(self) -> bool:
        """Whether somebody commands the robot."""
        return self.in_episode

    def _come_to_rest(self, now: float) -> None:  # noqa: B027 - a simulator that waits is at rest.
        """Let a robot that has begun to slow down do so to the end."""

    def push_observation(
        self, channel: str, stamp: float, values: Array, image: RgbImage | None = None
    ) -> None:
        """Take in the values of a channel.

        Args:
            channel: its name.
            stamp: their time [s].
            values: shape (number of observation names of the channel,).
            image: what they were read from, of a camera, shape (height, width, 3), RGB.
        """
        waits = not self.active or self._belongs_to_next_episode(stamp)
        if waits and channel not in self.assembler.latched:
            return
        try:
            self.assembler.update(channel, stamp, values, image)
        except ObservationError as error:
            self.refuse_observation(error)
        else:
            self._on_observation(stamp)

    def refuse_observation(self, error: ObservationError) -> None:
        """Count and report values that cannot be used."""
        self.assembler.refuse(error)
        self._refuse('refused_observations', str(error))

    def receive_feedback(self, data: Array) -> None:
        """Take in what `StepFeedback.to_array` gives."""
        try:
            stamp, feedback = StepFeedback.from_array(data)
        except FormatError as error:
            self._refuse('refused_feedback', str(error))
            return
        if self.active:
            self._on_feedback(stamp, feedback)

    def receive_takeover(self, command: Array) -> None:
        """Take in an operator's command, shape (m,)."""
        action = self.controller.limiter.safety.action
        if command.shape != (action.size,) or not np.isfinite(command).all():
            self._refuse(
                'refused_takeovers',
                f'takeover command is {command[:8].tolist()}, expected {action.size} finite '
                'numbers',
            )
        elif action.is_discrete and not is_one_hot(command):
            self._refuse('refused_takeovers', f'takeover command {illegal_choice(action, command)}')
        elif problem := self.controller.limiter.safety.orientation_problem(command):
            self._refuse('refused_takeovers', f'takeover: {problem}')
        else:
            self._takeover = command

    def refuse_takeover(self, error: Exception) -> None:
        """Count and report an operator's command that cannot be used."""
        self._refuse('refused_takeovers', f'takeover: {error}')

    def set_takeover(self, active: bool) -> None:
        """Give the robot to an operator or back; the residual then fades in again."""
        if self._takeover_active and not active:
            self._blend.restart()
            self._takeover = None
            self.controller.limiter.interrupt()
        self.counts['takeovers'] += active and not self._takeover_active
        self._takeover_active = active

    @abstractmethod
    def set_held(self, held: bool) -> Answer:
        """Hold the robot, whatever else it is told, or let it go."""

    @abstractmethod
    def request_start(self) -> Answer:
        """Start an episode, or let go one that waits to."""

    @abstractmethod
    def request_home(self) -> Answer:
        """Go home, outside of an episode."""

    @abstractmethod
    def end_episode(self, feedback: StepFeedback, now: float) -> Answer:
        """End the episode with the next control step.

        Args:
            feedback: how it ends.
            now: ROS time [s].
        """

    @property
    def _commanding(self) -> bool:
        """Whether an operator has taken over and commands a robot that may move."""
        return self._takeover_active and self._takeover is not None and not self.held

    @property
    def taken_over(self) -> bool:
        """Whether an operator has the robot."""
        return self._takeover_active

    @property
    def state(self) -> str:
        """What goes on, in words."""
        return 'running'

    # --- what a simulator that waits has no need of

    @property
    def homing(self) -> bool:
        """Whether the robot is on its way home."""
        return False

    def set_rules(self, rules: RealTimeRules) -> None:  # noqa: B027
        """Take other rules of real time."""

    def count_reading(self, seconds: float) -> None:  # noqa: B027
        """Count time that was spent on reading observations since the last control step [s]."""

    def take_weights(self, wait: bool = False) -> None:  # noqa: B027
        """Keep the actors that have been read in another thread.

        Args:
            wait: for those that are being read, too.
        """

    def report(self) -> dict[str, Any]:
        """Return what diagnostics tell of real time."""
        return {}

    def receive_weights(self, message: Sequence[int]) -> None:
        """Take in the bytes of an actor; a bad one is refused and nothing changes."""
        try:
            self.controller.mailbox.check_size(len(message), bytes(message[:8]))
        except WeightsError as error:
            self._callbacks.warn(f'weights refused: {error}')
        else:
            self._read_weights(bytes(message))

    @abstractmethod
    def _read_weights(self, message: bytes) -> None:
        """Take in an actor of acceptable size."""

    def _accept_weights(self, result: Callable[[], DecodedWeights]) -> None:
        try:
            self.controller.mailbox.accept(result)
        except WeightsError as error:
            self._callbacks.warn(f'weights refused: {error}')

    @abstractmethod
    def _on_observation(self, stamp: float) -> None:
        """React to a channel's new values."""

    @abstractmethod
    def _on_feedback(self, stamp: float, feedback: StepFeedback) -> None:
        """React to the outcome of a control step."""

    def _belongs_to_next_episode(self, stamp: float) -> bool:
        """Return whether values must wait because an end before them is not accounted for yet."""
        del stamp
        return False

    def _begin_episode(self, observation: Array, stamp: float) -> None:
        self.episode += 1
        self.in_episode = True
        self._feedback.said = None
        self.controller.begin_episode(self.episode, observation, stamp, self.assembler.images)

    def _finish_step(self, observation: Array, stamp: float, feedback: StepFeedback) -> bool:
        """Account for the step just executed; return whether the episode is over."""
        try:
            transition = self.controller.step(observation, stamp, feedback, self.assembler.images)
        except BasePolicyError as error:
            self._callbacks.fault(str(error))
            return True
        if self.controller.customisation.problem:
            self._callbacks.warn(self.controller.customisation.problem)
            self.controller.customisation.problem = ''
        if transition is not None:
            self._deliver(transition)
        over = feedback.done and not self.controller.in_decision
        if over:
            self.in_episode = False
        return over

    def _deliver(self, transition: Transition) -> None:
        """Send a transition to the learner; one that its layout cannot hold is lost, and said."""
        try:
            self._callbacks.send_transition(transition)
        except MalformedTransitionError as error:
            self._refuse('refused_transitions', f'transition not sent: {error}')
            self.controller.mailbox.cancel_decision()
        else:
            self.counts['transitions'] += 1

    def enable_residual(self, enabled: bool) -> Answer:
        """Add the residual to the base, fading it in, or from the next decision on do not."""
        if enabled and not self.controller.residual.enabled:
            self._blend.restart()
        self.controller.residual.enabled = enabled
        return Answer(True, f'residual {"on" if enabled else "off"} from the next decision')

    def _fade_in(self, now: float) -> None:
        """Say how much of the residual a decision of now may have."""
        if self.controller.at_decision and self.controller.mailbox.begins_anew():
            self._blend.restart()
        self.controller.residual.blend_ratio = self._blend.ratio(now)

    def _send(self, stamp: float) -> None:
        """Compose and send the command of this control step."""
        self._fade_in(stamp)
        try:
            command = self.controller.command(self._takeover if self._commanding else None)
        except (BasePolicyError, RewardError, UnsafeCommandError) as error:
            self._callbacks.fault(str(error))
            return
        self.counts['ticks'] += 1
        self.counts['operator_ticks'] += self._commanding
        self._publish(command, stamp)

    def _send_hold(self, stamp: float, within_steps: float = np.inf) -> None:
        """Hold the robot, if it was told anything yet; it may be moved meanwhile."""
        self.controller.limiter.interrupt()
        if self.active:
            self._publish(self.controller.limiter.hold(within_steps), stamp, holding=True)

    def _publish(self, command: Array | None, stamp: float, holding: bool = False) -> None:
        """Send a command, if there is one; none leaves an inactive loop."""
        if command is None or not self.active:
            return
        try:
            self._callbacks.send_command(command, stamp, holding)
        except CommandError as error:
            (self._callbacks.warn if self._stopping else self._callbacks.fault)(str(error))

    def _refuse(self, counter: str, reason: str) -> None:
        self.counts[counter] += 1
        self._callbacks.warn(reason)
