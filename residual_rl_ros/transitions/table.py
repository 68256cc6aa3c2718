# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Many transitions at once, one row each, as the messages carry them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from residual_rl_ros.errors import MalformedTransitionError
from residual_rl_ros.numerics import Array, Mask
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition


class TransitionTable:
    """Transitions of one robot in the order in which it made them.

    Args:
        layout: what the columns mean.
        values: the numbers of one message in every row, shape (count, layout.size).
    """

    def __init__(self, layout: TransitionLayout, values: Array) -> None:
        if values.ndim != 2 or values.shape[1] != layout.size:
            raise MalformedTransitionError(
                f'table has shape {values.shape}, expected (count, {layout.size})'
            )
        self.layout = layout
        self.values = values

    def __len__(self) -> int:
        """Return the number of transitions."""
        return len(self.values)

    def __iter__(self) -> Iterator[Transition]:
        """Yield every transition, decoded."""
        label = self.layout.label
        return (self.layout.decode(row, label) for row in self.values)

    def header(self, name: str) -> Array:
        """Return a scalar of every transition, shape (count,)."""
        return self.values[:, self.layout.columns[name].start]

    def block(self, name: str) -> Array:
        """Return a block of every transition, shape (count, n) or (count, k * m)."""
        return self.values[:, self.layout.columns[name]]

    @property
    def done(self) -> Mask:
        """Whether each transition is the last of its episode, shape (count,)."""
        done: Mask = (self.header('terminated') != 0.0) | (self.header('truncated') != 0.0)
        return done

    def rows(self, chosen: slice | Mask) -> TransitionTable:
        """Return some of the transitions; a slice shares memory."""
        return TransitionTable(self.layout, self.values[chosen])

    def valid(self) -> Mask:
        """Return which rows `TransitionLayout.decode` accepts, shape (count,)."""
        valid: Mask = np.logical_and.reduce(self.layout.usable(self.values), axis=1)
        return valid

    def follows(self) -> Mask:
        """Return which transitions, from the second on, continue the one before, (count - 1,).

        The one before must not end its episode, and none may be missing in between.
        """
        epoch, episode, step = (self.header(name) for name in ('epoch', 'episode', 'step'))
        follows: Mask = (
            ~self.done[:-1]
            & (epoch[1:] == epoch[:-1])
            & (episode[1:] == episode[:-1])
            & (step[1:] == step[:-1] + self.layout.decision_steps)
        )
        return follows
