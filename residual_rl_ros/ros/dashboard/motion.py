# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the base wanted and what was executed, of the latest control steps."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Source, Transition

Array = npt.NDArray[np.float64]

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
