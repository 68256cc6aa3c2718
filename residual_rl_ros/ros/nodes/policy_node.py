# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The policy node: observations in, safe commands and transitions out.

It turns messages into calls of a loop (`control/lockstep_loop.py`, `control/real_time_loop.py`),
which holds all behaviour, and what the loop says into messages.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from std_msgs.msg import Bool, Float64MultiArray, String, UInt8MultiArray

from residual_rl_ros.base_policy.received_policy import ReceivedPolicy, ReceivedQueue
from residual_rl_ros.control.composition import BlendRamp
from residual_rl_ros.control.feedback import STEP_FEEDBACK
from residual_rl_ros.control.lockstep_loop import LockstepLoop
from residual_rl_ros.control.policy_loop import LoopParts
from residual_rl_ros.control.real_time_loop import STOP_LIMIT_S, RealTimeLoop
from residual_rl_ros.control.step_watch import StepWatch
from residual_rl_ros.control.trajectory import TrajectoryHorizon
from residual_rl_ros.errors import CommandError, ObservationError
from residual_rl_ros.numerics import Array
from residual_rl_ros.residual_policy.actor_file import read_actor
from residual_rl_ros.robot.camera import ImageWorker, Sight
from residual_rl_ros.robot.command import CommandDecoder
from residual_rl_ros.robot.consistency import TAKEOVER_ACTIVE
from residual_rl_ros.robot.decoders import CameraDecoder
from residual_rl_ros.robot.message_decoder import MessageDecoder
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.robot.stamps import rounded
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.command_outputs import ARRIVAL_LIMIT_S, CommandOutputs
from residual_rl_ros.ros.common.encoders import (
    ChannelReader,
    message_count,
)
from residual_rl_ros.ros.common.managed_node import (
    ERROR,
    OK,
    WARN,
    Diagnostics,
    ManagedNode,
    control_clock,
    run,
)
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.common.node_parameters import PolicyParameters
from residual_rl_ros.ros.common.parameters import follow_parameters, read_parameters, read_tree
from residual_rl_ros.ros.common.process import take_privileges
from residual_rl_ros.ros.nodes.chunk_input import ChunkInput
from residual_rl_ros.ros.nodes.decision_topics import DecisionTopics
from residual_rl_ros.ros.nodes.policy_setup import (
    describe_policy,
    make_controller,
    make_preparation,
    open_base_policy,
    open_robot,
    ramp_s,
    real_time_rules,
    warm_up,
)
from residual_rl_ros.ros.nodes.policy_values import POLICY_CONCERNS, policy_values
from residual_rl_ros.ros.nodes.services import PolicyServices, StopInputs
from residual_rl_ros.transitions.cdr import labelled_array
from residual_rl_ros.transitions.seal import LAYOUT, WEIGHTS, Key
from residual_rl_ros.transitions.transition import Transition

ChannelCallback = Callable[[Any, Mapping[str, Any], bool], None]
WATCH_PERIOD_S = 0.25
"""How often a lockstep loop looks whether it waits in vain."""


