# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The latest networks whose numbers are all finite: what is published and saved is of these."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from residual_rl_ros.algorithms.rule import Rule
from residual_rl_ros.learner.best_networks import Networks
from residual_rl_ros.residual_policy.robot_policy import RESIDUAL, decides_numbers


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of tensors that hold what is not finite."""
    return [name for name, value in tensors.items() if not bool(value.isfinite().all())]


COUNTS = ('seen', 'warm', 'updates', 'offline')
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
