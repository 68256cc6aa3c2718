# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Networks that are kept: the latest finite ones, and those confirmed as better than the base."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from residual_rl_ros.algorithms.rule import Rule
from residual_rl_ros.residual_policy.exploration import RESIDUAL
from residual_rl_ros.residual_policy.probe import decides_numbers

Networks = dict[str, torch.Tensor]
Rank = tuple[int, bool, float, int]
"""How often rating had begun, whether networks were confirmed, success around them, and when they
were taken: the larger, the better or newer."""
UNRANKED: Rank = (0, False, -1.0, -1)
"""Less than every rank of a learner after its warm-up."""


WINDOW = 25
"""Residual episodes before networks, and as many after them, by which they are confirmed."""


class BestNetworks:
    """Confirms networks by the episodes on both sides of them; at first, those of the warm-up.

    The networks between two windows of residual episodes are confirmed if

    - neither window is below the base: the episodes after them alone would confirm the bottom of a
      valley that the learner is leaving, those before them the edge of one;
    - both together are better than the base by one standard error of the difference, because the
      base is known from few episodes, and there are many windows to be lucky in;
    - both together are not below what is confirmed.

    Success is that of a Beta distribution: one success and one failure are added to each.
    """

    def __init__(self) -> None:
        self.good: Networks = {}
        """Networks to roll back to; none during warm-up."""
        self.candidate: Networks = {}
        """Networks that are being rated: those at the beginning of the window that goes on."""
        self.success = -1.0
        """Success around `good`; that of the base while none were better, -1 during warm-up."""
        self.taken_at = 0
        """Transitions received when `good` were the present ones."""
        self.confirmed = False
        """Whether `good` were confirmed; else they are those that rating began with."""
        self._begun = 0
        self._candidate_at = 0
        self._before: list[float] = []
        self._window: list[float] = []

    @property
    def rank(self) -> Rank:
        """Rank of `good`."""
        return self._begun, self.confirmed, self.success, self.taken_at

    def begin(self, networks: Networks, success: float, transitions: int) -> None:
        """Begin to rate, at the end of the warm-up or by another measure than before.

        Args:
            networks: those that are good until others are confirmed.
            success: that of the base.
            transitions: received so far.
        """
        self._begun += 1
        self.good = self.candidate = networks
        self.success, self.taken_at, self._candidate_at = success, transitions, transitions
        self.confirmed, self._before, self._window = False, [], []

    def rate(
        self,
        outcome: float,
        base: Sequence[float],
        networks: Callable[[], Networks],
        transitions: int,
    ) -> None:
        """Take in a residual episode; after a window, confirm the candidate and take the next.

        Args:
            outcome: its success, or a grade from 0 to 1.
            base: outcomes of the base to compare with.
            networks: returns the present ones.
            transitions: received so far.
        """
        self._window.append(outcome)
        if len(self._window) < WINDOW:
            return
        if self._before and self._better(base):
            self.good, self.taken_at, self.confirmed = self.candidate, self._candidate_at, True
            self.success = _mean([*self._before, *self._window])
        self._before, self._window = self._window, []
        self.candidate, self._candidate_at = networks(), transitions

    def _better(self, base: Sequence[float]) -> bool:
        """Return whether the two windows confirm the candidate."""
        both = [*self._before, *self._window]
        if self.confirmed and _mean(both) < self.success:
            return False
        if base and min(_mean(self._before), _mean(self._window)) < _mean(base):
            return False
        (p, variance), (p0, variance0) = _beta(both), _beta(base)
        return p - p0 >= math.sqrt(variance + variance0)

    def restore(self) -> Networks:
        """Return the best networks, which are rated anew from now on."""
        self.candidate, self._candidate_at = self.good, self.taken_at
        self._before, self._window = [], []
        return self.good

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values; a checkpoint keeps the networks on their own."""
        return {
            'good_success': self.success,
            'good_taken_at': self.taken_at,
            'good_confirmed': self.confirmed,
            'rating_begun': self._begun,
            'candidate_taken_at': self._candidate_at,
            'rated_before': list(self._before),
            'rated': list(self._window),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.success, self.taken_at = float(state['good_success']), int(state['good_taken_at'])
        self.confirmed, self._begun = bool(state['good_confirmed']), int(state['rating_begun'])
        self._candidate_at = int(state['candidate_taken_at'])
        self._before, self._window = (list(state[name]) for name in ('rated_before', 'rated'))


def _mean(outcomes: Sequence[float]) -> float:
    return sum(outcomes) / len(outcomes)


def _beta(outcomes: Sequence[float]) -> tuple[float, float]:
    """Return mean and variance of success after these outcomes and one of each kind."""
    count = len(outcomes) + 2
    mean = (sum(outcomes) + 1) / count
    return mean, mean * (1.0 - mean) / count


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of tensors that hold what is not finite."""
    return [name for name, value in tensors.items() if not bool(value.isfinite().all())]


COUNTS = ('seen', 'warm', 'updates')
"""Tensors of a rule that say how much of a schedule is over."""


class FiniteNetworks:
    """Remembers the latest finite networks of a rule, and goes back to them.

    Args:
        rule: the rule.
        generator: its source of random numbers, which goes on when networks go back: else the
            noise since then would be drawn again.
    """

    def __init__(self, rule: Rule, generator: torch.Generator) -> None:
        self._rule = rule
        self._generator = generator
        self._latest: Networks = rule.state_dict()
        self.recoveries = 0
        """How often the rule had to go back."""

    def restore(self, networks: Networks) -> None:
        """Load earlier networks; what counts transitions and updates goes on."""
        present = self._rule.state_dict()
        counts = {name: present[name] for name in COUNTS if name in present}
        counts['generator'] = self._generator.get_state()
        self._rule.load_state_dict({**networks, **counts})

    def check(self) -> str:
        """Keep the present networks, or go back to the latest finite ones.

        Returns:
            Why it was necessary to go back; empty if it was not.
        """
        tensors = self._rule.state_dict()
        broken = not_finite(tensors)
        if broken:
            more = f' and {len(broken) - 1} more tensors' if broken[1:] else ''
            return self._go_back(f'{broken[0]}{more} are not finite')
        if not decides_numbers(self._rule.robot_policy(), RESIDUAL):
            return self._go_back('the actor overflows float32')
        self._latest = tensors
        return ''

    def _go_back(self, reason: str) -> str:
        self.restore(self._latest)
        self.recoveries += 1
        return (
            f'{reason}: going on from the latest networks that were sound; if it happens again, '
            'lower the learning rates or the scale of the rewards'
        )
