# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Units and order of the robot's numbers, as the first and the last layer of an imported policy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from residual_rl_ros.importing.mapping import MappedNumbers


class FromRobot(nn.Module):
    """Makes observations of the checkpoint of those of the robot."""

    index: Tensor
    gain: Tensor
    bias: Tensor

    def __init__(self, mapped: MappedNumbers) -> None:
        super().__init__()
        self.is_same = mapped.is_same
        self.register_buffer('index', torch.tensor(mapped.index))
        self.register_buffer('gain', torch.from_numpy(mapped.gain).float())
        self.register_buffer('bias', torch.from_numpy(mapped.bias).float())

    def forward(self, observation: Tensor) -> Tensor:
        """Return shape (..., numbers of the checkpoint) for (..., n)."""
        if self.is_same:
            return observation
        return observation.index_select(-1, self.index) * self.gain + self.bias


class ToRobot(nn.Module):
    """Makes actions of the robot of those of the checkpoint."""

    index: Tensor
    gain: Tensor
    bias: Tensor

    def __init__(self, mapped: MappedNumbers) -> None:
        super().__init__()
        self.is_same = mapped.is_same
        # Of each action of the robot its place in the checkpoint.
        inverse = [mapped.index.index(place) for place in range(len(mapped.names))]
        self.register_buffer('index', torch.tensor(inverse))
        self.register_buffer('gain', torch.from_numpy(1.0 / mapped.gain).float())
        self.register_buffer('bias', torch.from_numpy(-mapped.bias / mapped.gain).float())

    def forward(self, action: Tensor) -> Tensor:
        """Return shape (..., m) in units of the robot."""
        if self.is_same:
            return action
        return (action * self.gain + self.bias).index_select(-1, self.index)
