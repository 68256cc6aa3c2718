# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A small policy in the style of ACT: cameras in, a chunk of actions out, with a latent of style.

Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware", arXiv 2304.13705.
The transformer decoder attends to one token for each camera, the state and the latent; cameras are
seen as keypoints instead of the feature maps of a ResNet.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from residual_rl_ros.pretraining.base_networks import ChunkPolicy
from residual_rl_ros.pretraining.keypoints import Keypoints, keypoint_names

WIDTH, HEADS, LAYERS = 128, 4, 2
KEYPOINTS, CHANNELS = 12, 24
LATENT = 8
KL_WEIGHT = 0.01
"""Weight of the latent's divergence from the standard normal beside the error of a chunk, which is
at most 2."""


class ActPolicy(ChunkPolicy):
    """Conditional variational autoencoder of chunks; latent zero is its mode.

    Args:
        observation_size: size n of an observation.
        horizon: actions in a chunk.
        action_size: number of commands m.
        cameras: height and width of the pictures of each camera, by its name [px].
    """

    def __init__(
        self,
        observation_size: int,
        horizon: int,
        action_size: int,
        cameras: Mapping[str, tuple[int, int]],
    ) -> None:
        super().__init__(1, observation_size, horizon, action_size)
        self.cameras = dict(cameras)
        self.encoders = nn.ModuleList(
            Keypoints(KEYPOINTS, CHANNELS, size, stride=2) for size in cameras.values()
        )
        self.encoders.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.camera_tokens = nn.ModuleList(nn.Linear(2 * KEYPOINTS, WIDTH) for _ in cameras)
        self.state_token = nn.Linear(observation_size, WIDTH)
        self.latent_token = nn.Linear(LATENT, WIDTH)
        self.style = nn.Sequential(
            nn.Linear(observation_size + horizon * action_size, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, 2 * LATENT),
        )
        self.places = nn.Parameter(0.02 * torch.randn(2 + len(cameras), WIDTH))
        self.queries = nn.Parameter(0.02 * torch.randn(horizon, WIDTH))
        self.layers = nn.ModuleList(_DecoderLayer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, action_size)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features of each camera."""
        return keypoint_names(KEYPOINTS)

    def forward(self, observation: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Return a chunk (batch, horizon, m), then the features (batch, f) of each camera.

        Args:
            observation: shape (batch, 1, n).
            others: pictures of each camera, uint8 RGB, shape (batch, 1, height, width, 3), then the
                latent, shape (batch, LATENT).
        """
        *pictures, latent = others
        seen = self._see(pictures)
        chunk = self._decode(self.features(observation), seen, latent)
        return (self.denormalize_chunk(chunk), *seen)

    def loss(
        self, observation: Tensor, action: Tensor, generator: torch.Generator, *pictures: Tensor
    ) -> Tensor:
        """Return mean absolute error, in normalised units, and weighted divergence of the latent.

        Args:
            observation: shape (batch, 1, n).
            action: shape (batch, horizon, m).
            generator: draws the latent.
            pictures: as in `forward`.
        """
        state, target = self.features(observation), self.normalize_chunk(action)
        told: Tensor = self.style(torch.cat([state, target.flatten(1)], dim=1))
        mean, log_variance = told.chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator)
        latent = mean + (0.5 * log_variance).exp() * noise
        chunk = self._decode(state, self._see(pictures), latent)
        divergence = 0.5 * (mean.pow(2) + log_variance.exp() - 1.0 - log_variance).sum(1).mean()
        return (chunk - target).abs().mean() + KL_WEIGHT * divergence

    def _see(self, pictures: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
        """Return the features of the newest picture of each camera."""
        return [
            encoder(window[:, -1]) for encoder, window in zip(self.encoders, pictures, strict=True)
        ]

    def _decode(self, state: Tensor, seen: list[Tensor], latent: Tensor) -> Tensor:
        """Return the normalised chunk."""
        tokens = [self.state_token(state), self.latent_token(latent)]
        tokens += [token(each) for token, each in zip(self.camera_tokens, seen, strict=True)]
        memory = torch.stack(tokens, dim=1) + self.places
        x = self.queries.expand(state.shape[0], -1, -1)
        for layer in self.layers:
            x = layer(x, memory)
        chunk: Tensor = self.head(self.norm(x))
        return chunk


class _DecoderLayer(nn.Module):
    """Self-attention over the chunk, attention to what is seen, and a network, normalised first."""

    def __init__(self) -> None:
        super().__init__()
        self.among, self.across = _Attention(), _Attention()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.net = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        normal = self.norms[0](x)
        x = x + self.among(normal, normal)
        x = x + self.across(self.norms[1](x), memory)
        out: Tensor = x + self.net(self.norms[2](x))
        return out


class _Attention(nn.Module):
    """Multi-head attention in operators that every opset has."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        query, key, value = (
            each.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for each in (self.query(x), self.key(memory), self.value(memory))
        )
        weights = (query @ key.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        out: Tensor = self.out((weights @ value).transpose(1, 2).flatten(2))
        return out
