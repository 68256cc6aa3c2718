# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Success of base and residual over the episodes that were heard."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

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
    taken_over: bool = False


@dataclass
class Episodes:
    """Outcomes of episodes, from transitions in the order in which they were made.

    An episode with a takeover is a failure, however it ends; one that an operator began is
    nobody's. One whose outcome nobody told counts nowhere. So does one whose beginning was not
    heard: what decided then is not known.
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
        if transition.terminated or transition.truncated:
            self._end(self._open, transition.success)
            self._open = None

    def _end(self, episode: _Episode, success: Success) -> None:
        self.ended += 1
        if episode.began_with_operator:
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
