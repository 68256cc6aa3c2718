# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a scripted expert is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from residual_rl_ros.errors import ConfigError

EnvT = TypeVar('EnvT')


class Expert(ABC, Generic[EnvT]):
    """A policy with access to the true state of its task; every approach has its displacement.

    See `experts.make_expert` for the arguments.
    """

    def __init__(
        self, *, rng: np.random.Generator | None = None, waypoint_noise: float = 0.0
    ) -> None:
        if waypoint_noise and rng is None:
            raise ConfigError(
                f'waypoint_noise is {waypoint_noise} but rng is None, expected a numpy Generator; '
                'pass rng to the expert'
            )
        self._rng = rng
        self._std = waypoint_noise
        self.detour: NDArray[np.float64] = np.zeros(2)
        """Displacement of this episode's approach, shape (2,), [m]."""

    def reset(self, env: EnvT) -> None:
        """Prepare for an episode that `env` has just been reset to."""
        del env
        if self._rng is not None:
            self.detour = self._std * self._rng.standard_normal(2)

    @abstractmethod
    def act(self, env: EnvT) -> NDArray[np.float64]:
        """Return the command of the next control step, shape (m,).

        For the tasks of this package it is absolute joint position targets, [rad].
        """
