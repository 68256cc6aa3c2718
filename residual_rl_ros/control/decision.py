# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A residual decision in progress, and what the command of one of its control steps is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from residual_rl_ros.base_policy.distribution import BaseDistribution
from residual_rl_ros.numerics import Array
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Source


@dataclass
class Decision:
    """What k control steps are to do, and what has been done of it; action blocks are (k, m)."""

    stamp: float
    step: int
    """Its first control step in the episode."""
    observation: Array
    base: Array
    residual: Array
    """What was decided; zero while the residual is off."""
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

    @classmethod
    def held(
        cls,
        command: Array,
        layout: TransitionLayout,
        stamp: float,
        step: int,
        observation: Array,
        source: Source,
    ) -> Decision:
        """Return the decision to stay, as which the end of an episode during a hold counts.

        Args:
            command: that of the hold, shape (m,).
            layout: of the transitions.
            stamp: ROS time of the observation [s].
            step: control step in the episode.
            observation: the newest, shape (n,).
            source: who commanded last.
        """
        held = np.tile(command, (layout.decision_steps, 1))
        # Nobody asked the base policy: its density is not known, and it would have done this.
        others = np.tile(held.ravel(), (layout.proposals - 1, 1))
        return cls(
            stamp=stamp,
            step=step,
            observation=observation,
            base=held,
            residual=np.zeros_like(held),
            planned=held,
            executed=held,
            source=source,
            distribution=BaseDistribution(np.zeros(layout.prior_size), others),
            steps_sent=layout.decision_steps,
        )

    @property
    def complete(self) -> bool:
        """Whether every control step of it was sent."""
        return self.steps_sent == len(self.base)

    def take_over(self) -> None:
        """Leave the rest to the base: the residual fades in again, and this one is not faded."""
        self.source, rest = Source.TAKEOVER, slice(self.steps_sent, None)
        self.planned[rest] = self.executed[rest] = self.base[rest]

    def send(self, command: Array) -> None:
        """Note what this control step sends, shape (m,)."""
        self.executed[self.steps_sent] = command
        self.steps_sent += 1

    def commanded(self, episode: int) -> CommandedStep:
        """Return what the latest control step was made of.

        Args:
            episode: its number.
        """
        row = self.steps_sent - 1
        scale = 0.0 if self.source is Source.TAKEOVER else min(self.bound_scale, 1.0)
        return CommandedStep(
            episode=episode,
            step=self.step + row,
            source=self.source,
            ahead=self.base[row:],
            planned=self.planned[row:],
            bound_scale=scale,
            share=scale * float(np.abs(self.residual[row]).max(initial=0.0)),
            advantage=self.advantage,
        )


@dataclass(frozen=True)
class CommandedStep:
    """A control step whose command came from a decision, for those who look on."""

    episode: int
    """Number of the episode."""
    step: int
    """Control step in its episode, from 0."""
    source: Source
    """Of the decision."""
    ahead: Array
    """Base actions from this control step to the end of the decision, shape (rows, m)."""
    planned: Array
    """Composed actions for the same steps, shape (rows, m)."""
    bound_scale: float
    """Share of the residual bound in use; 0 is the base alone."""
    share: float
    """Largest share of the whole bound that the residual takes, over the actions, in [0, 1]."""
    advantage: float | None
    """What critics that chose gave the residual over the base action; None if nobody did."""

    @property
    def base(self) -> Array:
        """Base action of this control step, shape (m,), command units."""
        row: Array = self.ahead[0]
        return row

    @property
    def residual(self) -> Array:
        """What the residual adds to it, shape (m,), command units, before limits."""
        row: Array = self.planned[0] - self.ahead[0]
        return row
