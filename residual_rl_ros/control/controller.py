# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One control loop for the robot, the simulator and the evaluation.

The controller turns observations into safe commands and, on the way, into transitions. It knows no
middleware: the policy node and the in-process runner call the same two methods.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.chunk_queue import ChunkQueue
from residual_rl_ros.base_policy.distribution import BaseDecision
from residual_rl_ros.base_policy.inputs import NO_IMAGES, Images
from residual_rl_ros.control.command_limiter import CommandLimiter
from residual_rl_ros.control.composition import ResidualBound
from residual_rl_ros.control.customisation import Customisation
from residual_rl_ros.control.decision import CommandedStep, Decision
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.control.residual_source import ResidualSource
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.control.streams import Stream, episode_rng
from residual_rl_ros.errors import ChunkLateError
from residual_rl_ros.numerics import Array
from residual_rl_ros.residual_policy.mailbox import ActorMailbox
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import NOTHING, Source, Transition


class ResidualController:
    """Composes base and residual actions and accounts for what was executed.

    One control step is `command()`, then, when its outcome is known, `step()`.

    Args:
        layout: transition layout, with k.
        queue: base action source.
        bound: residual bound.
        safety: last filter before the robot.
        mailbox: actor in use.
        seed: with the episode number, seeds the base policy's and the exploration noise. The two
            streams are separate, so that the base noise is the same with and without residual.
        explore: sample the residual; otherwise use tanh(mean).
        chunk_timeout_s: how long to wait for a late chunk before holding; None waits (lockstep).
        clock: monotonic time, for the durations of the actor [s].
    """

    def __init__(
        self,
        layout: TransitionLayout,
        queue: ChunkQueue,
        bound: ResidualBound,
        safety: SafetyFilter,
        mailbox: ActorMailbox,
        seed: int,
        explore: bool,
        chunk_timeout_s: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.layout = layout
        self.queue = queue
        self.bound = bound
        self.limiter = CommandLimiter(safety, layout.observation_names)
        """What the robot was told last."""
        self.customisation = Customisation(layout)
        """What it is asked for beside its task."""
        self.mailbox = mailbox
        self.residual = ResidualSource(
            layout,
            bound,
            mailbox,
            self.customisation,
            seed,
            explore,
            plans_ahead=chunk_timeout_s is not None,
            clock=clock,
        )
        """What is added to base actions."""
        self._seed = seed
        self._chunk_timeout_s = chunk_timeout_s
        self._episode = 0
        self._step = 0
        self._stamp = 0.0
        self._observation: Array = np.zeros(layout.observation_size)
        self._base: BaseDecision | None = None
        self._decision: Decision | None = None
        self._holding = False
        self.hold_reason = ''
        """Why the latest `command` held for the base policy; empty if it did not."""
        self.first_chunk_holds = 0
        """Control steps held until the first chunk of an episode, or after a pause, was there."""
        self.late_chunks = 0
        """Control steps held because a later chunk was not there in time."""

    def close(self) -> None:
        """End the threads of base policy and plans."""
        self.queue.close()
        self.residual.plans.close()

    def __enter__(self) -> Self:
        """Use it for a while."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """See `close`."""
        self.close()

    def begin_episode(
        self,
        episode: int,
        observation: npt.ArrayLike,
        stamp: float,
        images: Images = NO_IMAGES,
    ) -> None:
        """Start an episode.

        Args:
            episode: episode number.
            observation: first observation, shape (n,).
            stamp: its ROS time [s].
            images: what each camera sees, as far as the base policy wants to.
        """
        noise = episode_rng(self._seed, episode, Stream.BASE)
        others = episode_rng(self._seed, episode, Stream.PROPOSALS)
        self.queue.reset(noise, others=others)
        self.residual.begin_episode(episode)
        self._episode, self._step = episode, 0
        self._base = self._decision = None
        self.customisation.begin_episode()
        self.limiter.release()
        self._observe(observation, stamp, images)

    @property
    def in_decision(self) -> bool:
        """Whether a decision is in progress."""
        return self._decision is not None

    @property
    def at_decision(self) -> bool:
        """Whether the next command needs a new residual decision."""
        return self._decision is None or self._decision.complete

    def command(self, takeover: Array | None = None) -> Array | None:
        """Return the command of this control step, shape (m,), command units.

        Args:
            takeover: an operator's command, which replaces the composed one.

        Returns:
            The command; that of a hold while the base policy is late; None if it is late and
            nothing was sent yet.

        Raises:
            UnsafeCommandError: nothing may be sent.
            BasePolicyError: the base policy failed.
        """
        decision = self._current_decision()
        self._holding, self.hold_reason = decision is None, ''
        if decision is None:
            return self._hold(takeover)
        if takeover is None:
            step = decision.steps_sent
            safe = self.limiter.limit(decision.planned[step], decision.base[step])
        else:
            safe = self.limiter.limit(takeover)
            decision.take_over()
            self.residual.plans.forget()
        decision.send(safe)
        return self.limiter.commit(safe, overridden=takeover is not None)

    def target(self) -> Array | None:
        """Return what the next `command` wants before limits, shape (m,); None while it holds.

        Raises:
            BasePolicyError: the base policy failed.
        """
        decision = self._current_decision()
        return None if decision is None else decision.planned[decision.steps_sent]

    def commanded(self) -> CommandedStep | None:
        """Return what the latest `command` was made of; None if it held. Before `step` only."""
        decision = self._decision
        if decision is None or self._holding or not decision.steps_sent:
            return None
        return decision.commanded(self._episode)

    def _current_decision(self) -> Decision | None:
        """Return the decision of this control step; None while the base policy is late."""
        if self._decision is not None:
            # A complete one still waits, in `step`, for the next chunk.
            return None if self._decision.complete else self._decision
        if self._base is None:
            try:
                self._base = self._take()
            except ChunkLateError:
                return None
        self._decide()
        return self._decision

    def _hold(self, takeover: Array | None) -> Array | None:
        """Hold while the base policy is late; a takeover goes through."""
        self.residual.plans.forget()
        waits = self._decision is not None and not self._decision.truncated
        if waits and (takeover is not None or self.limiter.slows_down):
            self._decision = None  # Its end would be where an operator, or the hold, has moved it.
        if takeover is None:
            if self.queue.begun:
                self.late_chunks += 1
                self.hold_reason = self.queue.late_reason
            else:
                self.first_chunk_holds += 1
                self.hold_reason = 'the base policy has not planned its first chunk'
            return self.limiter.hold()
        return self.limiter.override(takeover)

    def step(
        self,
        observation: npt.ArrayLike,
        stamp: float,
        feedback: StepFeedback,
        images: Images = NO_IMAGES,
    ) -> Transition | None:
        """Account for the control step just executed.

        Args:
            observation: observation after the step, shape (n,).
            stamp: its ROS time [s].
            feedback: reward and flags of the step.
            images: what each camera sees, as far as the base policy wants to.

        Returns:
            The transition if the step completed a decision. After the end of an episode,
            `begin_episode` is due, unless the end of a truncated one still waits for the base
            policy: then `in_decision` is true, and `step` is to be called again with its feedback.
        """
        decision = self._decision
        held = decision is None and feedback.done
        if feedback.done:
            self.hold_reason = ''  # Whoever commands until the next episode waits for nothing.
        if held:
            decision = self._held_decision()
        self._step += decision is not None and not self._holding
        self._observe(observation, stamp, images)
        if decision is None:
            return None
        if not (decision.complete or feedback.done):
            decision.reward += feedback.reward
            return None
        if feedback.terminated or held:
            # No next action exists, and the learner masks it; or it is to go on holding.
            following = BaseDecision(decision.base, decision.distribution)
        else:
            if feedback.truncated:
                self.queue.give_back(self.layout.decision_steps - decision.steps_sent)
                decision.steps_sent, decision.truncated = self.layout.decision_steps, True
            try:
                following = self._base = self._take()
            except ChunkLateError:
                # command() holds; the decision ends when the chunk is there.
                if not feedback.truncated:
                    decision.reward += feedback.reward
                return None
        decision.reward += feedback.reward
        self._decision = None
        return self._transition(decision, following, feedback)

    def _transition(
        self, decision: Decision, following: BaseDecision, feedback: StepFeedback
    ) -> Transition:
        """Return a finished decision, followed by another at the newest observation."""
        header = self.mailbox.header
        transition = Transition(
            stamp=decision.stamp,
            epoch=header.epoch if header else 0,
            episode=self._episode,
            step=decision.step,
            policy_sequence=header.sequence if header else -1,
            source=decision.source,
            reward=decision.reward,
            terminated=feedback.terminated,
            truncated=feedback.truncated,
            success=feedback.success,
            observation=decision.observation,
            base_action=decision.base.ravel(),
            residual_action=decision.residual.ravel(),
            executed_action=decision.executed.ravel(),
            next_observation=self._observation,
            next_base_action=following.actions.ravel(),
            prior=decision.distribution.prior,
            next_prior=following.distribution.prior,
            proposals=decision.distribution.proposals.ravel(),
            next_proposals=following.distribution.proposals.ravel(),
            add_on=NOTHING,
        )
        if not self.layout.customisable:
            return transition
        add_on = self.customisation.tell(transition, decision.add_on_weight)
        return replace(transition, add_on=add_on)

    def _held_decision(self) -> Decision | None:
        """Return an episode's end during a hold as a decision to stay: its outcome counts.

        None if nothing was sent: then there is nothing to judge.
        """
        last = self.limiter.last_command
        if last is None:
            return None
        source = Source.TAKEOVER if self.limiter.overridden else Source.BASE
        return Decision.held(last, self.layout, self._stamp, self._step, self._observation, source)

    def abandon(self) -> None:
        """Drop the decision in progress: the robot was paused, so it was not executed as decided.

        It yields no transition; the step count shows the gap. The base policy plans anew.
        """
        self._step += self._decision is not None or self._base is not None
        if self._decision is not None:
            self.mailbox.cancel_decision()
        self.hold_reason = ''
        self._base = self._decision = None
        self.residual.plans.forget()
        self.queue.forget()

    def _observe(self, observation: npt.ArrayLike, stamp: float, images: Images) -> None:
        self._observation = np.array(observation, dtype=np.float64)
        self._stamp = stamp
        self.limiter.observe(self._observation)
        self.queue.push_observation(observation, images)

    def _take(self) -> BaseDecision:
        """Return what the base policy says for the next decision."""
        return self.queue.take(self._chunk_timeout_s)

    def _decide(self) -> None:
        """Make a residual decision on the newest observation."""
        base_decision, self._base = self._base, None
        assert base_decision is not None
        self.mailbox.begin_decision()
        choice, bound_scale, source = self.residual.decide(
            base_decision, self._observation, self._step
        )
        if choice.proposal:
            base_decision = base_decision.with_chosen(choice.proposal)
        base = base_decision.actions
        residual = choice.residual.reshape(base.shape)
        planned = self.bound.compose(base, residual, bound_scale)
        self._decision = Decision(
            stamp=self._stamp,
            step=self._step,
            observation=self._observation,
            base=base,
            residual=residual,
            planned=planned,
            executed=planned.copy(),
            source=source,
            distribution=base_decision.distribution,
            add_on_weight=self.customisation.weight,
            bound_scale=bound_scale,
            advantage=self.residual.advantage,
        )
        self.residual.plan_next(self._observation, planned.ravel(), self._step)