class PolicyNode(ManagedNode):
    """Runs a policy loop on ROS topics."""

    def __init__(self) -> None:
        super().__init__('policy_node')
        self._privileges = ExitStack()
        """What the control loop has been given while it runs."""

    def configure(self) -> None:
        """Load robot and base policy, check them against each other, open the topics."""
        self._fault_reason = ''
        self._image_workers: list[tuple[str, ImageWorker[Sight]]] = []
        self.parameters = parameters = read_parameters(self, PolicyParameters, ('robot',))
        self.robot = robot = open_robot(self, read_tree(self, 'robot'))
        policy = open_base_policy(parameters, robot, self._now, self.get_logger().warning)
        self.controller = make_controller(parameters, policy, robot)
        self.made.callback(self.controller.close)
        self.controller.customisation.change(parameters.add_on, parameters.add_on_weight)
        warm_up(self.controller.queue, self.get_logger())
        self.controller.mailbox.key = self._key = Key.read(parameters.key_file)
        if parameters.actor:
            actor = read_actor(Path(parameters.actor), self._key)
            self.controller.mailbox.submit(self._key.seal(WEIGHTS, actor))
        self._blend = BlendRamp(ramp_s(parameters), parameters.blend_ratio)
        self._outputs = CommandOutputs(
            self,
            robot.commands,
            robot.action,
            1.0 / robot.control_rate_hz,
            parameters.lockstep,
        )
        self._loop = self._make_loop()
        self._open_topics(policy.metadata.image_sizes)
        if isinstance(policy, ReceivedPolicy):
            assert isinstance(self.controller.queue, ReceivedQueue)
            ChunkInput(self, policy, self.controller.queue, self.warn)
        follow = follow_parameters(self, parameters, self._set_parameters, self._check_parameters)
        self.made.callback(follow)
        # The first message costs 10 ms (rclpy looks for its caller), which no control step has.
        self.get_logger().info(
            f'{robot.name} at {robot.control_rate_hz:g} Hz with {describe_policy(policy)}, '
            f'decision_steps {self.controller.layout.decision_steps}, residual_scale '
            f'{list(parameters.residual_scale)}'
        )

    def _make_loop(self) -> LockstepLoop | RealTimeLoop:
        parameters = self.parameters
        assembler = ObservationAssembler(self.robot.channels)
        parts = LoopParts(self.controller, assembler, self._blend, self)
        if parameters.lockstep:
            return LockstepLoop(parts, parameters.actor_timeout_s)
        rules = real_time_rules(parameters)
        loop = RealTimeLoop(
            parts,
            1.0 / self.robot.control_rate_hz,
            rules,
            self._outputs.pass_time,
            make_preparation(self, self.robot, self.controller.limiter.safety),
            STOP_LIMIT_S - self._outputs.lag_s,
        )
        self.made.callback(loop.close)
        return loop

    def _check_parameters(self, parameters: PolicyParameters) -> None:
        """Refuse an add-on that this robot cannot have.

        Raises:
            ConfigError: the add-on names what the robot lacks, or the weight is out of range.
        """
        layout = self.controller.layout
        self.controller.customisation.check(parameters.add_on, parameters.add_on_weight, layout)

    def _set_parameters(self, parameters: PolicyParameters) -> None:
        """Take over the parameters that may change while the robot runs."""
        self.parameters = parameters
        self.controller.customisation.change(parameters.add_on, parameters.add_on_weight)
        self._tell_customisation()
        self.controller.residual.explore = parameters.explore
        self._blend.duration_s = ramp_s(parameters)
        self._blend.set_ceiling(parameters.blend_ratio)
        self._shown.rate_hz = parameters.publish_decisions_hz
        self._loop.set_rules(real_time_rules(parameters))

    def activate(self) -> None:
        """Start the control timer and latch the transition layout."""
        self._outputs.check_servers()
        layout = self.controller.layout.to_yaml().encode()
        self._layout_publisher.publish(String(data=self._key.seal(LAYOUT, layout).decode()))
        self._tell_customisation()
        self._fault_reason = ''
        # What was made so far lives as long as the node: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        self._loop.activate()
        self._steps = StepWatch(time.monotonic)
        if isinstance(self._loop, LockstepLoop):
            # A simulator that waits moves no clock.
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._timer = self.create_timer(WATCH_PERIOD_S, self._loop.watch, clock=steady)
        else:
            loop = self._loop
            with take_privileges(
                self.parameters.realtime_priority,
                self.parameters.lock_memory,
                self.get_logger().warning,
            ) as taken:
                self._timer = self.create_timer(
                    1.0 / self.robot.control_rate_hz,
                    lambda: self._tick(loop),
                    clock=control_clock(self),
                )
                self._outputs.start(control_clock(self), self._now, self.fault)
                self._privileges = taken.pop_all()

    def _tell_customisation(self) -> None:
        """Latch what the robot is asked for beside its task, where transitions tell of it."""
        if self.controller.layout.customisable:
            text = self.controller.customisation.to_yaml()
            self._customisation_publisher.publish(String(data=text))

    def _tick(self, loop: RealTimeLoop) -> None:
        """Hand over the images that have been read, then run a control step."""
        if problem := self._steps.step(self._now(), self.parameters.hold_limit_s):
            self.fault(problem)
            return
        for name, images in self._image_workers:
            while (image := images.take()) is not None:
                stamp, look = image
                try:
                    loop.push_observation(name, stamp, *look())
                except ObservationError as error:
                    loop.refuse_observation(error)
        if self._stop_inputs is not None:
            self._stop_inputs.watch()
        loop.tick(self._now())
        self._shown.publish()

    def deactivate(self) -> None:
        """Hold, stop ticking, and see that the hold arrives."""
        now = self._now()
        with ExitStack() as ending:  # From the last one up, whatever fails before.
            ending.callback(self._await_arrival)
            ending.enter_context(self._privileges)
            ending.callback(self.destroy_timer, self._timer)
            ending.callback(self._shown.publish)
            ending.callback(self._outputs.finish, STOP_LIMIT_S)
            ending.callback(self._loop.deactivate, now)
            self._outputs.stop(now)

    def _await_arrival(self) -> None:
        for topic in self._outputs.wait_for_arrival():
            self.get_logger().warning(
                f'a subscriber of {topic} has not acknowledged the last command within '
                f'{ARRIVAL_LIMIT_S} s'
            )

    def unanswered(self) -> list[str]:
        """Return the grippers that have not answered yet."""
        return self._outputs.unanswered()

    def _open_topics(self, image_sizes: Mapping[str, tuple[int, int]]) -> None:
        loop, create = self._loop, self.create_subscription
        for channel in self.robot.channels:
            size = image_sizes.get(channel.name)
            reader = ChannelReader(channel, self.parameters.lockstep, size)
            loop.assembler.hints[channel.name] = reader.decoder.hint
            if isinstance(reader.decoder, CameraDecoder) and isinstance(loop, RealTimeLoop):
                reader.subscribe(self, self._image_callback(reader.decoder))
            else:
                reader.subscribe(self, self._channel_callback(reader.decoder))
        create(Float64MultiArray, STEP_FEEDBACK, self._on_feedback, qos.FEEDBACK)
        create(
            UInt8MultiArray,
            'learner_node/actor',
            lambda message: loop.receive_weights(message.data),
            qos.LATCHED,
        )
        takeover = self.robot.takeover
        create(
            message_class(takeover.type),
            takeover.topic,
            self._takeover_callback(CommandDecoder(takeover, self.robot.action.size)),
            qos.COMMAND,
        )
        create(Bool, TAKEOVER_ACTIVE, lambda message: loop.set_takeover(message.data), qos.COMMAND)
        publisher = self.create_lifecycle_publisher
        self._horizon = None
        if steps := self._outputs.horizon_steps:
            period_s = 1.0 / self.robot.control_rate_hz
            self._horizon = TrajectoryHorizon(self.controller, steps, period_s)
        self._transition_publisher = publisher(Float64MultiArray, '~/transitions', qos.TRANSITIONS)
        self._layout_publisher = publisher(String, '~/transition_layout', qos.LATCHED)
        self._customisation_publisher = publisher(String, '~/customisation', qos.LATCHED)
        self._stop_inputs = None
        if isinstance(loop, RealTimeLoop):
            self._stop_inputs = StopInputs(self, self.robot.stop_inputs, loop, self._now)
        PolicyServices(self, loop, self._now)
        self._shown = DecisionTopics(
            self,
            self.controller,
            self.robot.name,
            self.parameters.marker_frame,
            self.parameters.publish_decisions_hz,
        )
        period_s = self.parameters.diagnostics_period_s
        Diagnostics(self, self._report, period_s, self.robot.name, POLICY_CONCERNS)

    # --- messages in

    def _channel_callback(self, decoder: MessageDecoder) -> ChannelCallback:
        loop, name, latched = self._loop, decoder.channel.name, decoder.channel.latched

        def callback(message: Any, information: Mapping[str, Any], second: bool) -> None:
            # What is given once is not given again when the node is activated.
            if not (loop.active or second or latched):
                return
            started = time.perf_counter()
            try:
                reading = decoder.read(message, self._now, message_count(information), second)
            except ObservationError as error:
                loop.refuse_observation(error)
                return
            finally:
                loop.assembler.hints[name] = decoder.hint
            if reading is not None:
                loop.push_observation(name, reading.stamp, reading.values, reading.image)
            loop.count_reading(time.perf_counter() - started)

        return callback

    def _image_callback(self, decoder: CameraDecoder) -> ChannelCallback:
        """Have images read in another thread; in lockstep a simulator waits for them instead."""
        loop, images = self._loop, ImageWorker(decoder.look, decoder.warm_up)
        self.made.callback(images.close)
        self._image_workers.append((decoder.channel.name, images))
        calibrate = self._channel_callback(decoder)

        def callback(message: Any, information: Mapping[str, Any], second: bool) -> None:
            if second:
                calibrate(message, information, second)
            if second or decoder.hint or not loop.active:
                return
            try:
                # Here, since `look` knows of one image: of those that wait only the newest is read.
                decoder.check_source(message_count(information))
                stamp = decoder.stamp(message)
            except ObservationError as error:
                loop.refuse_observation(error)
                return
            images.put(self._now() if stamp is None else stamp, message)

        return callback

    def _takeover_callback(self, reader: CommandDecoder) -> Callable[[Any], None]:
        loop = self._loop

        def callback(message: Any) -> None:
            try:
                loop.receive_takeover(reader.values(message))
            except CommandError as error:
                loop.refuse_takeover(error)

        return callback

    def _on_feedback(self, message: Float64MultiArray) -> None:
        data = np.array(message.data, dtype=np.float64)
        if data.size:
            data[0] = rounded(data[0])  # To the nanosecond, as the stamps of headers.
        self._loop.receive_feedback(data)

    # --- what the loop says (LoopCallbacks)

    def send_command(self, command: Array, stamp: float, holding: bool = False) -> None:
        """Publish a command."""
        trajectory = None if self._horizon is None else self._horizon.of(command, holding)
        waiting = bool(self.controller.hold_reason)
        self._outputs.send(command, stamp, holding, trajectory, waiting)
        self._shown.note(command, stamp, holding, self._loop.homing)
        if self.parameters.lockstep:
            self._shown.publish()

    def send_transition(self, transition: Transition) -> None:
        """Publish a transition."""
        layout = self.controller.layout
        data = labelled_array(layout.encode(transition), layout.label)
        self._transition_publisher.publish(data)

    def fault(self, reason: str) -> None:
        """Say why, hold and deactivate; one that stops already goes on with that."""
        if not self.active:
            self.get_logger().error(f'fault: {reason}', throttle_duration_sec=2.0)
            return
        self._fault_reason = reason
        self.get_logger().error(f'fault: {reason}')
        self.trigger_deactivate()

    def _silent_failures(self) -> str:
        """Return what no control step notices: there is none, or nobody hears it."""
        missing = ''
        if isinstance(self._loop, RealTimeLoop):
            usual_s = max(self.parameters.diagnostics_period_s, 3.0 / self.robot.control_rate_hz)
            missing = self._steps.missing(usual_s)
        return missing or self._outputs.unheard()

    def _report(self) -> tuple[bytes, str, Mapping[str, Any]]:
        self._loop.take_weights()  # While inactive no control step does.
        if self._fault_reason:
            level, message = ERROR, f'fault: {self._fault_reason}'
        elif problem := self._problem or (self._silent_failures() if self.active else ''):
            level, message = WARN, problem
        else:
            level, message = OK, self._loop.state if self.active else 'inactive'
        self._problem = ''
        values = policy_values(self._loop, self.robot.control_rate_hz)
        return level, message, {'active': self.active, **values, **self._outputs.report()}


def main() -> int:
    """Run the policy node."""
    return run(PolicyNode)


if __name__ == '__main__':
    raise SystemExit(main())
