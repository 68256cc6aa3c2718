# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Real time: one command per tick from the newest observation; what is stale or late is held."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np

from residual_rl_ros.control.composition import BlendRamp
from residual_rl_ros.control.controller import ResidualController, StepFeedback
from residual_rl_ros.control.policy_loop import END_EPISODE, Array, LoopCallbacks, PolicyLoop
from residual_rl_ros.control.preparation import Preparation
from residual_rl_ros.errors import BasePolicyError, ObservationError
from residual_rl_ros.latency import Latency
from residual_rl_ros.residual_policy.mailbox import DecodedWeights
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.robot.onnx_session import InferenceWorker
from residual_rl_ros.transitions.transition import Success, Transition

STAGES = ('account', 'command', 'reaction', 'tick')
"""Accounting for the last step; residual, limits and publication; from the start of a control step
to its command, with reading the observations since the last one; all of it, with the transition,
which is sent after the command. Only of steps that sent a command."""
BELIEVABLE_S = 1.0
"""Clocks that differ by more have jumped or are not the same [s]; see `_believable_s`."""
MAX_READING = 4
"""Weight messages that wait for a tick; the oldest unread one makes room for a newer one."""
STOP_LIMIT_S = 1.0
"""A robot that holds by zero is at rest so long after it is told to stop, at the latest [s]."""
START_RETRY_S = 0.5
"""How often an episode is tried whose first command is too far away [s]."""
NOTHING_HAPPENED = StepFeedback(0.0, False, False, Success.UNLABELLED)


@dataclass(frozen=True)
class RealTimeRules:
    """What may change while the robot runs."""

    auto_start: bool
    """Start the next episode by itself; otherwise `request_start` does."""
    hold_limit_s: float
    """Holding longer than this is a fault [s]."""
    episode_limit_s: float = 0.0
    """Longer episodes are truncated [s]; 0 never."""
    takeover_timeout_s: float = 0.5
    """An operator who has taken over and says nothing for longer wants the robot to hold [s]."""


@dataclass(frozen=True)
class _Step:
    """What is known of an executed control step."""

    feedback: StepFeedback
    observation: Array
    stamp: float


