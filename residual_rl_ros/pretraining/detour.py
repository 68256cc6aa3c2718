# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Variation between the episodes of a scripted expert."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from residual_rl_ros.errors import ConfigError


class Detour:
    """The displacement of one episode's approach."""

    def __init__(self, rng: np.random.Generator | None, waypoint_noise: float) -> None:
        """Check that noise comes with a generator."""
        if waypoint_noise and rng is None:
            raise ConfigError(
                f'waypoint_noise is {waypoint_noise} but rng is None, expected a numpy Generator; '
                'pass rng to the expert'
            )
        self._rng = rng
        self._std = waypoint_noise
        self.offset: NDArray[np.float64] = np.zeros(2)

    def draw(self) -> None:
        """Draw the displacement, shape (2,), [m], of the next episode."""
        if self._rng is not None:
            self.offset = self._std * self._rng.standard_normal(2)
