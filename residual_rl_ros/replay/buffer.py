# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Replay memory: one contiguous float32 table, one row a transition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.spec import Transition, TransitionLayout


class ReplayError(ResidualRLError):
    """The replay memory cannot do what was asked of it."""


@dataclass(frozen=True)
class Batch:
    """Sampled transitions; actions in command units, executed ones after all clamps."""

    observation: Tensor
    """Shape (batch, n)."""
    base_action: Tensor
    """Shape (batch, k * m)."""
    executed_action: Tensor
    """Shape (batch, k * m)."""
    reward: Tensor
    """Shape (batch,)."""
    bootstrap: Tensor
    """1 unless the transition terminated (a truncation bootstraps), shape (batch,)."""
    next_observation: Tensor
    """Shape (batch, n)."""
    next_base_action: Tensor
    """Base action at the next observation, shape (batch, k * m)."""


class ReplayBuffer:
    """Ring buffer with uniform sampling.

    Args:
        layout: transition layout; fixes the row width.
        capacity: number of rows; the oldest is overwritten.
    """

    def __init__(self, layout: TransitionLayout, capacity: int) -> None:
        if capacity < 1:
            raise ReplayError(f'replay capacity is {capacity}, expected >= 1')
        n, km = layout.observation_size, layout.decision_size
        self._splits = [n, km, km, 1, 1, n, km]
        self._table = np.zeros((capacity, sum(self._splits)), dtype=np.float32)
        self._next = 0
        self._size = 0

    def __len__(self) -> int:
        """Return the number of stored transitions."""
        return self._size

    @property
    def capacity(self) -> int:
        """Number of rows."""
        return len(self._table)

    def add(self, transition: Transition) -> None:
        """Store a transition, over the oldest one when full."""
        np.concatenate(
            [
                transition.observation,
                transition.base_action,
                transition.executed_action,
                [transition.reward, 0.0 if transition.terminated else 1.0],
                transition.next_observation,
                transition.next_base_action,
            ],
            out=self._table[self._next],
            casting='same_kind',
        )
        self._next = (self._next + 1) % self.capacity
        self._size = min(self._size + 1, self.capacity)

    def observations(self) -> Tensor:
        """Return the stored observations, shape (size, n)."""
        return torch.from_numpy(self._table[: self._size, : self._splits[0]])

    def sample(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """Draw transitions uniformly with replacement.

        Raises:
            ReplayError: the buffer is empty.
        """
        if self._size == 0:
            raise ReplayError('cannot sample from an empty replay buffer')
        rows = torch.from_numpy(self._table[rng.integers(self._size, size=batch_size)])
        observation, base, executed, reward, bootstrap, next_observation, next_base = rows.split(
            self._splits, dim=1
        )
        return Batch(
            observation,
            base,
            executed,
            reward.squeeze(1),
            bootstrap.squeeze(1),
            next_observation,
            next_base,
        )

    def export(self) -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]:
        """Return the contents for a checkpoint."""
        return {'table': self._table[: self._size], 'next': np.array([self._next])}

    def restore(self, contents: dict[str, npt.NDArray[np.float32]]) -> None:
        """Load what `export` returned.

        Raises:
            ReplayError: the rows are of another layout or exceed the capacity.
        """
        table = contents['table']
        if table.ndim != 2 or table.shape[1] != self._table.shape[1] or len(table) > self.capacity:
            raise ReplayError(
                f'stored replay has shape {table.shape}, expected up to {self._table.shape}'
            )
        self._table[: len(table)] = table
        self._size = len(table)
        self._next = int(contents['next'][0])
