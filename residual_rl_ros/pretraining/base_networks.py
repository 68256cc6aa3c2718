# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Small imitation policies for the shipped tasks: behaviour cloning, diffusion and ACT, in chunks.

All take raw observations and return actions in command units: normalisation is inside, so the
exported graph is complete. Keypoints are those of Levine et al., arXiv 1504.00702. ACT is that of
Zhao et al., arXiv 2304.13705: its decoder attends to one token for each camera, the state and the
latent, and sees cameras as keypoints instead of the feature maps of a ResNet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from residual_rl_ros.residual_policy.torch_networks import Normalizer


class ChunkPolicy(nn.Module):
    """Normalisation shared by all policies.

    Args:
        n_obs_steps: observations in the input window.
        observation_size: size n of an observation.
        horizon: actions in a chunk.
        action_size: number of commands m.
    """

    action_center: Tensor
    action_half_range: Tensor

    def __init__(
        self, n_obs_steps: int, observation_size: int, horizon: int, action_size: int
    ) -> None:
        super().__init__()
        self.window_size = n_obs_steps * observation_size
        self.horizon = horizon
        self.action_size = action_size
        self.normalizer = Normalizer(observation_size, clip=5.0)
        self.register_buffer('action_center', torch.zeros(action_size))
        self.register_buffer('action_half_range', torch.ones(action_size))

    def fit(self, observations: Tensor, actions: Tensor) -> None:
        """Take the normalisation from the training data, shapes (samples, n) and (samples, m)."""
        self.normalizer.fit(observations)
        low, high = actions.amin(0), actions.amax(0)
        self.action_center.copy_((low + high) / 2)
        self.action_half_range.copy_(((high - low) / 2).clamp_min(1e-3))

    def features(self, observation: Tensor) -> Tensor:
        """Return the normalised window, flattened to (batch, n_obs_steps * n)."""
        normal: Tensor = self.normalizer(observation)
        return normal.reshape(-1, self.window_size)

    def normalize_chunk(self, action: Tensor) -> Tensor:
        """Return an action chunk in [-1, 1]."""
        return (action - self.action_center) / self.action_half_range

    def denormalize_chunk(self, chunk: Tensor) -> Tensor:
        """Return command units; never outside the range of the training data."""
        return self.action_center + self.action_half_range * chunk.clamp(-1.0, 1.0)


class BcPolicy(ChunkPolicy):
    """Chunked behaviour cloning: one MLP from the window to the chunk, L1 loss as in ACT."""

    def __init__(
        self,
        n_obs_steps: int,
        observation_size: int,
        horizon: int,
        action_size: int,
        width: int = 256,
    ) -> None:
        super().__init__(n_obs_steps, observation_size, horizon, action_size)
        self.net = nn.Sequential(
            nn.Linear(self.window_size, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, horizon * action_size),
        )

    def forward(self, observation: Tensor) -> Tensor:
        """Return a chunk (batch, horizon, m) for windows (batch, n_obs_steps, n)."""
        chunk = self.net(self.features(observation)).reshape(-1, self.horizon, self.action_size)
        return self.denormalize_chunk(chunk)

    def loss(self, observation: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean absolute error in normalised units."""
        del generator  # Deterministic; the diffusion policy needs it.
        chunk = self.net(self.features(observation)).reshape(-1, self.horizon, self.action_size)
        loss: Tensor = (chunk - self.normalize_chunk(action)).abs().mean()
        return loss


class _Block(nn.Module):
    """Residual MLP block modulated by the condition (FiLM)."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.film = nn.Linear(condition, 2 * width)
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition).chunk(2, dim=-1)
        out: Tensor = self.linear(nn.functional.silu(self.norm(x) * (1.0 + scale) + shift))
        return x + out


