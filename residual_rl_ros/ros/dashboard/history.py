# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What was heard of a robot: how episodes ended, and what it wanted and did lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from residual_rl_ros.numerics import Array
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Source, Success, Transition

WINDOW = 20
"""Episodes of one kind over which a curve averages."""
REMEMBERED = 2000
"""Episodes that are remembered."""


@dataclass(frozen=True)
class Outcome:
    """How an episode ended."""

    number: int
    """Of the episodes that ended while somebody listened, from 1."""
    residual: bool
    """Whether it says something of base + residual, or of the base alone."""
    success: bool


@dataclass
class _Episode:
    """An episode that goes on."""

    number: int
    began_with_operator: bool
    residual: bool = False
    random: bool = False
    taken_over: bool = False


@dataclass
class Episodes:
    """Outcomes of episodes, from transitions in the order in which they were made.

    An episode with a takeover is a failure, however it ends; one that an operator began is
    nobody's, and so is one of random residuals. One whose outcome nobody told counts nowhere. So
    does one whose beginning was not heard: what decided then is not known.
    """

    outcomes: deque[Outcome] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    ended: int = 0
    """Episodes that have ended, with an outcome or without."""
    _open: _Episode | None = None

    def take(self, transition: Transition) -> None:
        """Take in a transition."""
        taken_over = transition.source is Source.TAKEOVER
        if self._open is None or self._open.number != transition.episode or not transition.step:
            self._open = None
            if transition.step:
                return
            self._open = _Episode(transition.episode, taken_over)
        self._open.taken_over |= taken_over
        self._open.residual |= transition.source is Source.RESIDUAL
        self._open.random |= transition.source is Source.RANDOM
        if transition.terminated or transition.truncated:
            self._end(self._open, transition.success)
            self._open = None

    def _end(self, episode: _Episode, success: Success) -> None:
        self.ended += 1
        if episode.began_with_operator or episode.random:
            return
        if success is Success.UNLABELLED and not episode.taken_over:
            return
        succeeded = success is Success.SUCCESS and not episode.taken_over
        self.outcomes.append(Outcome(self.ended, episode.residual, succeeded))

    def curve(self, residual: bool) -> list[tuple[int, float]]:
        """Return the success over the latest `WINDOW` episodes of a kind, at each of them.

        Returns:
            Pairs of the number of the episode and a success in [0, 1].
        """
        return _moving([item for item in self.outcomes if item.residual is residual])

    def latest(self, residual: bool) -> tuple[int, int]:
        """Return successes and number of the latest episodes of a kind, at most `WINDOW`."""
        recent = [item.success for item in self.outcomes if item.residual is residual][-WINDOW:]
        return sum(recent), len(recent)


def _moving(outcomes: Sequence[Outcome]) -> list[tuple[int, float]]:
    curve = []
    for end, outcome in enumerate(outcomes, start=1):
        window = outcomes[max(0, end - WINDOW) : end]
        curve.append((outcome.number, sum(item.success for item in window) / len(window)))
    return curve


SHOWN_STEPS = 200
"""Control steps that are shown."""


@dataclass(frozen=True)
class Motion:
    """Base and executed action of the latest control steps, command units, shape (steps, m)."""

    names: tuple[str, ...]
    base: Array
    executed: Array
    bound: Array
    """Largest residual, shape (m,)."""

    @property
    def band(self) -> tuple[Array, Array]:
        """Where the residual may lead, shape (steps, m) each."""
        return self.base - self.bound, self.base + self.bound


@dataclass(frozen=True)
class Share:
    """How much of its bound the residual used in the latest decisions that had one, in [0, 1]."""

    name: str
    asked: float
    """By the actor: mean absolute output."""
    executed: float
    """After scale, limits and choice: mean distance of executed and base action. It may exceed 1
    where a limit has moved the base action."""


class MotionHistory:
    """Keeps the actions of the latest decisions.

    Args:
        layout: of the transitions.
    """

    def __init__(self, layout: TransitionLayout) -> None:
        self.layout = layout
        kept = -(-SHOWN_STEPS // layout.decision_steps)
        self._latest: deque[Transition] = deque(maxlen=kept)

    def take(self, transition: Transition) -> None:
        """Take in a transition."""
        self._latest.append(transition)

    def motion(self) -> Motion:
        """Return what the charts show; without transitions of zero steps."""
        return Motion(
            self.layout.action_names,
            self._stack([item.base_action for item in self._latest]),
            self._stack([item.executed_action for item in self._latest]),
            np.array(self.layout.residual_bound),
        )

    def shares(self) -> list[Share]:
        """Return the share of the bound of each action that has one, empty without a residual."""
        acting = [item for item in self._latest if item.source is Source.RESIDUAL]
        if not acting:
            return []
        asked = np.abs(self._stack([item.residual_action for item in acting])).mean(axis=0)
        moved = self._stack([item.executed_action - item.base_action for item in acting])
        moved = np.abs(moved).mean(axis=0)
        names, bounds = self.layout.action_names, self.layout.residual_bound
        return [
            Share(name, float(wanted), float(distance / bound))
            for name, bound, wanted, distance in zip(names, bounds, asked, moved, strict=True)
            if bound > 0.0
        ]

    def _stack(self, blocks: list[Array]) -> Array:
        width = self.layout.action_size
        return np.concatenate([np.zeros(0), *blocks]).reshape(-1, width)
