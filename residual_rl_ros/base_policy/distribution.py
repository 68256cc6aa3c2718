# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a base policy tells beside its action: how likely actions are, and what else it would do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BaseDistribution:
    """Of the base action of one decision."""

    prior: Array
    """Density of the action, shape (P,); see `robot.action_spec.Prior`."""
    proposals: Array
    """Other draws of the base policy at the same observation, shape (N - 1, k * m)."""


NO_DISTRIBUTION = BaseDistribution(np.zeros(0), np.zeros((0, 0)))
"""A base policy that tells its action alone."""