class RealTimeLoop(PolicyLoop):
    """Runs at the control rate.

    Args:
        controller, assembler, blend, callbacks, clock: see `PolicyLoop`.
        period_s: time between two ticks [s].
        rules: what may change while the robot runs.
        sleep: lets time pass [s].
        preparation: what is done between episodes; None: nothing.
    """

    def __init__(
        self,
        controller: ResidualController,
        assembler: ObservationAssembler,
        blend: BlendRamp,
        callbacks: LoopCallbacks,
        clock: Callable[[], float],
        period_s: float,
        rules: RealTimeRules,
        sleep: Callable[[float], None] = time.sleep,
        preparation: Preparation | None = None,
    ) -> None:
        super().__init__(controller, assembler, blend, callbacks, clock)
        self.rules = rules
        self.preparation = preparation or Preparation()
        """What is done between episodes."""
        self.latencies = {
            **{stage: Latency() for stage in STAGES},
            'actor': controller.actor_latency,
            'inference': controller.queue.latency,
            'plan': controller.plans.latency,
        }
        """Duration of every stage of a tick; of the actor, in a decision; of base policy and plan,
        in threads of their own."""
        self.reading_s = 0.0
        """Time spent on reading observations since the last tick [s]; its owner adds to it."""
        self._period_s = period_s
        self._sleep = sleep
        # A large actor takes milliseconds to check, which no control step has.
        self._reader = InferenceWorker('weights')
        self._reading: deque[Future[DecodedWeights]] = deque()
        self._newest_weights = b''
        self._outbox: list[Transition] = []
        self.stops: dict[str, str] = {}
        """Stop inputs that forbid to move, with their reasons."""
        self._began = 0.0
        self._observation: Array = np.zeros(0)
        self._forget_requests()

    def _forget_requests(self) -> None:
        self._start_requested = self._start_confirmed = False
        self._gated_since: float | None = None  # The first command was too far from the robot.
        self._at_start = False  # Nothing was sent in this episode yet.
        self._following = False  # The robot did not follow its commands, and holds.
        self._feedback = self._takeover = None
        self._guided = False  # By an operator or on the way home, outside of an episode.
        self._spoke, self._spoken_at = False, -np.inf
        self._done_stamp = self._feedback_stamp = -np.inf
        self._ending: _Step | None = None  # Waits for a late base policy.
        self._holding_since: float | None = None
        self._last_tick: float | None = None
        self._in_time = -np.inf  # The latest control step that was.
        self.preparation.forget()

    def activate(self) -> None:
        """Start; what was asked for before counts no more."""
        super().activate()
        self._forget_requests()

    def deactivate(self, now: float) -> None:
        """Hold, slowing down at the control rate where that is to hold, then stop."""
        super().deactivate(now)
        self.preparation.forget()
        self._flush()

    def _come_to_rest(self, now: float) -> None:
        """Slow down at the slew limit or, where that takes longer than it may, faster."""
        for steps in range(max(int(STOP_LIMIT_S / self._period_s), 1), 0, -1):
            if self.controller.limiter.at_rest:
                return
            self._sleep(self._period_s)
            now += self._period_s
            self._send_hold(now, steps)

    def set_stop(self, name: str, reason: str) -> None:
        """Take in what a stop input says: a reason to hold, or none.

        Args:
            name: the stop input.
            reason: why the robot must not move; empty: it may.
        """
        if reason:
            self.stops[name] = reason
        else:
            self.stops.pop(name, None)

    def close(self) -> None:
        """End the thread that reads weights."""
        self._reader.close()

    def request_start(self) -> bool:
        """Start an episode with the next observation; return whether that is possible.

        Where an episode waits because its first command is far away, or because the reset of the
        scene has failed, this confirms it.
        """
        self._start_requested = self.active and not self.in_episode
        self._start_confirmed = self._start_requested and self._gated_since is not None
        if self._start_requested:
            self.preparation.confirm()
        return self._start_requested

    def request_home(self) -> str:
        """Go home, outside of an episode; return why that is not possible, empty if it is."""
        for forbidden, reason in (
            (not self.active, 'inactive: activate the node first'),
            (self.in_episode, 'in an episode: end it first'),
            (self.held, 'held: release the hold first'),
            (self._takeover_active, 'an operator has the robot: release the takeover first'),
            (bool(self.stops), '; '.join(self.stops.values())),
        ):
            if forbidden:
                return reason
        return self.preparation.request_home()

    @property
    def waits_to_start(self) -> bool:
        """Whether an episode waits because its first command is too far from the robot."""
        return self._gated_since is not None

    @property
    def ending(self) -> bool:
        """Whether the next tick ends the episode, by what was said of it so far."""
        feedback = self._feedback if self._ending is None else self._ending.feedback
        return feedback is not None and feedback.done

    def end_episode(self, feedback: StepFeedback, now: float) -> bool:
        """End the episode with the next tick; return whether there is one."""
        if self.in_episode:
            self._on_feedback(now, feedback)
        return self.in_episode

    def _read_weights(self, message: bytes) -> None:
        """Take in an actor, which a later tick uses."""
        if message == self._newest_weights:  # A learner at long work says that it lives.
            return
        self._newest_weights = message
        mailbox = self.controller.mailbox
        self.take_weights()
        if len(self._reading) >= MAX_READING and self._reading[1].cancel():
            del self._reading[1]
            mailbox.refused['superseded'] += 1
        self._reading.append(self._reader.submit(mailbox.decode, message))

    def take_weights(self, wait: bool = False) -> None:
        """Keep the actors that have been read meanwhile.

        Args:
            wait: for those that are being read, too.
        """
        while self._reading and (wait or self._reading[0].done()):
            self._accept_weights(self._reading.popleft().result)

    def tick(self, now: float) -> None:
        """Run one control step on the newest observation.

        Args:
            now: ROS time [s].
        """
        started, ticks = self._clock() - self.reading_s, self.counts['ticks']
        self.reading_s = 0.0
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
        if self._last_tick is not None:
            elapsed = now - self._last_tick
            late = elapsed > 2.0 * self._period_s
            self.counts['overruns'] += elapsed > 1.5 * self._period_s
            self.counts['missed_periods'] += late
            if late:
                self.controller.limiter.interrupt()
            else:
                self._in_time = now
            if not 0.0 <= elapsed <= self._believable_s:
                self._forget_time(elapsed)
                self._in_time = now
            if now - self._in_time > self.rules.hold_limit_s:
                self._callbacks.fault(
                    f'no control step was in time for {now - self._in_time:.2f} s: this computer, '
                    f'or the clock, is too slow for {1.0 / self._period_s:g} Hz'
                )
        else:
            self._in_time = now
        self._last_tick = now

    @property
    def _believable_s(self) -> float:
        """Longest time between two ticks, or to a stamp of the future, without a clock's jump."""
        return max(BELIEVABLE_S, self.rules.hold_limit_s, 3.0 * self._period_s)

    def receive_takeover(self, command: Array) -> None:
        """Take in an operator's command, shape (m,)."""
        super().receive_takeover(command)
        self._spoke |= self._takeover is command

    def _watch_operator(self, now: float) -> None:
        """Forget an operator's command that is older than `takeover_timeout_s`."""
        if self._spoke:
            self._spoke, self._spoken_at = False, now
        elif self._takeover is not None and now - self._spoken_at > self.rules.takeover_timeout_s:
            self._takeover = None
            if self._takeover_active:
                limit = self.rules.takeover_timeout_s
                self._callbacks.warn(f'the operator has said nothing for {limit:g} s: holding')

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
        self._watch_operator(now)
        if self._ending is not None:
            if not self._account(self._ending, now, seen=False):
                self._command(now)
            return
        try:
            self._observation = self.assembler.assemble(now)
            self.controller.limiter.observe(self._observation)
            self.controller.limiter.check_measured()
        except ObservationError as error:
            self.controller.limiter.observe(None)
            self._do_without(now, str(error))
            return
        if obstacle := self._obstacle():
            self._do_without(now, obstacle)
            return
        if self.in_episode:
            limit = self.rules.episode_limit_s
            if limit and now - self._began >= limit:
                self._on_feedback(now, END_EPISODE)
            if self._account(self._what_happened(now), now, seen=True):
                return
        elif self._prepare(now):
            return
        elif self._may_start(now):
            self._start_requested, self._guided, self._began = False, False, now
            self._at_start = True
            self._begin_episode(self._observation, now)
        else:
            self._idle(now)
            return
        if self.held or (self._takeover_active and self._takeover is None):
            self._pause(now, '')  # An operator holds, or took over and does not command (yet).
        elif self._takeover_active or not self._too_far(now):
            self._command(now)

    def _obstacle(self) -> str:
        """Return why the robot must not move although it is seen, empty if it may."""
        if self.held or not (self.in_episode or self._guided):
            self._following = False
        if self.held:
            return ''
        if self.stops:
            return '; '.join(self.stops.values())
        if not (self.in_episode or self._guided):
            return ''
        limiter = self.controller.limiter
        error = limiter.following_error() if self._following or limiter.continues else ''
        self._following = bool(error)
        return error

    def _too_far(self, now: float) -> bool:
        """Return whether the episode's first command is too far away; it then waits to be begun."""
        if not self._at_start:
            return False
        try:
            target = self.controller.target()
        except BasePolicyError as error:
            self._callbacks.fault(str(error))
            return True
        if target is None:
            return False
        self._at_start = False
        reason = self.controller.limiter.start_error(target)
        if not reason or self._start_confirmed:
            self._start_confirmed, self._gated_since = False, None
            return False
        self.episode -= 1
        self.in_episode, self._gated_since, self._holding_since = False, now, None
        self.controller.abandon()
        self.counts['refused_starts'] += 1
        self._callbacks.warn(
            f'not starting: {reason}. Bring the robot there, or call ~/start_episode to let it go'
        )
        self._idle(now)
        return True

    def _prepare(self, now: float) -> bool:
        """Bring robot and scene to where an episode begins; return whether that goes on."""
        preparation, limiter = self.preparation, self.controller.limiter
        if self.held or self._takeover_active:
            preparation.interrupt()
        else:
            wanted = self._start_requested or self.rules.auto_start
            command = preparation.step(limiter, now, wanted)
            if preparation.fault:
                self._callbacks.fault(preparation.fault)
                return True
            if command is not None:
                self._guided, self._holding_since = True, None
                self._publish(limiter.commit(limiter.limit(command)), now)
                return True
            if preparation.failure:
                self._callbacks.warn(preparation.failure)
        if not preparation.ready:
            self._idle(now)
        return not preparation.ready

    def _may_start(self, now: float) -> bool:
        """Return whether an episode is wanted and something was seen since the last one."""
        if self.held or self.assembler.oldest_stamp <= self._done_stamp:
            return False
        if self._start_requested:
            return True
        waits = self._gated_since is not None and 0.0 <= now - self._gated_since < START_RETRY_S
        return self.rules.auto_start and not waits

    def _do_without(self, now: float, reason: str) -> None:
        """Go on without an observation, or without moving; an end that was marked meanwhile counts.

        An operator may move a robot whose sensors are stale, but not one that must not move.
        """
        if self.preparation.homing:
            self.preparation.pause()
            self._hold(now, reason)
        elif not self.in_episode:
            self._callbacks.warn(reason)
            self._idle(now)
        elif self._feedback is not None and self._feedback.done:
            self.controller.abandon()
            self._account(self._what_happened(now), now, seen=False)
        elif self._commanding:
            self.controller.abandon()
            self._obey(now)
        else:
            self._pause(now, reason)

    def _idle(self, now: float) -> None:
        """Between episodes, let an operator move the robot; else let it come to rest."""
        limiter = self.controller.limiter
        if not self._guided:
            limiter.release()
        was_guided, self._guided = self._guided, self._commanding
        if self._guided:
            self._obey(now)
        elif was_guided or not limiter.at_rest:
            self._send_hold(now)

    @property
    def _commanding(self) -> bool:
        """Whether an operator has taken over and commands a robot that may move, and is seen."""
        may_move = not (self.stops or self._following) and self.controller.limiter.knows_where
        return may_move and super()._commanding

    def _obey(self, now: float) -> None:
        """Send an operator's command where there is nothing to decide."""
        assert self._takeover is not None
        self._holding_since = None
        self._publish(self.controller.limiter.override(self._takeover), now)

    def _what_happened(self, now: float) -> _Step:
        """Return what is known of the control step that ends now."""
        feedback, self._feedback = self._feedback or NOTHING_HAPPENED, None
        return _Step(feedback, self._observation, now)

    def _account(self, step: _Step, now: float, seen: bool) -> bool:
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
            self._done_stamp = now + self._ahead(now)
            self.preparation.end_episode()
            if self._commanding:
                self._guided = True
                self._obey(now)
            else:
                self._hold(now, '')
        return over

    def _ahead(self, now: float) -> float:
        """Return how far in the future the end is stamped, as far as that can be believed [s]."""
        ahead = max(self._feedback_stamp - now, 0.0)
        if ahead <= self._believable_s:
            return ahead
        self._callbacks.warn(
            f'step_feedback is stamped {ahead:.3f} s in the future: synchronise the clocks'
        )
        return 0.0

    def _command(self, now: float) -> None:
        """Send the command of this control step, or hold while the base is late."""
        late = self.controller.late_chunks
        started = self._clock()
        self._send(now)
        self._time('command', started)
        if self.controller.late_chunks == late:
            self._holding_since = None
        elif self.controller.limiter.last_command is None:
            self._count_hold(now, 'the base policy has not planned its first chunk', usual=True)
        else:
            self._count_hold(now, self.controller.queue.late_reason)

    def _forget_time(self, seconds: float) -> None:
        """Begin anew after a jump of the clock: no stamp or duration so far means anything."""
        self._callbacks.warn(f'the clock jumped by {seconds:+.3f} s, or this process stood still')
        self.assembler.clear()
        self.controller.limiter.interrupt()
        self._blend.restart()
        self._done_stamp = self._feedback_stamp = -np.inf
        self._holding_since = None
        self._began += seconds
        self._spoken_at += seconds
        self.preparation.shift(seconds)

    def _on_observation(self, stamp: float) -> None:
        """Wait for the next tick."""

    def _on_feedback(self, stamp: float, feedback: StepFeedback) -> None:
        """Add up what arrives within one control step."""
        if self._ending is not None:  # What was marked first stands, and its reward is counted.
            marked = _merge(replace(feedback, reward=0.0), self._ending.feedback)
            self._ending = replace(self._ending, feedback=marked)
        elif self.in_episode:
            self._feedback = _merge(self._feedback, feedback)
            self._feedback_stamp = stamp

    def _belongs_to_next_episode(self, stamp: float) -> bool:
        feedback = self._feedback
        return feedback is not None and feedback.done and stamp > self._feedback_stamp

    def _pause(self, now: float, reason: str) -> None:
        """Hold instead of going on with the decision in progress."""
        self.controller.abandon()
        self._hold(now, reason)

    def _hold(self, now: float, reason: str) -> None:
        """Hold; a reason that persists is a fault."""
        if not self.active:  # A fault has just held and stopped.
            return
        self._send_hold(now)
        self._count_hold(now, reason)

    def _count_hold(self, now: float, reason: str, usual: bool = False) -> None:
        """Count a hold; a reason that persists is a fault, and is logged if it is not usual."""
        if not self.active:
            return
        self.counts['holds'] += 1
        if not reason:
            self._holding_since = None
            return
        if not usual:
            self._callbacks.warn(reason)
        if self._holding_since is None:
            self._holding_since = now
        if now - self._holding_since > self.rules.hold_limit_s:
            self._callbacks.fault(f'held for {now - self._holding_since:.2f} s: {reason}')


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
