# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Real time: one command per tick from the newest observation; what is stale or late is held."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from residual_rl_ros.control.between_episodes import BetweenEpisodes
from residual_rl_ros.control.feedback import END_EPISODE, PendingFeedback, StepFeedback, StepOutcome
from residual_rl_ros.control.gates import OperatorWatch, Pace, RealTimeRules
from residual_rl_ros.control.policy_loop import Answer, LoopParts
from residual_rl_ros.control.preparation import Preparation
from residual_rl_ros.errors import ObservationError
from residual_rl_ros.latency import Latency
from residual_rl_ros.numerics import Array
from residual_rl_ros.residual_policy.mailbox import WeightsReader
from residual_rl_ros.transitions.transition import Transition

STAGES = ('account', 'command', 'reaction', 'tick')
"""Accounting for the last step; residual, limits and publication; from the start of a control step
to its command, with reading the observations since the last one; all of it, with the transition,
which is sent after the command. Only of steps that sent a command."""
FIRST_CHUNK_S = 0.5
"""A hold for the first chunk of an episode, or after a pause, is usual for less than this [s]."""
STOP_LIMIT_S = 1.0
"""A robot that holds by zero is at rest so long after it is told to stop, at the latest [s]."""


class RealTimeLoop(BetweenEpisodes):
    """Runs at the control rate.

    Args:
        parts: what it is put together from.
        period_s: time between two ticks [s].
        rules: what may change while the robot runs.
        sleep: lets time pass [s].
        preparation: what is done between episodes; None: nothing.
        stop_s: at rest so long after it is told to stop, at the latest [s].
    """

    def __init__(
        self,
        parts: LoopParts,
        period_s: float,
        rules: RealTimeRules,
        sleep: Callable[[float], None] = time.sleep,
        preparation: Preparation | None = None,
        stop_s: float = STOP_LIMIT_S,
    ) -> None:
        super().__init__(parts, rules, preparation)
        controller = self.controller
        self.latencies = {
            **{stage: Latency() for stage in STAGES},
            'actor': controller.residual.latency,
            'inference': controller.queue.latency,
            'plan': controller.residual.plans.latency,
        }
        """Duration of every stage of a tick; of the actor, in a decision; of base policy and plan,
        in threads of their own."""
        self._reading_s = 0.0
        self._period_s = period_s
        self._sleep, self._stop_s = sleep, stop_s
        self._reader = WeightsReader(controller.mailbox)
        self._outbox: list[Transition] = []
        self._began = 0.0
        self._observation: Array = np.zeros(0)
        self._forget_requests()

    def _forget_requests(self) -> None:
        super()._forget_requests()
        self._operator, self._pace = OperatorWatch(), Pace(self._period_s)
        self._feedback, self._takeover = PendingFeedback(), None
        self._ending: StepOutcome | None = None  # An end that waits for the base policy.

    def activate(self) -> None:
        """Start; what was asked for before counts no more."""
        super().activate()
        self._forget_requests()

    def deactivate(self, now: float) -> None:
        """Hold, slowing down at the control rate where that is to hold, then stop."""
        if self.in_episode:
            self.preparation.end_episode(self.controller.limiter.last_command)
        super().deactivate(now)
        self.preparation.forget()
        self._flush()

    def _come_to_rest(self, now: float) -> None:
        """Slow down at the slew limit or, where that takes longer than it may, faster."""
        for steps in range(max(int(self._stop_s / self._period_s), 1), 0, -1):
            if self.controller.limiter.at_rest:
                return
            self._sleep(self._period_s)
            now += self._period_s
            self._send_hold(now, steps)

    def close(self) -> None:
        """End the thread that reads weights."""
        self._reader.close()

    @property
    def ending(self) -> bool:
        """Whether the next tick ends the episode, by what was said of it so far."""
        return self._feedback.ends if self._ending is None else self._ending.feedback.done

    def end_episode(self, feedback: StepFeedback, now: float) -> Answer:
        """End the episode with the next tick, if there is one."""
        if not self.in_episode:
            return Answer(False, 'no episode to end')
        # It is of this episode, even if the clock has jumped back since the last control step.
        self._on_feedback(max(now, self._began), feedback)
        return Answer(True, 'ending the episode')

    def _read_weights(self, message: bytes) -> None:
        """Take in an actor, which a later tick uses."""
        self.take_weights()
        self._reader.submit(message)

    @property
    def state(self) -> str:
        """What goes on, in words."""
        if self.held:
            return 'held by an operator'
        if self.taken_over:
            return 'an operator has the robot'
        if self.in_episode:
            return 'running'
        if self.waits_to_start:
            return 'waits: the first command is far from the robot'
        if doing := self.preparation.doing:
            return doing
        return 'running' if self.rules.auto_start else 'no episode: ~/start_episode begins one'

    @property
    def homing(self) -> bool:
        """Whether the robot is on its way home."""
        return self.preparation.homing

    def set_rules(self, rules: RealTimeRules) -> None:
        """Take other rules from the next control step on."""
        self.rules = rules

    def count_reading(self, seconds: float) -> None:
        """Count time that was spent on reading observations since the last control step [s]."""
        self._reading_s += seconds

    def report(self) -> dict[str, Any]:
        """Return what diagnostics tell of real time."""
        values: dict[str, Any] = {
            'held': self.held,
            'in_episode': self.in_episode,
            'stops': '; '.join(self.obstacles.stops.values()),
            'waits_to_start': self.waits_to_start,
            'preparing': self.preparation.doing,
        }
        for stage, latency in self.latencies.items():
            values |= latency.report(stage) | latency.overall(stage)
        return values

    def take_weights(self, wait: bool = False) -> None:
        """Keep the actors that have been read; see `PolicyLoop.take_weights`."""
        for result in self._reader.take(wait):
            self._accept_weights(result)

    def tick(self, now: float) -> None:
        """Run one control step on the newest observation.

        Args:
            now: ROS time [s].
        """
        started, ticks = self._clock() - self._reading_s, self.counts['ticks']
        self._reading_s = 0.0
        self.take_weights()
        self._watch_period(now)
        if self.active:
            self._tick(now)
        commanded = self.counts['ticks'] > ticks
        if commanded:
            self._time('reaction', started)
        self._flush()
        if commanded:
            self._time('tick', started)

    def _watch_period(self, now: float) -> None:
        """Count control steps that are late; when none has been in time for long is a fault."""
        pace = self._pace
        pace.step(now, self.rules)
        self.counts['overruns'] += pace.overrun
        self.counts['missed_periods'] += pace.late
        if pace.late:
            self.controller.limiter.interrupt()
        if pace.jumped:
            self._forget_time(pace.elapsed_s)
        if problem := pace.problem(now, self.rules):
            self._callbacks.fault(problem)

    def receive_takeover(self, command: Array) -> None:
        """Take in an operator's command, shape (m,)."""
        super().receive_takeover(command)
        if self._takeover is command:
            self._operator.speak()

    def set_takeover(self, active: bool) -> None:
        """Give the robot to an operator, who has yet to say something, or back."""
        if active and not self._takeover_active:
            self._operator.speak()
        super().set_takeover(active)

    def _watch_operator(self, now: float) -> None:
        """Forget an operator's command that is older than `takeover_timeout_s`."""
        timeout_s = self.rules.takeover_timeout_s
        if self._operator.falls_silent(now, timeout_s) and self._takeover_active:
            self._callbacks.warn(f'the operator has said nothing for {timeout_s:g} s: holding')
        if self._operator.silent:
            self._takeover = None

    def _time(self, stage: str, started: float) -> None:
        self.latencies[stage].add(self._clock() - started)

    def _deliver(self, transition: Transition) -> None:
        """Keep a transition until the command is out: the robot goes first."""
        self._outbox.append(transition)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        for transition in outbox:
            super()._deliver(transition)

    def _tick(self, now: float) -> None:
        self._holding.step()
        self._watch_operator(now)
        if self._ending is not None and self._account(self._ending, now, seen=False):
            return
        try:
            self._see(now)
        except ObservationError as error:
            self.controller.limiter.observe(None)
            self._do_without(now, str(error))
            return
        if self.held:
            self.obstacles.forget()
        elif obstacle := self.obstacles.reason(self.in_episode or self._externally_moved, now):
            if self.obstacles.stops and self._gate.forget_request():
                self._callbacks.warn('the start that was asked for is forgotten: ask again')
            if self.obstacles.stalled(now, self.rules):
                self._callbacks.fault(f'{obstacle}, nor does it move when it is told again')
            else:
                self._do_without(now, obstacle)
            return
        if self._ending is None and not self._go_on(now):
            return
        if self.held or (self._takeover_active and self._takeover is None):
            self._pause(now, '')  # An operator holds, or took over and does not command (yet).
        elif not self._too_far(now):
            self._command(now)

    def _go_on(self, now: float) -> bool:
        """Account for the step just executed, or begin; return whether an episode is under way."""
        if self.in_episode:
            limit = self.rules.episode_limit_s
            if limit and now - self._began >= limit:
                self._on_feedback(now, END_EPISODE)
            return not self._account(self._outcome(now), now, seen=True)
        if self._prepare(now) or not self.active:  # What was sent may have been a fault.
            return False
        if not self._may_begin(now):
            self._idle(now)
            return False
        self._gate.open()
        self._externally_moved, self._began = False, now
        self._begin_episode(self._observation, now)
        return True

    def _see(self, now: float) -> None:
        """Take in the newest observation.

        Raises:
            ObservationError: it is stale or incomplete, or no robot is measured so.
        """
        limiter = self.controller.limiter
        self._observation = self.assembler.assemble(now, self.in_episode)
        limiter.observe(self._observation)
        limiter.check_measured()
        if (self.in_episode or self._externally_moved) and (leap := limiter.leap()):
            raise ObservationError(leap)

    def _may_begin(self, now: float) -> bool:
        """Return whether an episode may begin with this control step."""
        limiter, seen = self.controller.limiter, self.assembler.oldest_stamp
        return not (self.held or limiter.leap()) and self._gate.may_open(now, seen, self.rules)

    def _do_without(self, now: float, reason: str) -> None:
        """Go on without an observation, or without moving; an end that was marked meanwhile counts.

        An operator may move a robot whose sensors are stale, but not one that must not move.
        """
        if not self.in_episode and self.preparation.pause(now):
            self._hold(now, reason)
        elif not self.in_episode:
            self._callbacks.warn(reason)
            self._idle(now)
        elif self._feedback.ends:
            self.controller.abandon()
            self._account(self._outcome(now), now, seen=False)
        elif self._commanding:
            self.controller.abandon()
            self._send_external(now)
        else:
            self._pause(now, reason)

    def _outcome(self, now: float) -> StepOutcome:
        return StepOutcome(self._feedback.take(), self._observation, now)

    def _account(self, step: StepOutcome, now: float, seen: bool) -> bool:
        """Account for the step just executed; return whether the episode is over.

        Args:
            step: what is known of it.
            now: ROS time [s].
            seen: its observation is of now; else nobody knows where the robot is.
        """
        started = self._clock()
        over = self._finish_step(step.observation, step.stamp, step.feedback)
        if not seen:
            self.controller.limiter.observe(None)
        self._ending = step if step.feedback.done and not over else None
        self._time('account', started)
        if over and self.active:  # A fault has held and stopped.
            believable_s = self._pace.believable_s(self.rules)
            if problem := self._gate.end(now, self._feedback.stamp, believable_s):
                self._callbacks.warn(problem)
            self.preparation.end_episode(self.controller.limiter.last_command)
            if self._commanding:
                self._externally_moved = True
                self._send_external(now)
            else:
                self._hold(now, '')
        return over

    def _command(self, now: float) -> None:
        """Send the command of this control step, or hold while the base is late."""
        started = self._clock()
        self._send(now)
        self._time('command', started)
        if reason := self.controller.hold_reason:
            usual_s = 0.0 if self.controller.queue.begun else FIRST_CHUNK_S
            self._count_hold(now, reason, usual_s)

    def _forget_time(self, seconds: float) -> None:
        """Begin anew after a jump of the clock: no stamp or duration so far means anything."""
        self._callbacks.warn(f'the clock jumped by {seconds:+.3f} s, or this process stood still')
        self.assembler.clear()
        self.controller.limiter.interrupt()
        self._blend.restart()
        self._gate.forget_end()
        self._feedback.stamp = -np.inf
        self._holding.forget()
        self.obstacles.shift(seconds)
        self._began += seconds
        self._operator.shift(seconds)
        self.preparation.shift(seconds)

    def _on_observation(self, stamp: float) -> None:
        """Wait for the next tick."""

    def _on_feedback(self, stamp: float, feedback: StepFeedback) -> None:
        """Add up what arrives within one control step."""
        if self._ending is not None:  # What was marked first stands, and its reward is counted.
            marked = replace(feedback, reward=0.0).merged(self._ending.feedback)
            self._ending = replace(self._ending, feedback=marked)
        elif self.in_episode and stamp and stamp < self._began:
            self._refuse(
                'refused_feedback',
                f'step_feedback is stamped {self._began - stamp:.3f} s before the episode began: '
                'it is of the one before, or clocks differ; stamp it with the time of what it '
                'judges, or with 0',
            )
        elif self.in_episode:
            self._feedback.add(feedback, stamp)

    def _belongs_to_next_episode(self, stamp: float) -> bool:
        return self._feedback.ends and stamp > self._feedback.stamp

    def _pause(self, now: float, reason: str) -> None:
        """Hold instead of going on with the decision in progress."""
        self.controller.abandon()
        self._hold(now, reason)

    def _hold(self, now: float, reason: str) -> None:
        """Hold; a reason that persists is a fault."""
        self._send_hold(now)
        self._count_hold(now, reason)

    def _count_hold(self, now: float, reason: str, usual_s: float = 0.0) -> None:
        """Count a hold; a reason that persists is a fault, and is logged if it is not usual.

        Args:
            now: ROS time [s].
            reason: why it holds; empty if an operator wants it to.
            usual_s: for how long that is usual [s].
        """
        if not self.active:  # A fault has just held and stopped.
            return
        self.counts['holds'] += 1
        if not reason:
            return
        problem = self._holding.problem(now, reason, self.rules)
        if self._holding.seconds >= usual_s:
            self._callbacks.warn(reason)
        if problem:
            self._callbacks.fault(problem)
