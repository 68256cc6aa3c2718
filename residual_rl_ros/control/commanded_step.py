# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the command of one control step was made of, for those who look on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residual_rl_ros.transitions.transition import Source

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CommandedStep:
    """A control step whose command came from a decision."""

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
