# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The learner node: transitions in, actors out.

ROS callbacks run in a thread of their own and only queue; learning has the main thread. Transitions
are learned from in the order of arrival, each before the next, so a run depends on their order and
not on their timing.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from std_msgs.msg import Float64MultiArray, String, UInt8MultiArray
from std_srvs.srv import SetBool, Trigger

from residual_rl_ros.errors import (
    CheckpointError,
    ConfigError,
    MalformedTransitionError,
    SealError,
)
from residual_rl_ros.learner.learner import Learner, Log, Phase
from residual_rl_ros.rewards.composition import AddOns
from residual_rl_ros.robot.stamps import label_of
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import byte_array
from residual_rl_ros.ros.common.managed_node import Diagnostics, ManagedNode, run
from residual_rl_ros.ros.common.node_parameters import LearnerParameters
from residual_rl_ros.ros.common.parameters import follow_parameters, read_parameters, read_tree
from residual_rl_ros.ros.common.process import give_way
from residual_rl_ros.ros.common.qos import SolePublisher
from residual_rl_ros.ros.nodes.learner_output import LearnerOutput
from residual_rl_ros.ros.nodes.learner_values import LEARNER_CONCERNS, LearnerValues
from residual_rl_ros.ros.nodes.learning_thread import ServiceBridge, WorkQueue
from residual_rl_ros.transitions.feed import PendingTransitions, TransitionFeed
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.seal import LAYOUT, WEIGHTS, Key

WATCH_PERIOD_S = 0.25
"""How often a learner looks for others of its topic."""
BUSY = 'the learner is busy; ask again'
LAYOUT_LIMIT = 10**5
"""A longer layout text is no layout [characters]."""
SIGN_OF_LIFE_S = 5.0
"""During long work the latest weights are repeated this often, so that nobody gives up waiting."""


