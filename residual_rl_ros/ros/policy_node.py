# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The policy node: observations in, safe commands and transitions out.

Lockstep: one command per stamp, sent when every channel and the feedback of that stamp are here.
Real time: one command per timer tick from the latest observation; what is stale or late is held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from std_msgs.msg import Bool, Float64MultiArray, String, UInt8MultiArray
from std_srvs.srv import SetBool, Trigger

from residual_rl_ros.base_policy.metadata import BasePolicyError
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.finetune import find_base_policy
from residual_rl_ros.observation import ObservationAssembler, ObservationError
from residual_rl_ros.residual.blend import BlendRamp
from residual_rl_ros.residual.controller import ControllerConfig, ResidualController, StepFeedback
from residual_rl_ros.residual.safety import UnsafeCommandError
from residual_rl_ros.residual.weights import WeightsError
from residual_rl_ros.robot import RobotConfig
from residual_rl_ros.ros import qos
from residual_rl_ros.ros.managed_node import (
    ERROR,
    OK,
    WARN,
    Diagnostics,
    ManagedNode,
    read_parameters,
    read_tree,
    run,
)
from residual_rl_ros.ros.messages import (
    ChannelReader,
    float_array,
    from_time,
    stamped_label,
    to_time,
)
from residual_rl_ros.spec import Success

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PolicyParameters:
    """ROS parameters of the node, beside the robot description `robot.*`."""

    base_policy: str = ''
    """Path of the ONNX base policy, or the name of a shipped one."""
    decision_steps: int = 1
    """Control steps per residual decision (k)."""
    residual_scale: tuple[float, ...] = (0.1,)
    """Lambda: one value, or one per action dimension."""
    prefetch_steps: int = 0
    """Control steps before its first use at which a chunk is requested."""
    seed: int = 0
    """Seeds the base policy's and the exploration noise."""
    explore: bool = True
    """Sample the residual (training) instead of using its mean (deployment)."""
    lockstep: bool = False
    """Advance with the stamps of a waiting simulator instead of with time."""
    wait_for_actor: bool = True
    """Lockstep: wait for the actor that a decision needs, which makes the run reproducible."""
    actor_timeout_s: float = 60.0
    """Lockstep: after this wait without any sign of a learner the run goes on with the actor at
    hand."""
    auto_start: bool = True
    """Start the next episode by itself; otherwise `~/start_episode` does."""
    blend_ramp_s: float = 0.0
    """Time over which the residual fades in after activation and after a takeover [s]."""
    hold_limit_s: float = 1.0
    """Real time: holding longer than this is a fault that deactivates the node [s]."""


