# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Behaviour cloning, an action for an observation: encoder, recurrent layers, perceptron, head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from residual_rl_ros.importing.networks.action_heads import Head
from residual_rl_ros.importing.networks.window_encoder import WindowEncoder

RECURRENT: dict[str, type[nn.LSTM] | type[nn.GRU]] = {'LSTM': nn.LSTM, 'GRU': nn.GRU}


class Trunk(nn.Module):
    """From features to the outputs of a head.

    Args:
        features: size of the features.
        widths: of the hidden layers.
        head: whose outputs it makes.
        recurrent: name of `RECURRENT`, None has no such layers.
        hidden: numbers of a recurrent layer.
        layers: how many there are.
    """

    def __init__(
        self,
        features: int,
        widths: Sequence[int],
        head: Head,
        recurrent: str | None = None,
        hidden: int = 0,
        layers: int = 0,
    ) -> None:
        super().__init__()
        self.rnn: nn.LSTM | nn.GRU | None = None
        size = features
        if recurrent is not None:
            self.rnn = RECURRENT[recurrent](features, hidden, layers, batch_first=True)
            size = hidden
        hidden_layers: list[nn.Module] = []
        for width in widths:
            hidden_layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        self.mlp = nn.Sequential(*hidden_layers)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(size, count) for name, count in head.sizes.items()}
        )

    @property
    def memories(self) -> int:
        """Return how many tensors the recurrent layers remember."""
        if self.rnn is None:
            return 0
        return 2 if isinstance(self.rnn, nn.LSTM) else 1

    def forward(
        self, features: Tensor, memory: Sequence[Tensor]
    ) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Return the outputs by name, and the next memory.

        Args:
            features: shape (batch, f).
            memory: of each tensor shape (batch, layers, hidden).
        """
        following: tuple[Tensor, ...] = ()
        if self.rnn is not None:
            states = tuple(each.transpose(0, 1).contiguous() for each in memory)
            state = states if isinstance(self.rnn, nn.LSTM) else states[0]
            sequence, after = self.rnn(features[:, None], state)
            features = sequence[:, 0]
            found = after if isinstance(after, tuple) else (after,)
            following = tuple(each.transpose(0, 1) for each in found)
        x = self.mlp(features)
        return {name: layer(x) for name, layer in self.heads.items()}, following


class StepPolicy(nn.Module):
    """The whole policy; inputs are observation, noise of the head, pictures, memory.

    Args:
        from_robot: first layer, of the state.
        encoder: of the observation.
        trunk: of its features.
        head: makes the action in [-1, 1].
        scale, offset: of the action after that, shape (m,).
        to_robot: last layer.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        from_robot: nn.Module,
        encoder: WindowEncoder,
        trunk: Trunk,
        head: Head,
        scale: Tensor,
        offset: Tensor,
        to_robot: nn.Module,
    ) -> None:
        super().__init__()
        self.from_robot, self.encoder, self.trunk = from_robot, encoder, trunk
        self.head, self.to_robot = head, to_robot
        self.register_buffer('scale', scale)
        self.register_buffer('offset', offset)

    def forward(self, observation: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Return action (batch, 1, m), the next memory, the features of each camera."""
        rest = list(others)
        noise = rest.pop(0) if self.head.noise else None
        count = len(self.encoder.cameras)
        features, seen = self.encoder(self.from_robot(observation), rest[:count])
        outputs, memory = self.trunk(torch.flatten(features, 1), rest[count:])
        action = self.head(outputs, noise) * self.scale + self.offset
        return (self.to_robot(action[:, None]), *memory, *seen)
