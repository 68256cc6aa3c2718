# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One control loop for the robot, the simulator and the evaluation.

The controller turns observations into safe commands and, on the way, into transitions. It knows no
middleware: the policy node and the in-process runner call the same two methods.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.chunk_queue import ChunkQueue
from residual_rl_ros.base_policy.distribution import BaseDecision, BaseDistribution
from residual_rl_ros.base_policy.inputs import NO_PICTURES, Pictures
from residual_rl_ros.control.command_limiter import CommandLimiter
from residual_rl_ros.control.commanded_step import CommandedStep
from residual_rl_ros.control.composition import ResidualBound
from residual_rl_ros.control.customisation import Customisation
from residual_rl_ros.control.plan_queue import PlanQueue
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ChunkLateError
from residual_rl_ros.latency import Latency
from residual_rl_ros.numerics import is_one_hot
from residual_rl_ros.residual_policy.mailbox import ActorMailbox
from residual_rl_ros.residual_policy.robot_policy import (
    Choice,
    Chooser,
    Decider,
    ExplorationSample,
    Planner,
    all_proposals,
    is_residual,
)
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import NOTHING, Source, Success, Transition

Array = npt.NDArray[np.float64]

PLAN_STREAM = 6
"""With seed, episode and step, seeds the random numbers of a plan."""


@dataclass(frozen=True)
class StepFeedback:
    """What the simulator, a reward node or an operator says of the control step just ended."""

    reward: float
    terminated: bool
    truncated: bool
    success: Success

    @property
    def done(self) -> bool:
        """Whether the episode is over."""
        return self.terminated or self.truncated


