# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Transitions that were sampled from a replay buffer, as an update takes them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


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
    """Discounted sum over the j <= n_step decisions that follow, shape (batch,)."""
    reward_weight: Tensor
    """What a constant of 1 per decision adds up to: the discounts in `reward` and, after an episode
    that terminated as a failure, all that follow for ever."""
    bootstrap: Tensor
    """gamma^j, 0 if the last transition terminated (a truncation bootstraps), shape (batch,)."""
    next_observation: Tensor
    """Observation after the j decisions, shape (batch, n)."""
    next_base_action: Tensor
    """Base action at that observation, shape (batch, k * m)."""
    prior: Tensor
    """Density of the base action, shape (batch, P)."""
    proposals: Tensor
    """What else the base policy would have done, shape (batch, (N - 1) * k * m)."""
    next_prior: Tensor
    """Density of the next base action, shape (batch, P)."""
    next_proposals: Tensor
    """Shape (batch, (N - 1) * k * m)."""
    row: npt.NDArray[np.int64]
    """Row of the buffer, shape (batch,)."""
    n_step: int = 1
    """Decisions that a `reward` sums at most."""
    demonstrations: int = 0
    """How many of the last ones are demonstrations."""

    def to(self, device: torch.device) -> Batch:
        """Return it on a device; itself if it is there."""
        if self.observation.device == device:
            return self
        moved: dict[str, Any] = {name: each.to(device) for name, each in self.tensors.items()}
        return replace(self, **moved)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Everything but `row`, `n_step` and `demonstrations`, by name."""
        names = [field.name for field in fields(Batch)]
        others = ('row', 'n_step', 'demonstrations')
        return {n: getattr(self, n) for n in names if n not in others}

    @staticmethod
    def with_demonstrations(first: Batch, second: Batch) -> Batch:
        """Return one batch, the second of which is demonstrations; `row` is of each buffer."""
        others = second.tensors
        tensors = {name: torch.cat([own, others[name]]) for name, own in first.tensors.items()}
        row = np.concatenate([first.row, second.row])
        return Batch(row=row, n_step=first.n_step, demonstrations=len(second.row), **tensors)
