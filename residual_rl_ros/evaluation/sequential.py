# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A test of success that may be asked after every episode."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

LEVEL, ERROR = 0.9, 0.05
WINDOW = 50
"""Latest episodes that a bet is drawn from."""
PRIOR = 10.0
"""Episodes at the level that are added to them, against bets on little."""


class SuccessTest:
    """Sequential test that the success of training episodes has risen above a level.

    Wealth starts at 1. Before each episode a share of it is bet on success, at odds that are fair
    where success has the probability of the level: it is multiplied by 1 + bet (outcome - level).
    The bet follows from the latest `WINDOW` outcomes before and is never negative; it is 0 while
    these are not above the level.

    The policy changes from episode to episode, and so does its success. Under the hypothesis that
    no policy so far has succeeded with a probability above the level, given all that was seen
    before, wealth is a non-negative supermartingale whatever the policies do and whenever one looks
    (Ville's inequality): it reaches 1 / error with a probability of at most `error`. What is
    rejected is that hypothesis. That the policy of *now* is above the level does not follow; that
    wealth has grown in the latest window, and shrinks with a worse policy, speaks for it, and an
    evaluation on scenes of its own decides. Training episodes explore, which costs success.

    Args:
        level: probability of success to exceed.
        error: largest probability of deciding where no policy exceeded the level.
    """

    def __init__(self, level: float = LEVEL, error: float = ERROR) -> None:
        self.level, self.error = level, error
        self.wealth = 1.0
        """Evidence so far, as odds against the hypothesis."""
        self.episodes = 0
        """Outcomes seen."""
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._followed = 0

    @property
    def decided(self) -> bool:
        """Whether there is enough evidence; once there is, nothing changes it."""
        return self.wealth >= 1.0 / self.error

    def add(self, outcome: bool) -> None:
        """Take in the outcome of an episode."""
        if self.decided:
            return
        level = self.level
        successes = sum(self._recent) + PRIOR * level
        expected = successes / (len(self._recent) + PRIOR)
        # What makes wealth grow fastest if `expected` is the probability (Kelly).
        bet = max(0.0, (expected - level) / (level * (1.0 - level)))
        self.wealth *= 1.0 + bet * (float(outcome) - level)
        self.episodes += 1
        self._recent.append(outcome)

    def follow(self, count: int, latest: Sequence[bool]) -> None:
        """Take in what is new of a list of outcomes that grows elsewhere.

        Args:
            count: how many outcomes there are in all.
            latest: the newest of them; older ones that were never seen here are left out.
        """
        new = min(count - self._followed, len(latest))
        for outcome in latest[len(latest) - new :] if new > 0 else ():
            self.add(outcome)
        self._followed = max(count, self._followed)

    def __str__(self) -> str:
        return f'{min(self.wealth, 9999.0):.1f} to 1'