@dataclass
class _Decision:
    """The residual decision in progress; action blocks have shape (k, m)."""

    stamp: float
    step: int
    observation: Array
    base: Array
    residual: Array
    """Actor output; zero while the residual is off."""
    planned: Array
    """Composed actions."""
    executed: Array
    """What was sent; rows not reached keep the plan."""
    source: Source
    distribution: BaseDistribution
    """Of the base action."""
    add_on_weight: float = 1.0
    """Weight of the add-on reward when it was decided."""
    bound_scale: float = 0.0
    """Share of the residual bound in use."""
    advantage: float | None = None
    """As `Decider.advantage`."""
    steps_sent: int = 0
    reward: float = 0.0
    truncated: bool = False
    """The episode is over; only the next base action is missing."""


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
        self._seed = seed
        self.explore = explore
        """Sample the residual instead of using its mean."""
        self._chunk_timeout_s = chunk_timeout_s
        self._clock = clock
        self._exploration = self._switch = np.random.default_rng(seed)
        self._planner: tuple[Planner, str, Planner] | None = None
        self._noise_scale: float | None = None
        self._base_only = False
        self._advantage: float | None = None
        self._episode = 0
        self._step = 0
        self._stamp = 0.0
        self._observation: Array = np.zeros(layout.observation_size)
        self._base: BaseDecision | None = None
        self._decision: _Decision | None = None
        self._holding = False
        self.residual_enabled = True
        """Operator switch (`~/set_residual`)."""
        self.blend_ratio = 1.0
        """Multiplier in [0, 1] on the residual."""
        self.late_chunks = 0
        """Control steps held because the base policy's chunk was not ready."""
        self.residuals_not_finite = 0
        """Decisions of the actor that were no numbers in [-1, 1], or chose none of the discrete
        actions: the base acted alone."""
        self.residuals_refused = 0
        """Decisions in which critics that choose saw no residual better than the base action."""
        self.proposals_chosen = 0
        """Decisions that took another proposal of the base than its action."""
        self.actor_latency = Latency()
        """Duration of the actor's part of a decision."""
        self.plans = PlanQueue(clock)
        """Plans of a robot policy that plans, outside lockstep."""

    def begin_episode(
        self,
        episode: int,
        observation: npt.ArrayLike,
        stamp: float,
        pictures: Pictures = NO_PICTURES,
    ) -> None:
        """Start an episode.

        Args:
            episode: episode number.
            observation: first observation, shape (n,).
            stamp: its ROS time [s].
            pictures: what each camera sees, as far as the base policy wants to.
        """
        # Streams of their own, so that one does not shift with what the other draws.
        rngs = [np.random.default_rng([self._seed, episode, use]) for use in (0, 1, 4, 5)]
        self.queue.reset(rngs[0], others=rngs[2])
        self._exploration, self._switch = rngs[1], rngs[3]
        self._noise_scale = None
        self._episode, self._step = episode, 0
        self._base = self._decision = None
        self.plans.forget()
        self.customisation.begin_episode()
        self.limiter.release()
        self._observe(observation, stamp, pictures)

    @property
    def in_decision(self) -> bool:
        """Whether a decision is in progress."""
        return self._decision is not None

    @property
    def at_decision(self) -> bool:
        """Whether the next command needs a new residual decision."""
        return self._decision is None or self._decision_complete

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
        self._holding = decision is None
        if decision is None:
            return self._hold(takeover)
        step = decision.steps_sent
        if takeover is None:
            planned, base = decision.planned[step], decision.base[step]
            safe = self.limiter.limit(planned, base)
        else:
            safe, decision.source = self.limiter.limit(takeover), Source.TAKEOVER
            # The residual fades in again, and this decision's is not faded.
            decision.planned[step:] = decision.executed[step:] = decision.base[step:]
            self.plans.forget()
        decision.executed[step] = safe
        decision.steps_sent += 1
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
        row = decision.steps_sent - 1
        scale = 0.0 if decision.source is Source.TAKEOVER else min(decision.bound_scale, 1.0)
        return CommandedStep(
            episode=self._episode,
            step=decision.step + row,
            source=decision.source,
            ahead=decision.base[row:],
            planned=decision.planned[row:],
            bound_scale=scale,
            share=scale * float(np.abs(decision.residual[row]).max(initial=0.0)),
            advantage=decision.advantage,
        )

    def _current_decision(self) -> _Decision | None:
        """Return the decision of this control step; None while the base policy is late."""
        if self._decision is not None:
            # A complete one still waits, in `step`, for the next chunk.
            return None if self._decision_complete else self._decision
        if self._base is None:
            try:
                self._base = self._take()
            except ChunkLateError:
                return None
        self._decide()
        return self._decision

    def _hold(self, takeover: Array | None) -> Array | None:
        """Hold while the base policy is late; a takeover goes through."""
        self.plans.forget()
        if takeover is None:
            self.late_chunks += 1
            return self.limiter.hold()
        if self._decision is not None and not self._decision.truncated:
            self._decision = None  # Its end would be where the operator has moved the robot.
        return self.limiter.override(takeover)

    def step(
        self,
        observation: npt.ArrayLike,
        stamp: float,
        feedback: StepFeedback,
        pictures: Pictures = NO_PICTURES,
    ) -> Transition | None:
        """Account for the control step just executed.

        Args:
            observation: observation after the step, shape (n,).
            stamp: its ROS time [s].
            feedback: reward and flags of the step.
            pictures: what each camera sees, as far as the base policy wants to.

        Returns:
            The transition if the step completed a decision. After the end of an episode,
            `begin_episode` is due, unless the end of a truncated one still waits for the base
            policy: then `in_decision` is true, and `step` is to be called again with its feedback.
        """
        decision = self._decision
        held = decision is None and feedback.done
        if held:
            decision = self._held_decision()
        self._step += decision is not None and not self._holding
        self._observe(observation, stamp, pictures)
        if decision is None:
            return None
        if not (self._decision_complete or feedback.done):
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
        self, decision: _Decision, following: BaseDecision, feedback: StepFeedback
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

    def _held_decision(self) -> _Decision | None:
        """Return an episode's end during a hold as a decision to stay: its outcome counts.

        None if nothing was sent: then there is nothing to judge.
        """
        last = self.limiter.last_command
        if last is None:
            return None
        layout = self.layout
        held = np.tile(last, (layout.decision_steps, 1))
        # Nobody asked the base policy: its density is not known, and it would have done this.
        others = np.tile(held.ravel(), (layout.proposals - 1, 1))
        return _Decision(
            stamp=self._stamp,
            step=self._step,
            observation=self._observation,
            base=held,
            residual=np.zeros_like(held),
            planned=held,
            executed=held,
            source=Source.TAKEOVER if self.limiter.overridden else Source.BASE,
            distribution=BaseDistribution(np.zeros(layout.prior_size), others),
            steps_sent=layout.decision_steps,
        )

    def abandon(self) -> None:
        """Drop the decision in progress: the robot was paused, so it was not executed as decided.

        It yields no transition; the step count shows the gap. The base policy plans anew.
        """
        self._step += self._decision is not None or self._base is not None
        if self._decision is not None:
            self.mailbox.cancel_decision()
        self._base = self._decision = None
        self.plans.forget()
        self.queue.forget()

    @property
    def _decision_complete(self) -> bool:
        decision = self._decision
        return decision is not None and decision.steps_sent == self.layout.decision_steps

    def _observe(self, observation: npt.ArrayLike, stamp: float, pictures: Pictures) -> None:
        self._observation = np.array(observation, dtype=np.float64)
        self._stamp = stamp
        self.limiter.observe(self._observation)
        self.queue.push_observation(observation, pictures)

    def _take(self) -> BaseDecision:
        """Return what the base policy says for the next decision."""
        return self.queue.take(self._chunk_timeout_s)

    def _decide(self) -> None:
        """Make a residual decision on the newest observation."""
        given, self._base, self._advantage = self._base, None, None
        assert given is not None
        self.mailbox.begin_decision()
        choice, bound_scale = self._residual(given)
        source = Source.RESIDUAL if bound_scale > 0.0 else Source.BASE
        if choice.proposal:
            self.proposals_chosen += 1
            given = given.with_chosen(choice.proposal)
        base = given.actions
        residual = choice.residual.reshape(base.shape)
        planned = self.bound.compose(base, residual, bound_scale)
        self._decision = _Decision(
            stamp=self._stamp,
            step=self._step,
            observation=self._observation,
            base=base,
            residual=residual,
            planned=planned,
            executed=planned.copy(),
            source=source,
            distribution=given.distribution,
            add_on_weight=self.customisation.weight,
            bound_scale=bound_scale,
            advantage=self._advantage,
        )
        self._order_plan(planned)

    def _order_plan(self, planned: Array) -> None:
        """Outside lockstep, have a robot policy that plans do so for the next decision."""
        policy, header = self._actor, self.mailbox.header
        if self._chunk_timeout_s is None or header is None or not isinstance(policy, Planner):
            return
        enabled = self.residual_enabled and not self.customisation.off
        if self._noise_scale is None or self._base_only or not enabled:
            return
        step = self._step + self.layout.decision_steps
        sample = header.exploration.sample(self._noise_scale, self.blend_ratio)
        sample = replace(sample, weight=self.customisation.weight)
        rng = self._plan_rng(step)
        self.plans.order(policy, step, self._observation, planned.ravel(), rng, sample)

    @property
    def _actor(self) -> Decider | None:
        """What decides: the actor in use, or where it plans, one for what is asked for now."""
        actor, text = self.mailbox.actor, self.customisation.text
        if not isinstance(actor, Planner) or not text:
            return actor
        if self._planner is None or self._planner[:2] != (actor, text):
            self._planner = actor, text, actor.for_add_on(self.customisation.add_ons)
        return self._planner[2]

    def _plan_rng(self, step: int) -> np.random.Generator:
        """Return the random numbers of a plan: those of its decision, whatever was planned before.

        A planner draws also where it does not explore.
        """
        return np.random.default_rng([self._seed, self._episode, PLAN_STREAM, step])

    def _residual(self, given: BaseDecision) -> tuple[Choice, float]:
        """Return the choice of a decision and its bound scale; 0 is the base alone."""
        base = given.actions
        nothing = Choice(0, np.zeros(base.size))
        policy, header = self._actor, self.mailbox.header
        if policy is None or header is None or not self.residual_enabled:
            return nothing, 0.0
        if self.customisation.off:
            return nothing, 0.0
        exploration = header.exploration
        if self._noise_scale is None:
            # Streams of their own, so that one does not shift with what the other draws.
            rngs = [np.random.default_rng([self._seed, self._episode, use]) for use in (2, 3)]
            self._noise_scale = exploration.noise_scale(rngs[0])
            self._base_only = exploration.base_only(rngs[1])
        sample = exploration.sample(self._noise_scale, self.blend_ratio)
        sample = replace(sample, weight=self.customisation.weight)
        if self._base_only or sample.bound_scale <= 0.0:
            return nothing, 0.0
        whole = self.layout.discrete or policy.acts_whole
        if whole and sample.bound_scale < 1.0:
            # Nothing is between two actions: the residual acts whole, in so many decisions.
            if self._switch.random() >= sample.bound_scale:
                return nothing, 1.0
            sample = replace(sample, bound_scale=1.0)
        rng = self._exploration if self.explore else None
        by_policy = exploration.residual_probability
        if rng is not None and 0.0 < by_policy < 1.0:
            by_policy = float(rng.random() < by_policy)
        if by_policy > 0.0:
            started = self._clock()
            decided = self._ask(policy, given, rng, sample)
            self.actor_latency.add(self._clock() - started)
            if decided is None:
                return nothing, 0.0
            choice = decided
            self.residuals_refused += not (choice.proposal or choice.residual.any())
        elif rng is not None and exploration.uniform_noise > 0.0:
            noise = self._uniform(policy, base, exploration.uniform_noise, rng)
            choice = Choice(0, noise)
        elif exploration.residual_probability > 0.0:
            # A residual of zero, not the base alone: an episode in which every decision is gated
            # off by chance would else be taken for one of the guard's, and most such are short.
            choice = nothing
        else:
            return nothing, 0.0
        if not self._is_legal(base, choice.residual):
            self.residuals_not_finite += 1
            return nothing, 0.0
        return choice, sample.bound_scale

    def _uniform(
        self, policy: Decider, base: Array, half_width: float, rng: np.random.Generator
    ) -> Array:
        """Return a uniform residual, shape (k * m,).

        Of discrete actions each is replaced, with the probability `half_width`, by any of them.
        """
        if not self.layout.discrete:
            return policy.uniform(half_width, rng)
        steps, actions = base.shape
        drawn = np.eye(actions)[rng.integers(actions, size=steps)] - base
        residual: Array = (drawn * (rng.random((steps, 1)) < half_width)).ravel()
        return residual

    def _ask(
        self,
        policy: Decider,
        given: BaseDecision,
        rng: np.random.Generator | None,
        sample: ExplorationSample,
    ) -> Choice | None:
        """Return what a robot policy decides; None while its plan is late."""
        if isinstance(policy, Planner):
            if self._chunk_timeout_s is not None:
                plan = self.plans.take(policy, self._step, sample.weight)
                return None if plan is None else Choice(0, plan)
            rng = self._plan_rng(self._step)
        base = given.actions.ravel()
        if isinstance(policy, Chooser):
            proposals = all_proposals(base, given.distribution)
            # Nothing is between two proposals: while the residual fades in, the choice is whole.
            if sample.bound_scale < 1.0 and self._switch.random() >= sample.bound_scale:
                proposals = proposals[:1]
            choice = policy.choose(self._observation, proposals, rng, sample)
        else:
            decided = policy.decide(self._observation, base, rng, sample, given.distribution)
            choice = Choice(0, decided)
        self._advantage = policy.advantage
        return choice

    def _is_legal(self, base: Array, residual: Array) -> bool:
        """Return whether a residual, shape (k * m,), makes a command of a base action, (k, m)."""
        if not is_residual(residual, base.size):
            return False
        if not self.layout.discrete:
            return True
        return is_one_hot(self.bound.compose(base, residual.reshape(base.shape), 1.0))
