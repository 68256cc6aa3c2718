# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Small imitation policies for the shipped tasks: chunked behaviour cloning and diffusion.

Both take raw observations and return actions in command units: normalisation is inside, so the
exported graph is complete.
"""

from __future__ import annotations

import math
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
