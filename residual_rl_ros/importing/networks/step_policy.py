# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Behaviour cloning, an action for an observation: encoder, recurrent layers, perceptron, head.

A head that draws takes its randomness as an input, standard normal: zero gives the mean, or the
mean of the most likely component.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from residual_rl_ros.importing.networks.window_encoder import WindowEncoder

Activation = Callable[[Tensor], Tensor]
LOW_NOISE_STD = 1e-4
"""What robomimic takes for the standard deviation at test time (`low_noise_eval`)."""
MEAN_LIMIT = 9.0
STD_LIMITS = (0.007, 7.5)
"""Range of the outputs of a Gaussian."""
SMALLEST_SHARE = 1e-6
"""Uniform numbers are kept so far from 0 and 1, where their Gumbel noise is infinite."""


class Head(nn.Module):
    """What all heads have."""

    sizes: Mapping[str, int]
    """Numbers of each output of the network, by its name."""
    noise: int = 0
    """Numbers of noise that it takes."""


class TanhHead(Head):
    """One output, squashed."""

    def __init__(self, actions: int) -> None:
        super().__init__()
        self.sizes = {'action': actions}

    def forward(self, outputs: Mapping[str, Tensor], noise: Tensor | None) -> Tensor:
        """Return actions (batch, m)."""
        return torch.tanh(outputs['action'])


class GaussianHead(Head):
    """Mean and standard deviation.

    Args:
        actions: m.
        std: of its outputs; None takes the mean alone.
    """

    def __init__(self, actions: int, std: Activation | None) -> None:
        super().__init__()
        self.sizes = {'mean': actions, 'scale': actions}
        self.std = std
        self.noise = 0 if std is None else actions

    def forward(self, outputs: Mapping[str, Tensor], noise: Tensor | None) -> Tensor:
        """Return actions (batch, m), of noise (batch, m)."""
        mean = torch.tanh(outputs['mean'].clamp(-MEAN_LIMIT, MEAN_LIMIT))
        if self.std is None or noise is None:
            return mean
        return mean + self.std(outputs['scale']).clamp(*STD_LIMITS) * noise


class MixtureHead(Head):
    """Several Gaussians and their logits.

    The component is the largest of logits plus Gumbel noise, which draws it with its probability
    (Maddison et al., arXiv 1411.0030).

    Args:
        actions: m.
        modes: components.
        std: of its outputs; None takes `LOW_NOISE_STD`.
    """

    def __init__(self, actions: int, modes: int, std: Activation | None) -> None:
        super().__init__()
        self.sizes = {'mean': modes * actions, 'scale': modes * actions, 'logits': modes}
        self.modes, self.std = modes, std
        self.noise = modes + actions

    def forward(self, outputs: Mapping[str, Tensor], noise: Tensor | None) -> Tensor:
        """Return actions (batch, m), of noise (batch, modes + m)."""
        assert noise is not None
        shape = (-1, self.modes, self.sizes['mean'] // self.modes)
        means = torch.tanh(outputs['mean']).reshape(shape)
        choice = outputs['logits'] + gumbel(noise[:, : self.modes])
        index = choice.argmax(dim=1)[:, None, None].expand(-1, 1, means.shape[2])
        mean: Tensor = means.gather(1, index)[:, 0]
        if self.std is None:
            return mean + LOW_NOISE_STD * noise[:, self.modes :]
        std = self.std(outputs['scale']).reshape(shape).gather(1, index)[:, 0]
        return mean + std * noise[:, self.modes :]


def gumbel(normal: Tensor) -> Tensor:
    """Return Gumbel noise of standard normal noise."""
    share = 0.5 * (1.0 + torch.erf(normal / math.sqrt(2.0)))
    return -torch.log(-torch.log(share.clamp(SMALLEST_SHARE, 1.0 - SMALLEST_SHARE)))


def scaled_softplus(init_std: float) -> Activation:
    """Return the softplus that is `init_std` at 0."""
    factor = init_std / math.log(2.0)
    return lambda x: functional.softplus(x) * factor


def constant(value: float) -> Activation:
    """Return the activation that is always the same."""
    return lambda x: torch.full_like(x, value)


def shifted(activation: str, least: float) -> Activation:
    """Return softplus or exp, at least `least`."""
    function: Activation = torch.exp if activation == 'exp' else functional.softplus
    return lambda x: function(x) + least


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
    """The whole policy; inputs are observation, noise of the head, images, memory.

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