class DiffusionPolicy(ChunkPolicy):
    """Diffusion over the whole chunk; predicts the clean chunk, sampled by unrolled DDIM.

    Chi et al., "Diffusion Policy", arXiv 2303.04137; cosine schedule of Nichol and Dhariwal,
    arXiv 2102.09672; DDIM (eta = 0) of Song et al., arXiv 2010.02502.
    """

    TRAIN_STEPS = 100
    TIME_FEATURES = 16
    alpha_bar: Tensor
    """Share of signal variance left after t noise steps, shape (TRAIN_STEPS + 1,)."""

    def __init__(
        self,
        n_obs_steps: int,
        observation_size: int,
        horizon: int,
        action_size: int,
        width: int = 192,
        blocks: int = 3,
        ddim_steps: int = 6,
    ) -> None:
        super().__init__(n_obs_steps, observation_size, horizon, action_size)
        t = torch.arange(self.TRAIN_STEPS + 1) / self.TRAIN_STEPS
        alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2).pow(2)
        self.register_buffer('alpha_bar', (alpha_bar / alpha_bar[0]).clamp(1e-4, 1.0))
        # Python numbers, so that the exported graph holds them as constants.
        self._schedule = [
            (step, float(self.alpha_bar[step]))
            for step in (
                round(self.TRAIN_STEPS * (1.0 - i / ddim_steps)) for i in range(ddim_steps + 1)
            )
        ]
        self.condition = nn.Sequential(
            nn.Linear(self.window_size + self.TIME_FEATURES, width), nn.SiLU()
        )
        self.encode = nn.Linear(horizon * action_size, width)
        self.blocks = nn.ModuleList(_Block(width, width) for _ in range(blocks))
        self.decode = nn.Linear(width, horizon * action_size)

    def denoise(self, noisy: Tensor, t: Tensor, features: Tensor) -> Tensor:
        """Predict the clean chunk, (batch, horizon * m), from a noisy one at step t, (batch,)."""
        frequencies = torch.exp(
            torch.arange(self.TIME_FEATURES // 2) * (-math.log(1000.0) / (self.TIME_FEATURES // 2))
        )
        phase = t[:, None].float() * frequencies
        condition = self.condition(torch.cat([features, phase.sin(), phase.cos()], dim=-1))
        x = self.encode(noisy)
        for block in self.blocks:
            x = block(x, condition)
        clean: Tensor = self.decode(x)
        return clean

    def forward(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Return a chunk (batch, horizon, m).

        Args:
            observation: shape (batch, n_obs_steps, n).
            noise: standard normal, shape (batch, horizon, m).
        """
        features = self.features(observation)
        x = noise.reshape(-1, self.horizon * self.action_size)
        for (step, signal), (_, target) in pairwise(self._schedule):
            t = torch.full((1,), float(step)).expand(features.shape[0])
            clean = self.denoise(x, t, features).clamp(-1.0, 1.0)
            epsilon = (x - math.sqrt(signal) * clean) / math.sqrt(1.0 - signal)
            x = math.sqrt(target) * clean + math.sqrt(1.0 - target) * epsilon
        return self.denormalize_chunk(x.reshape(-1, self.horizon, self.action_size))

    def loss(self, observation: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean squared error of the predicted clean chunk, in normalised units."""
        clean = self.normalize_chunk(action).flatten(1)
        t = torch.randint(1, self.TRAIN_STEPS + 1, (len(clean),), generator=generator)
        signal = self.alpha_bar[t][:, None]
        noise = torch.randn(clean.shape, generator=generator)
        noisy = signal.sqrt() * clean + (1.0 - signal).sqrt() * noise
        return (self.denoise(noisy, t, self.features(observation)) - clean).pow(2).mean()


class Keypoints(nn.Module):
    """Image to keypoints in [-1, 1]: where each feature map of a small network is bright.

    Args:
        keypoints: feature maps of the last layer.
        channels: feature maps of the hidden layers.
        size: height and width of the image, even [px].
        stride: of the second layer; 2 is faster and, with the same features, coarser.
    """

    grid: Tensor
    """Horizontal and vertical coordinate of every cell, shape (2, cells)."""

    def __init__(
        self, keypoints: int, channels: int, size: tuple[int, int], stride: int = 1
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *_block(3, channels, 5, stride=2, padding=2),
            *_block(channels, channels, 3, stride=stride, padding=1),
            *_block(channels, channels, 3, padding=2, dilation=2),
            nn.Conv2d(channels, keypoints, 1),
        )
        v, u = torch.meshgrid(
            torch.linspace(-1.0, 1.0, size[0] // 2 // stride),
            torch.linspace(-1.0, 1.0, size[1] // 2 // stride),
            indexing='ij',
        )
        self.register_buffer('grid', torch.stack([u.flatten(), v.flatten()]))

    def forward(self, image: Tensor) -> Tensor:
        """Return features (batch, 2 * keypoints), u and v of each, of uint8 RGB images.

        Args:
            image: shape (batch, height, width, 3).
        """
        x = image.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        weights = self.net(x).flatten(2).softmax(-1)
        keypoints: Tensor = weights @ self.grid.T
        return keypoints.flatten(1)


def keypoint_names(keypoints: int) -> tuple[str, ...]:
    """Return the names of what `Keypoints` returns."""
    return tuple(f'keypoint{index}.{axis}' for index in range(keypoints) for axis in 'uv')


def _block(inputs: int, outputs: int, kernel: int, **options: int) -> tuple[nn.Module, ...]:
    """Return convolution, batch normalisation (folded away in the exported graph) and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)  # type: ignore[arg-type]
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


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
        cameras: height and width of the images of each camera, by its name [px].
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
            others: images of each camera, uint8 RGB, shape (batch, 1, height, width, 3), then the
                latent, shape (batch, LATENT).
        """
        *images, latent = others
        seen = self._see(images)
        chunk = self._decode(self.features(observation), seen, latent)
        return (self.denormalize_chunk(chunk), *seen)

    def loss(
        self, observation: Tensor, action: Tensor, generator: torch.Generator, *images: Tensor
    ) -> Tensor:
        """Return mean absolute error, in normalised units, and weighted divergence of the latent.

        Args:
            observation: shape (batch, 1, n).
            action: shape (batch, horizon, m).
            generator: draws the latent.
            images: as in `forward`.
        """
        state, target = self.features(observation), self.normalize_chunk(action)
        told: Tensor = self.style(torch.cat([state, target.flatten(1)], dim=1))
        mean, log_variance = told.chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator)
        latent = mean + (0.5 * log_variance).exp() * noise
        chunk = self._decode(state, self._see(images), latent)
        divergence = 0.5 * (mean.pow(2) + log_variance.exp() - 1.0 - log_variance).sum(1).mean()
        return (chunk - target).abs().mean() + KL_WEIGHT * divergence

    def _see(self, images: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
        """Return the features of the newest image of each camera."""
        return [
            encoder(window[:, -1]) for encoder, window in zip(self.encoders, images, strict=True)
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
