# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Lockstep: one command per stamp, sent when all channels and the feedback of it are here."""

from __future__ import annotations

from functools import partial

import numpy as np

from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.control.policy_loop import Answer, LoopParts, PolicyLoop
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.image_preprocessing import RgbImage

RESTART_SILENCE_S = 1.0
"""A simulator that waits repeats its stamp twice as often; one that starts takes longer [s]."""


class LockstepLoop(PolicyLoop):
    """Answers a simulator that waits.

    Args:
        parts: what it is put together from.
        actor_timeout_s: after this wait for an actor without any sign of a learner the run goes on
            with the one at hand [s].
    """

    def __init__(self, parts: LoopParts, actor_timeout_s: float) -> None:
        super().__init__(parts)
        self._actor_timeout_s = actor_timeout_s
        self._answered = -np.inf
        self._answering = -np.inf
        self._heard = -np.inf
        self._waiting_since: float | None = None
        self._weights = b''

    def deactivate(self, now: float) -> None:
        """Hold, then stop; a decision that waits for an actor is given up."""
        super().deactivate(now)
        self._waiting_since = None

    def push_observation(
        self, channel: str, stamp: float, values: Array, image: RgbImage | None = None
    ) -> None:
        """Take in the values of a channel, of a simulator that has been started again too."""
        now = self._clock()
        silent, self._heard = now - self._heard, now
        if self.active and stamp < self._answered and silent > RESTART_SILENCE_S:
            self._on_simulator_restart(stamp)
        super().push_observation(channel, stamp, values, image)

    def _on_simulator_restart(self, stamp: float) -> None:
        """Begin anew: no stamp so far means anything, and the episode has lost its end."""
        self._callbacks.warn(
            f'after {self._answered:.3f} s and silence a stamp of {stamp:.3f} s came: the '
            'simulator has started again, and an episode begins'
        )
        self.controller.abandon()
        self.activate()
        self.in_episode = False
        self._answered = self._answering = self._feedback.stamp = -np.inf
        self._waiting_since = None

    def set_held(self, held: bool) -> Answer:
        """Refuse: what waits does not move."""
        return Answer(False, 'a lockstep simulator waits for commands; hold has no effect')

    def request_start(self) -> Answer:
        """Refuse: an episode begins with a simulator's observation."""
        return Answer(False, 'in lockstep only the simulator starts episodes')

    def request_home(self) -> Answer:
        """Refuse: a simulator resets itself."""
        return Answer(False, 'in lockstep only the simulator puts the robot back')

    def end_episode(self, feedback: StepFeedback, now: float) -> Answer:
        """Refuse: an episode ends with a simulator's feedback."""
        return Answer(False, 'in lockstep only the simulator ends episodes')

    def _read_weights(self, message: bytes) -> None:
        """Take in an actor, for which the current decision may have waited."""
        if message == self._weights:  # A learner at long work says that it lives.
            if self._waiting_since is not None:
                self._waiting_since = self._clock()
            return
        mailbox = self.controller.mailbox
        accepted = mailbox.accepted
        self._accept_weights(partial(mailbox.decode, message))
        if mailbox.accepted > accepted:
            self._weights = message
            if self._waiting_since is not None:
                self._send_when_ready(self._answering)

    def watch(self) -> None:
        """Go on without a learner that stopped publishing; to be called now and then."""
        limit = self._actor_timeout_s
        if self._waiting_since is not None and self._clock() - self._waiting_since > limit:
            self._callbacks.warn(
                f'no actor came in {limit:g} s; going on with the one at hand until a learner '
                'publishes again'
            )
            self.controller.mailbox.stop_waiting()
            self._send_when_ready(self._answering)

    def _on_feedback(self, stamp: float, feedback: StepFeedback) -> None:
        self._feedback.replace(feedback, stamp)
        self._on_observation(stamp)

    def _on_observation(self, stamp: float) -> None:
        """Answer a stamp once everything that belongs to it has arrived."""
        if not self.assembler.complete_at(stamp):
            return
        if stamp <= self._answered:
            # The simulator repeats a stamp whose answer it missed.
            last = self.controller.limiter.last_command
            if stamp == self._answered:
                self._publish(last, stamp)
            return
        if self._waiting_since is not None:
            return
        if not self.in_episode:
            self._begin_episode(self.assembler.assemble(), stamp)
        elif self._feedback.stamp == stamp and self._feedback.said is not None:
            if self._finish_step(self.assembler.assemble(), stamp, self._feedback.said):
                self._answered = stamp
                self._send_hold(stamp)
                return
        else:
            return
        self._send_when_ready(stamp)

    def _send_when_ready(self, stamp: float) -> None:
        """Send the command of this stamp, or wait for the actor that its decision needs."""
        self._answering = stamp
        if self.controller.at_decision and self.controller.mailbox.waits_for_weights():
            if self._waiting_since is None:
                self._waiting_since = self._clock()
            return
        self._waiting_since = None
        self._answered = stamp
        self._send(stamp)
