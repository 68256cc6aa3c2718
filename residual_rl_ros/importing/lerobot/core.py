# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the networks of LeRobot's policies have in common."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Observed:
    """A normalised window of observations."""

    state: Tensor | None
    """Shape (batch, n_obs_steps, numbers); None if the policy takes none."""
    environment: Tensor | None
    """Of objects, in simulation; likewise."""
    images: tuple[Tensor, ...]
    """Of each camera, shape (batch, n_obs_steps, 3, height, width)."""

    @property
    def batch(self) -> int:
        """Size of the batch; while a graph is made, what it is computed from."""
        numbers = self.state if self.state is not None else self.environment
        return (numbers if numbers is not None else self.images[0]).shape[0]


class Core(nn.Module):
    """A network between the normalisations."""

    def forward(self, observed: Observed, noise: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return the normalised chunk (batch, horizon, m), and features of each newest image.

        Args:
            observed: the window.
            noise: shape (batch, *noise_shape); None of a policy without.
        """
        raise NotImplementedError