class LearnerNode(ManagedNode):
    """Feeds the learner from ROS topics."""

    def __init__(self) -> None:
        super().__init__('learner_node')
        self.parameters = LearnerParameters()
        self._output: LearnerOutput | None = None
        self._run = f'{os.getpid()}@{socket.gethostname():.30} {time.time_ns():x}'
        """Tells the weights of this process from those of another learner."""
        self._weights = b''
        self._jobs = WorkQueue(partial(self.warn, 'stopped before all updates were taken'))
        self._executor_in_use = SingleThreadedExecutor()
        self._requests = ServiceBridge(self._executor_in_use.wake)
        self._learner: Learner | None = None
        self._published = math.inf
        self._feeds: dict[str, TransitionFeed] = {}
        self._early = PendingTransitions()
        self._values = LearnerValues(time.monotonic())

    def configure(self) -> None:
        """Read the preset, make the output folder, open the topics."""
        torch.set_num_threads(1)
        self.parameters = parameters = read_parameters(
            self, LearnerParameters, trees=('overrides',)
        )
        self._key = Key.read(parameters.key_file)
        if self._output is None:  # Else the learner goes on where it is.
            given = self.get_parameters_by_prefix('overrides')
            overrides = read_tree(self, 'overrides') if given else {}
            self._output = LearnerOutput(parameters, overrides, self._key, self.warn)
        self.made.callback(self._close_unused)
        follow = follow_parameters(self, parameters, self._set_parameters, self._check_parameters)
        self.made.callback(follow)
        self._publisher = SolePublisher.of(
            self, self.resolve_topic_name('~/actor'), self._create_publisher
        )
        robots = [robot.strip('/') for robot in parameters.robots]
        if len(set(robots)) < len(robots):
            raise ConfigError(f'parameter robots is {robots}, expected each of them once')
        for robot in robots:
            self._listen_to(self._feeds.setdefault(robot, TransitionFeed(robot)))
        self.create_service(SetBool, '~/pause', self._pause)
        # While they wait for the learning thread, transitions must arrive.
        apart = MutuallyExclusiveCallbackGroup()
        for name, job in {'~/save': self._save, '~/rollback': self._rollback}.items():
            callback = self._requests.service(partial(self._try, job), BUSY)
            self.create_service(Trigger, name, callback, callback_group=apart)
        period_s = parameters.diagnostics_period_s
        Diagnostics(self, self._report, period_s, concerns=LEARNER_CONCERNS)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(WATCH_PERIOD_S, self._check_rival, clock=steady)

    def _create_publisher(self) -> None:
        create = self.create_lifecycle_publisher
        self._actor_publisher = create(UInt8MultiArray, '~/actor', qos.LATCHED)

    def _close_unused(self) -> None:
        if self._output is not None and self._learner is None:
            self._output.close()
            self._output = None

    def _check_parameters(self, parameters: LearnerParameters) -> None:
        """Refuse an add-on that the learner cannot learn.

        Raises:
            ConfigError: the text is no add-on, the rule learns none, or the robot lacks what it
                names.
        """
        if self._learner is None:
            AddOns.from_message(parameters.add_on)
        else:
            self._learner.add_on.check(parameters.add_on)

    def _set_parameters(self, parameters: LearnerParameters) -> None:
        before, self.parameters = self.parameters, parameters
        asked = parameters.add_on, parameters.add_on_weight
        if asked != (before.add_on, before.add_on_weight):
            self._jobs.put(self._customise)

    def _listen_to(self, feed: TransitionFeed) -> None:
        policy = f'/{feed.robot}/policy_node' if feed.robot else 'policy_node'
        jobs = self._jobs

        def on_layout(message: String) -> None:
            jobs.put(lambda: self._start(feed, message.data))

        def on_transition(message: Float64MultiArray) -> None:
            if self.active:
                jobs.put(lambda: self._ingest(feed, message))

        create = self.create_subscription
        # Robots learn of them in this order: whose layout arrives sends each transition here too.
        create(Float64MultiArray, f'{policy}/transitions', on_transition, qos.TRANSITIONS)
        create(String, f'{policy}/transition_layout', on_layout, qos.LATCHED)

    def request_stop(self) -> None:
        """End `learn`, at the latest when the drain limit is over."""
        self._jobs.stop(self.parameters.drain_limit_s)

    def learn(self) -> None:
        """Work until told to stop, then save."""
        executor = self._executor_in_use
        executor.add_node(self)
        spinner = threading.Thread(target=self._spin, name='ros', daemon=True)
        spinner.start()
        # This thread only: what serves the middleware must not keep the robot waiting.
        give_way(self.parameters.niceness)
        self._saved_at = time.monotonic()
        try:
            while not self._jobs.stopping:
                self._work()
            self._jobs.drain()
        finally:
            self._try(self._save)
            if self._output is not None:
                self._output.close()
            executor.shutdown(timeout_sec=1.0)
            spinner.join(timeout=1.0)

    def _work(self) -> None:
        """Answer, do the next piece of work, and save now and then."""
        self._requests.serve()
        self._jobs.do_next()
        if time.monotonic() - self._saved_at > self.parameters.checkpoint_interval_s:
            self._try(self._save)
            self._saved_at = time.monotonic()

    def _pulse(self) -> None:
        """Between two updates: answer, give a sign of life, and stop if asked to."""
        if self._learner is not None and self._learner.phase is Phase.WARMUP:
            # Not later: a rollback must not come between the updates of a transition.
            self._requests.serve()
        self._jobs.check_time()
        if time.monotonic() - self._published > SIGN_OF_LIFE_S:
            self._publish(self._weights)

    # --- in the ROS thread: queue only

    def _pause(self, request: Any, response: Any) -> Any:
        self._jobs.pause(request.data)
        response.success, response.message = True, 'paused' if request.data else 'resumed'
        return response

    def _spin(self) -> None:
        """Serve the middleware; without it the learner would hear nothing, so it ends."""
        try:
            self._executor_in_use.spin()
        except ExternalShutdownException:
            return
        except Exception as error:  # noqa: BLE001 - a thread ends without a word.
            self.get_logger().error(traceback.format_exc())
            self.failure = error
            self.request_stop()

    # --- in the main thread

    def _customise(self) -> None:
        """Learn for the add-on that the parameters say."""
        learner, text, weight = self._learner, self.parameters.add_on, self.parameters.add_on_weight
        if learner is None:
            return  # It begins with it.
        try:
            weights = learner.customise(text, weight, self._pulse)
        except ConfigError as error:
            self.warn(f'add-on refused: {error}')
            return
        if weights is not None:
            self._publish(weights)
            self.get_logger().info(f'learned for the new add-on, epoch {learner.epoch}')

    def _start(self, feed: TransitionFeed, text: str) -> None:
        """Make the learner for a layout; a restarted policy node with the same layout keeps it."""
        try:
            if len(text) > LAYOUT_LIMIT:
                raise ConfigError(f'{len(text)} characters, expected <= {LAYOUT_LIMIT}')
            layout = TransitionLayout.from_yaml(self._key.open(LAYOUT, text.encode()).decode())
        except (ConfigError, SealError) as error:
            self._warn_of_layout(f'layout of {feed} refused: {error}')
            return
        if self._learner is None:
            assert self._output is not None
            try:
                # Only then: a learner without its demonstrations must not be saved.
                log = Log(self.warn, self.get_logger().info)
                self._learner = learner = self._output.make_learner(
                    layout, self._jobs.check_stop, log, self._run
                )
            except (CheckpointError, ConfigError) as error:
                if len(self._feeds) == 1 and isinstance(error, CheckpointError):
                    raise
                self.warn(f'layout of {feed} refused: {error}')
                return
            nbytes = learner.rule.memory.nbytes
            self.get_logger().info(f'replay: {nbytes / 1e6:.0f} MB when full')
            lack = self._output.checkpoints.lack_of_space(learner)
            if lack:
                self.warn(lack)
            if self.parameters.add_on:
                self._customise()
            self._publish(self._learner.first_message())
            for early in self._early.take():
                self._ingest(*early)
        elif layout != self._learner.layout:
            self.warn(
                f'layout {layout.label} of {feed} refused: this learner has '
                f'{self._learner.layout.label}; restart learner_node'
            )

    def _ingest(self, feed: TransitionFeed, message: Float64MultiArray) -> None:
        if self._learner is None:
            if not self._early.keep(feed, message):
                feed.counts['malformed'] += 1
                self.warn(f'transition of {feed} dropped: no layout received yet')
            return
        try:
            layout, epoch = self._learner.layout, self._learner.epoch
            transition = feed.decode(layout, message.data, label_of(message), epoch)
        except MalformedTransitionError as error:
            self.warn(f'transition of {feed} dropped: {error}')
            return
        self._advance_epoch(transition.epoch, transition.policy_sequence)
        rollbacks = len(self._learner.judge.rollbacks)
        backlog = len(self._jobs)
        weights = self._learner.ingest(
            transition,
            feed.robot,
            learn=backlog <= self.parameters.backlog_limit,
            pulse=self._pulse,
        )
        for rollback in self._learner.judge.rollbacks[rollbacks:]:
            self.warn(f'guard: {rollback.reason}; rolled back')
        if weights is not None:
            self._publish(weights)
            if self._output is not None:
                self._output.log.write(self._learner)

    def _advance_epoch(self, epoch: int, sequence: int) -> None:
        """Begin an epoch after one that robots know and this learner, killed since, does not."""
        learner = self._learner
        assert learner is not None
        if (epoch, sequence) <= (learner.epoch, learner.sequence):
            return
        self.warn(
            f'a robot uses weights {(epoch, sequence)}, this learner is at '
            f'{(learner.epoch, learner.sequence)}: going on in epoch {epoch + 1}'
        )
        learner.begin_epoch(epoch + 1)
        self._publish(learner.first_message())

    def activate(self) -> None:
        """Publish what an inactive publisher has dropped.

        Raises:
            ConfigError: another learner publishes weights on this topic.
        """
        rival = self._publisher.wait()
        if rival:
            raise self._rival_error(rival)
        if self._weights:
            self._publish(self._weights)

    def _rival_error(self, rival: str) -> ConfigError:
        return ConfigError(
            f'{rival} publishes {self._actor_publisher.topic_name} already: stop that learner, or '
            'run this one in another namespace'
        )

    def _check_rival(self) -> None:
        """End if a learner that was there before shows up late."""
        rival = self._publisher.rival()
        if rival and self.active and self.failure is None:
            self.failure = self._rival_error(rival)
            self.get_logger().error(str(self.failure))
            self.request_stop()

    def _publish(self, weights: bytes) -> None:
        self._weights, self._published = weights, time.monotonic()
        self._actor_publisher.publish(byte_array(self._key.seal(WEIGHTS, weights)))

    def _try(self, job: Callable[[], str]) -> tuple[bool, str]:
        try:
            return True, job()
        except CheckpointError as error:
            self.get_logger().error(str(error))
            self._problem = str(error)
            return False, str(error)

    def _save(self) -> str:
        if self._learner is None or self._output is None:
            return 'nothing to save yet'
        self._output.save(self._learner)
        return f'saved {self._output.checkpoints.latest}'

    def _rollback(self) -> str:
        """Return to the networks with the best recent success, in a new epoch."""
        learner = self._learner
        if learner is None or learner.phase is Phase.WARMUP:
            return 'nothing to roll back to yet'
        learner.roll_back('asked for by ~/rollback')
        learner.begin_epoch(learner.epoch + 1)
        self._publish(learner.first_message())
        return f'rolled back, epoch {learner.epoch}'

    def _warn_of_layout(self, reason: str) -> None:
        """Warn beside `warn`: a limit of its own, or transitions, being more, would hide it."""
        self._problem = reason
        self.get_logger().warning(reason, throttle_duration_sec=2.0)

    def _report(self) -> tuple[bytes, str, Mapping[str, Any]]:
        learner = self._learner
        values: dict[str, Any] = {
            'active': self.active,
            'paused': self._jobs.paused,
            'queue': len(self._jobs),
            'other_learners': len(self._publisher.others),
            **{
                key: sum(feed.counts[key] for feed in self._feeds.values())
                for key in ('malformed', 'missing')
            },
        }
        if learner is not None:
            values |= self._values.of(learner, time.monotonic())
        for feed in self._feeds.values():
            if feed.robot:
                values |= {f'{feed.robot}/{key}': count for key, count in feed.counts.items()}
        return *self._health(), values


def main() -> int:
    """Run the learner node."""
    return run(LearnerNode, spin=LearnerNode.learn)


if __name__ == '__main__':
    raise SystemExit(main())
