# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a base policy tells about the density of its actions."""

from __future__ import annotations

from enum import StrEnum


class Prior(StrEnum):
    """What a base policy tells about the density of its actions, pi(a|s)."""

    NONE = 'none'
    """Nothing."""
    GAUSSIAN = 'gaussian'
    """Mean and log standard deviation, command units."""
    SQUASHED_GAUSSIAN = 'squashed_gaussian'
    """Mean and log standard deviation of z; the action is tanh(z), scaled to the trained range."""
    CATEGORICAL = 'categorical'
    """A logit for each of m discrete actions."""

    def __repr__(self) -> str:
        """Return the text in quotes, as configuration files have it."""
        return repr(self.value)

    def size(self, actions: int) -> int:
        """Return how many numbers tell the density of so many action dimensions.

        All means come first, then all log standard deviations.
        """
        return {Prior.NONE: 0, Prior.CATEGORICAL: actions}.get(self, 2 * actions)