class PolicyNode(ManagedNode):
    """Runs the controller on ROS topics."""

    def __init__(self) -> None:
        super().__init__('policy_node')
        self._episode = -1
        self._in_episode = False
        self._done_stamp = -np.inf
        self._answered = -np.inf
        self._waiting_since: float | None = None
        self._weights = b''
        self._holding_since: float | None = None
        self._held = False
        self._feedback: StepFeedback | None = None
        self._feedback_stamp = -np.inf
        self._takeover: Array | None = None
        self._takeover_active = False
        self._last_command: Array | None = None
        self._start_requested = False
        self._problem = ''
        self._counts = dict.fromkeys(
            (
                *('ticks', 'overruns', 'holds', 'transitions'),
                *('refused_observations', 'refused_feedback', 'refused_takeovers'),
            ),
            0,
        )
        self._fault_reason = ''
        self._last_tick: float | None = None

    def configure(self) -> None:
        """Load robot and base policy, check them against each other, open the topics."""
        torch.set_num_threads(1)
        self.parameters = parameters = read_parameters(self, PolicyParameters)
        self.robot = robot = RobotConfig.from_mapping(read_tree(self, 'robot'))
        policy = OnnxBasePolicy(find_base_policy(parameters.base_policy))
        policy.metadata.check_robot(robot.observation_names, robot.action, robot.control_rate_hz)
        self.controller: ResidualController = ControllerConfig(
            decision_steps=parameters.decision_steps,
            residual_scale=parameters.residual_scale,
            prefetch_steps=parameters.prefetch_steps,
            seed=parameters.seed,
            explore=parameters.explore,
            lockstep=parameters.lockstep,
            scheduled_actor=parameters.lockstep and parameters.wait_for_actor,
        ).build(policy, robot.action)
        self.controller.queue.warm_up()
        self._blend = BlendRamp(parameters.blend_ramp_s)
        self._assembler = ObservationAssembler(robot.channels)
        self._open_topics()

    def activate(self) -> None:
        """Start the control timer and latch the transition layout."""
        self._layout_publisher.publish(String(data=self.controller.layout.to_yaml()))
        self._blend.restart()
        self._last_command, self._holding_since, self._fault_reason = None, None, ''
        if self.parameters.lockstep:
            self._timer = self.create_timer(0.25, self._watch_actor)
        else:
            self._timer = self.create_timer(1.0 / self.robot.control_rate_hz, self._tick)

    def deactivate(self) -> None:
        """Hold, then stop ticking."""
        if self._in_episode and self._last_command is not None:
            self._publish_command(self._last_command, self._now())
        self.destroy_timer(self._timer)
        self._in_episode = False

    def _open_topics(self) -> None:
        create = self.create_subscription
        for channel in self.robot.channels:
            reader = ChannelReader(channel)
            callback = self._channel_callback(channel.name, reader)
            create(reader.message_type, channel.topic, callback, qos.SENSOR)
        create(Float64MultiArray, 'step_feedback', self._on_feedback, qos.FEEDBACK)
        create(UInt8MultiArray, 'learner_node/actor', self._on_weights, qos.LATCHED)
        create(Float64MultiArray, 'takeover/command', self._on_takeover, qos.COMMAND)
        create(Bool, 'takeover/active', self._on_takeover_active, qos.COMMAND)
        publisher = self.create_lifecycle_publisher
        self._command_publisher = publisher(
            Float64MultiArray, self.robot.command_topic, qos.COMMAND
        )
        self._transition_publisher = publisher(Float64MultiArray, '~/transitions', qos.TRANSITIONS)
        self._layout_publisher = publisher(String, '~/transition_layout', qos.LATCHED)
        self.create_service(SetBool, '~/set_residual', self._set_residual)
        self.create_service(SetBool, '~/hold', self._set_hold)
        self.create_service(Trigger, '~/start_episode', self._start_episode)
        for name, feedback in {
            'mark_success': StepFeedback(1.0, True, False, Success.SUCCESS),
            'mark_failure': StepFeedback(0.0, True, False, Success.FAILURE),
            'end_episode': StepFeedback(0.0, False, True, Success.UNLABELLED),
        }.items():
            self.create_service(Trigger, f'~/{name}', self._ending_service(feedback))
        Diagnostics(self, self._report)

    # --- messages in

    def _channel_callback(self, name: str, reader: ChannelReader) -> Callable[[Any], None]:
        def callback(message: Any) -> None:
            if not self.active:
                return
            try:
                stamp = reader.stamp(message)
                if stamp is None:
                    stamp = self._now()
                if self._ended_before(stamp):
                    return
                self._assembler.update(name, stamp, reader.values(message))
            except ObservationError as error:
                self._refuse('refused_observations', error)
                return
            if self.parameters.lockstep:
                self._advance(stamp)

        return callback

    def _on_feedback(self, message: Float64MultiArray) -> None:
        data = np.asarray(message.data)
        if data.shape != (5,) or not np.isfinite(data).all() or data[4] not in (-1.0, 0.0, 1.0):
            self._refuse(
                'refused_feedback',
                f'step_feedback is {data.tolist()}, expected 5 finite numbers [stamp, reward, '
                'terminated, truncated, success]',
            )
            return
        if not self.active:
            return
        stamp = from_time(to_time(float(data[0])))
        feedback = StepFeedback(float(data[1]), bool(data[2]), bool(data[3]), Success(int(data[4])))
        if self.parameters.lockstep:
            self._feedback, self._feedback_stamp = feedback, stamp
            self._advance(stamp)
        elif self._in_episode:
            self._feedback, self._feedback_stamp = _merge(self._feedback, feedback), stamp

    def _on_weights(self, message: UInt8MultiArray) -> None:
        weights = message.data.tobytes()
        if weights == self._weights:  # A learner at long work says that it lives.
            if self._waiting_since is not None:
                self._waiting_since = time.monotonic()
            return
        try:
            self.controller.slot.offer(weights)
        except WeightsError as error:
            self.get_logger().warning(f'weights refused: {error}')
            return
        self._weights = weights
        if self._waiting_since is not None:
            self._send_when_ready(self._answering)

    def _on_takeover(self, message: Float64MultiArray) -> None:
        command = np.array(message.data, dtype=np.float64)
        if command.shape != (self.robot.action.size,) or not np.isfinite(command).all():
            self._refuse('refused_takeovers', f'takeover command is {command.tolist()}')
            return
        self._takeover = command

    def _on_takeover_active(self, message: Bool) -> None:
        if self._takeover_active and not message.data:
            self._blend.restart()
            self._takeover = None
        self._takeover_active = bool(message.data)

    def _ended_before(self, stamp: float) -> bool:
        """Return whether an end not yet accounted for precedes this observation (real time).

        The observation then belongs to the next episode and must not close the last one.
        """
        feedback = self._feedback
        ended = feedback is not None and feedback.done and not self.parameters.lockstep
        return ended and stamp > self._feedback_stamp

    # --- lockstep

    def _advance(self, stamp: float) -> None:
        """Answer a stamp once everything that belongs to it has arrived."""
        if not self._assembler.complete_at(stamp):
            return
        if stamp <= self._answered:
            # The simulator repeats a stamp whose answer it missed.
            if stamp == self._answered and self._last_command is not None:
                self._publish_command(self._last_command, stamp)
            return
        if self._waiting_since is not None:
            return
        if not self._in_episode:
            self._begin_episode(self._assembler.assemble(), stamp)
        elif self._feedback_stamp == stamp and self._feedback is not None:
            if self._finish_step(self._assembler.assemble(), stamp, self._feedback):
                self._answered = stamp
                assert self._last_command is not None
                self._publish_command(self._last_command, stamp)
                return
        else:
            return
        self._send_when_ready(stamp)

    def _send_when_ready(self, stamp: float) -> None:
        """Send the command of this stamp, or wait for the actor that its decision needs."""
        self._answering = stamp
        if self.controller.at_decision and self.controller.slot.must_wait():
            if self._waiting_since is None:
                self._waiting_since = time.monotonic()
            return
        self._waiting_since = None
        self._answered = stamp
        self._send(stamp)

    def _watch_actor(self) -> None:
        """Go on without a learner that stopped publishing."""
        limit = self.parameters.actor_timeout_s
        if self._waiting_since is not None and time.monotonic() - self._waiting_since > limit:
            self._warn(
                f'no actor came in {limit:g} s; going on with the one at hand until a learner '
                'publishes again'
            )
            self.controller.slot.stop_waiting()
            self._send_when_ready(self._answering)

    # --- real time

    def _tick(self) -> None:
        """Run one control step on the latest observation."""
        now = self._now()
        if self._last_tick is not None:
            self._counts['overruns'] += now - self._last_tick > 1.5 / self.robot.control_rate_hz
        self._last_tick = now
        try:
            observation = self._assembler.assemble(now)
        except ObservationError as error:
            if self._in_episode:
                self._pause(now, str(error))
            else:
                self._warn(str(error))
            return
        if self._in_episode:
            feedback = self._feedback or StepFeedback(0.0, False, False, Success.UNLABELLED)
            self._feedback = None
            if self._finish_step(observation, now, feedback):
                self._hold(now, '')
                return
        elif self.parameters.auto_start or self._start_requested:
            if self._assembler.oldest_stamp <= self._done_stamp:
                return
            self._start_requested = False
            self._begin_episode(observation, now)
        else:
            return
        if self._takeover_active:
            if self._takeover is None:
                self._pause(now, '')  # An operator took over and has not commanded yet.
                return
        elif self._held:
            self._pause(now, '')
            return
        late = self.controller.late_chunks
        self._send(now)
        if self.controller.late_chunks > late:
            self._hold(now, 'the base policy is late: raise prefetch_steps')
        else:
            self._holding_since = None

    def _pause(self, now: float, reason: str) -> None:
        """Hold instead of going on with the decision in progress."""
        self.controller.abandon()
        self._hold(now, reason)

    def _hold(self, now: float, reason: str) -> None:
        """Repeat the last command; a reason that persists is a fault."""
        self._counts['holds'] += 1
        if self._last_command is not None:
            self._publish_command(self._last_command, now)
        if not reason:
            return
        self._problem = reason
        self._holding_since = self._holding_since or now
        if now - self._holding_since > self.parameters.hold_limit_s:
            self._fault(f'held for {now - self._holding_since:.2f} s: {reason}')

    # --- both

    def _begin_episode(self, observation: Array, stamp: float) -> None:
        self._episode += 1
        self._in_episode = True
        self._last_command = None  # The robot may have been moved since the last episode.
        self._feedback = None
        self.controller.begin_episode(self._episode, observation, stamp)

    def _finish_step(self, observation: Array, stamp: float, feedback: StepFeedback) -> bool:
        """Account for the step just executed; return whether the episode is over."""
        try:
            transition = self.controller.step(observation, stamp, feedback)
        except BasePolicyError as error:
            self._fault(str(error))
            return True
        if transition is not None:
            layout = self.controller.layout
            message = float_array(layout.encode(transition), layout.label)
            self._transition_publisher.publish(message)
            self._counts['transitions'] += 1
        if feedback.done:
            self._in_episode = False
            self._done_stamp = max(stamp, self._feedback_stamp)
        return feedback.done

    def _send(self, stamp: float) -> None:
        """Compose and publish the command of this control step."""
        self.controller.blend_ratio = self._blend.ratio(stamp)
        takeover = self._takeover if self._takeover_active else None
        try:
            command = self.controller.command(takeover)
        except (BasePolicyError, UnsafeCommandError) as error:
            self._fault(str(error))
            return
        self._counts['ticks'] += 1
        if command is not None:
            self._last_command = command
            self._publish_command(command, stamp)

    def _publish_command(self, command: Array, stamp: float) -> None:
        self._command_publisher.publish(float_array(command, stamped_label(stamp)))

    def _fault(self, reason: str) -> None:
        """Hold, say why and deactivate."""
        self._fault_reason = reason
        self.get_logger().error(f'fault: {reason}')
        self.trigger_deactivate()

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _refuse(self, counter: str, reason: object) -> None:
        self._counts[counter] += 1
        self._warn(str(reason))

    def _warn(self, reason: str) -> None:
        self._problem = reason
        self.get_logger().warning(reason, throttle_duration_sec=2.0)

    # --- services

    def _set_residual(self, request: Any, response: Any) -> Any:
        self.controller.residual_enabled = request.data
        response.success = True
        response.message = f'residual {"on" if request.data else "off"} from the next decision'
        return response

    def _set_hold(self, request: Any, response: Any) -> Any:
        self._held = request.data
        response.success = not self.parameters.lockstep
        response.message = 'holding' if request.data else 'released'
        if self.parameters.lockstep:
            response.message = 'a lockstep simulator waits for commands; hold has no effect'
        return response

    def _start_episode(self, request: Any, response: Any) -> Any:
        del request
        response.success = self.active and not self._in_episode
        self._start_requested = response.success
        response.message = 'starting' if response.success else 'inactive or in an episode already'
        return response

    def _ending_service(self, feedback: StepFeedback) -> Callable[[Any, Any], Any]:
        def callback(request: Any, response: Any) -> Any:
            del request
            response.success = self._in_episode and not self.parameters.lockstep
            response.message = 'ending the episode' if response.success else 'no episode to end'
            if self.parameters.lockstep:
                response.message = 'in lockstep only the simulator ends episodes'
            if response.success:
                self._feedback = _merge(self._feedback, feedback)
                self._feedback_stamp = self._now()
            return response

        return callback

    def _report(self) -> tuple[bytes, str, Mapping[str, Any]]:
        slot = self.controller.slot
        header = slot.header
        if self._fault_reason:
            level, message = ERROR, f'fault: {self._fault_reason}'
        elif self._problem:
            level, message = WARN, self._problem
        else:
            level, message = OK, 'running' if self.active else 'inactive'
        self._problem = ''
        values = {
            'active': self.active,
            'episode': self._episode,
            'epoch': header.epoch if header else 0,
            'sequence': header.sequence if header else -1,
            'residual_on': slot.enabled and self.controller.residual_enabled,
            'weights_accepted': slot.accepted,
            **{f'weights_refused_{reason}': n for reason, n in slot.refused.items()},
            **self._counts,
            'late_chunks': self.controller.late_chunks,
            'clamped': self.controller.safety.clamped,
            'slew_limited': self.controller.safety.slew_limited,
        }
        return level, message, values


def _merge(first: StepFeedback | None, second: StepFeedback) -> StepFeedback:
    """Add up feedback that arrived within one control step."""
    if first is None:
        return second
    return StepFeedback(
        first.reward + second.reward,
        first.terminated or second.terminated,
        first.truncated or second.truncated,
        second.success if second.success is not Success.UNLABELLED else first.success,
    )


def main() -> int:
    """Run the policy node."""
    return run(PolicyNode)


if __name__ == '__main__':
    raise SystemExit(main())
