# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The networks that a rollback returns to: those before the most successful 50 episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from residual_rl_ros.learner.episodes import RECENT_EPISODES

Networks = dict[str, torch.Tensor]


class BestNetworks:
    """Rates networks by the episodes after them; before any, those of the warm-up are the best."""

    def __init__(self) -> None:
        self.good: Networks = {}
        """Networks to roll back to; none during warm-up."""
        self.candidate: Networks = {}
        """Networks that take their place if the 50 episodes after them are more successful."""
        self._success = -1.0
        self._rated = 0

    def begin(self, networks: Networks, success: float) -> None:
        """Begin with the networks at the end of the warm-up and the success of the base."""
        self.good = self.candidate = networks
        self._success = success

    def rate(self, success: float, networks: Callable[[], Networks]) -> None:
        """Take in an episode; after 50, keep the candidate if it was the best, and take the next.

        Args:
            success: over the latest 50 episodes.
            networks: returns the present ones.
        """
        self._rated += 1
        if self._rated < RECENT_EPISODES:
            return
        if success > self._success:
            self.good, self._success = self.candidate, success
        self.candidate, self._rated = networks(), 0

    def restore(self) -> Networks:
        """Return the best networks, which are rated anew from now on."""
        self.candidate, self._rated = self.good, 0
        return self.good

    def state(self) -> dict[str, Any]:
        """Return the figures as JSON values; a checkpoint keeps the networks on their own."""
        return {'good_success': self._success, 'rated': self._rated}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._success, self._rated = float(state['good_success']), int(state['rated'])
