# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a decision adds to the base action: switches, bound, gate, and the robot policy in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from residual_rl_ros.base_policy.distribution import BaseDecision
from residual_rl_ros.control.composition import ResidualBound
from residual_rl_ros.control.customisation import Customisation
from residual_rl_ros.control.plan_queue import PlanQueue
from residual_rl_ros.control.streams import Stream, episode_rng
from residual_rl_ros.latency import Latency
from residual_rl_ros.numerics import Array, is_one_hot
from residual_rl_ros.residual_policy.exploration import Exploration, ExplorationSample
from residual_rl_ros.residual_policy.mailbox import ActorMailbox
from residual_rl_ros.residual_policy.probe import is_residual
from residual_rl_ros.residual_policy.robot_policy import (
    Choice,
    Chooser,
    Decider,
    Planner,
    all_proposals,
)
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Source


class ResidualSource:
    """Decides over residuals, as the queue of chunks does over base actions.

    Args:
        layout: transition layout, with k.
        bound: residual bound.
        mailbox: actor in use.
        customisation: what the robot is asked for beside its task.
        seed: with the episode number, seeds the exploration noise.
        explore: sample the residual; otherwise use tanh(mean).
        plans_ahead: have plans computed in a thread; otherwise wait for them (lockstep).
        clock: monotonic time, for durations [s].
    """

    def __init__(
        self,
        layout: TransitionLayout,
        bound: ResidualBound,
        mailbox: ActorMailbox,
        customisation: Customisation,
        seed: int,
        explore: bool,
        plans_ahead: bool,
        clock: Callable[[], float],
    ) -> None:
        self._layout = layout
        self._bound = bound
        self._mailbox = mailbox
        self._customisation = customisation
        self._seed = seed
        self._plans_ahead = plans_ahead
        self._clock = clock
        self._episode = 0
        self._exploration = self._switch = np.random.default_rng(seed)
        self._noise_scale: float | None = None
        self._base_only = self._random = False  # Drawn with the noise scale.
        self._planner: tuple[Planner, str, Planner] | None = None
        self.explore = explore
        """Sample the residual instead of using its mean."""
        self.enabled = True
        """Operator switch (`~/set_residual`)."""
        self.blend_ratio = 1.0
        """Multiplier in [0, 1] on the residual."""
        self.advantage: float | None = None
        """As `Decider.advantage`, of the latest decision."""
        self.not_finite = 0
        """Decisions of the actor that were no numbers in [-1, 1], or chose none of the discrete
        actions: the base acted alone."""
        self.refused = 0
        """Decisions in which critics that choose saw no residual better than the base action."""
        self.proposals_chosen = 0
        """Decisions that took another proposal of the base than its action."""
        self.latency = Latency()
        """Duration of the actor's part of a decision."""
        self.plans = PlanQueue(clock)
        """Plans of a robot policy that plans, outside lockstep."""

    def begin_episode(self, episode: int) -> None:
        """Begin the random numbers of an episode; how it explores is drawn at its first decision.

        Args:
            episode: its number.
        """
        self._episode, self._noise_scale = episode, None
        self._base_only = self._random = False
        self._exploration, self._switch = self._rng(Stream.EXPLORATION), self._rng(Stream.SWITCH)
        self.plans.forget()

    def decide(
        self, base_decision: BaseDecision, observation: Array, step: int
    ) -> tuple[Choice, float, Source]:
        """Return the choice of a decision, its bound scale and who made it; 0 is the base alone.

        Args:
            base_decision: what the base policy says.
            observation: shape (n,).
            step: control step in the episode.
        """
        self.advantage = None
        choice, bound_scale = self._decide(base_decision, observation, step)
        self.proposals_chosen += choice.proposal > 0
        if bound_scale <= 0.0:
            return choice, 0.0, Source.BASE
        return choice, bound_scale, Source.RANDOM if self._acts_randomly else Source.RESIDUAL

    def plan_next(self, observation: Array, planned: Array, step: int) -> None:
        """Outside lockstep, have a robot policy that plans do so for the next decision.

        Args:
            observation: of the present one, shape (n,).
            planned: what that executes, shape (k * m,), command units.
            step: its control step.
        """
        if not self._plans_ahead:
            return
        policy, header = self._policy, self._mailbox.header
        if header is None or not isinstance(policy, Planner):
            return
        sample = self._sample(header.exploration)
        if sample is not None and not self._acts_randomly:
            step += self._layout.decision_steps
            self.plans.order(policy, step, observation, planned, self._plan_rng(step), sample)

    @property
    def _policy(self) -> Decider | None:
        """What decides: the actor in use, or where it plans, one for what is asked for now."""
        actor, text = self._mailbox.actor, self._customisation.text
        if not text or not isinstance(actor, Planner):
            return actor
        if self._planner is None or self._planner[:2] != (actor, text):
            self._planner = actor, text, actor.for_add_on(self._customisation.add_ons)
        return self._planner[2]

    @property
    def _acts_randomly(self) -> bool:
        """Whether a random residual acts in this episode instead of the robot policy."""
        return self.explore and self._random

    def _rng(self, stream: Stream, *item: int) -> np.random.Generator:
        return episode_rng(self._seed, self._episode, stream, *item)

    def _plan_rng(self, step: int) -> np.random.Generator:
        """Return the random numbers of a plan: those of its decision, whatever was planned before.

        A planner draws also where it does not explore.
        """
        return self._rng(Stream.PLAN, step)

    def _sample(self, exploration: Exploration) -> ExplorationSample | None:
        """Return how a decision explores; None where the base acts alone."""
        if not self.enabled or self._customisation.off:
            return None
        if self._noise_scale is None:
            self._noise_scale = exploration.noise_scale(self._rng(Stream.NOISE_SCALE))
            self._base_only = exploration.base_only(self._rng(Stream.BASE_ONLY))
            self._random = exploration.acts_randomly(self._rng(Stream.RANDOM_EPISODE))
        # The guard is told nothing of random episodes: its share is one of the others.
        if self._base_only and not self._acts_randomly:
            return None
        weight = self._customisation.weight
        return exploration.sample(self._noise_scale, self.blend_ratio, weight)

    def _decide(
        self, base_decision: BaseDecision, observation: Array, step: int
    ) -> tuple[Choice, float]:
        base = base_decision.actions
        nothing = Choice(0, np.zeros(base.size))
        policy, header = self._policy, self._mailbox.header
        if policy is None or header is None:
            return nothing, 0.0
        sample = self._sample(header.exploration)
        if sample is None or sample.bound_scale <= 0.0:
            return nothing, 0.0
        whole = self._layout.discrete or policy.acts_whole
        if whole and sample.bound_scale < 1.0:
            # Nothing is between two actions: the residual acts whole, in so many decisions.
            if self._switch.random() >= sample.bound_scale:
                return nothing, 1.0
            sample = replace(sample, bound_scale=1.0)
        exploration = header.exploration
        rng = self._exploration if self.explore else None
        by_policy = exploration.residual_probability
        if rng is not None and 0.0 < by_policy < 1.0:
            by_policy = float(rng.random() < by_policy)
        if self._acts_randomly:
            number = step // (self._layout.decision_steps * exploration.random_decisions)
            held = self._rng(Stream.RANDOM_RESIDUAL, number)
            choice = Choice(0, self._uniform(policy, base, 1.0, held))
        elif by_policy > 0.0:
            decided = self._ask(policy, base_decision, observation, step, rng, sample)
            if decided is None:
                return nothing, 0.0
            choice = decided
        elif rng is not None and exploration.uniform_noise > 0.0:
            choice = Choice(0, self._uniform(policy, base, exploration.uniform_noise, rng))
        elif exploration.residual_probability > 0.0:
            # A residual of zero, not the base alone: an episode in which every decision is gated
            # off by chance would else be taken for one of the guard's, and most such are short.
            choice = nothing
        else:
            return nothing, 0.0
        if not self._is_legal(base, choice.residual):
            self.not_finite += 1
            return nothing, 0.0
        return choice, sample.bound_scale

    def _uniform(
        self, policy: Decider, base: Array, half_width: float, rng: np.random.Generator
    ) -> Array:
        """Return a uniform residual, shape (k * m,).

        Of discrete actions each is replaced, with the probability `half_width`, by any of them.
        """
        if not self._layout.discrete:
            return policy.uniform(half_width, rng)
        steps, actions = base.shape
        drawn = np.eye(actions)[rng.integers(actions, size=steps)] - base
        residual: Array = (drawn * (rng.random((steps, 1)) < half_width)).ravel()
        return residual

    def _ask(
        self,
        policy: Decider,
        base_decision: BaseDecision,
        observation: Array,
        step: int,
        rng: np.random.Generator | None,
        sample: ExplorationSample,
    ) -> Choice | None:
        """Return what a robot policy decides, and note how long that took; None: a late plan."""
        started = self._clock()
        if not isinstance(policy, Planner):
            choice: Choice | None = self._choose(policy, base_decision, observation, rng, sample)
        elif self._plans_ahead:
            plan = self.plans.take(policy, step, sample.weight)
            choice = None if plan is None else Choice(0, plan)
        else:
            choice = self._choose(policy, base_decision, observation, self._plan_rng(step), sample)
        self.latency.add(self._clock() - started)
        if choice is not None:
            self.refused += not (choice.proposal or choice.residual.any())
        return choice

    def _choose(
        self,
        policy: Decider,
        base_decision: BaseDecision,
        observation: Array,
        rng: np.random.Generator | None,
        sample: ExplorationSample,
    ) -> Choice:
        base = base_decision.actions.ravel()
        if isinstance(policy, Chooser):
            proposals = all_proposals(base, base_decision.distribution)
            # Nothing is between two proposals: while the residual fades in, the choice is whole.
            if sample.bound_scale < 1.0 and self._switch.random() >= sample.bound_scale:
                proposals = proposals[:1]
            choice = policy.choose(observation, proposals, rng, sample)
        else:
            decided = policy.decide(observation, base, rng, sample, base_decision.distribution)
            choice = Choice(0, decided)
        self.advantage = policy.advantage
        return choice

    def _is_legal(self, base: Array, residual: Array) -> bool:
        """Return whether a residual, shape (k * m,), makes a command of a base action, (k, m)."""
        if not is_residual(residual, base.size):
            return False
        if not self._layout.discrete:
            return True
        return is_one_hot(self._bound.compose(base, residual.reshape(base.shape), 1.0))
