# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The residual actor: a policy over one decision of k x m residual actions, bounded by tanh.

It is a tanh-Gaussian with a learned standard deviation (SAC), or deterministic with Gaussian
exploration noise of a fixed one (TD3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from residual_rl_ros.networks.inference import forward, values
from residual_rl_ros.networks.normalization import Normalizer
from residual_rl_ros.spec import TransitionLayout

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


@dataclass(frozen=True)
class ActorArchitecture:
    """All that is needed to rebuild an actor; travels with its weights."""

    observation_size: int
    """Size n of the observation."""
    decision_size: int
    """Size k * m of the residual."""
    hidden_sizes: tuple[int, ...]
    """Widths of the hidden layers."""
    sees_base_action: bool
    """Whether the base action of the decision is an input too."""
    outputs: int
    """Size of the residual that is decided: k * m, or m if it is held over the k steps."""
    layer_norm: bool = False
    """LayerNorm before every activation."""
    exploration_std: float | None = None
    """Standard deviation of the noise added after tanh; None learns one before tanh instead."""

    def __post_init__(self) -> None:
        """Check that every size is a positive integer and that they fit.

        Raises:
            ValueError: one is not; weight messages come from outside.
        """
        sizes = (self.observation_size, self.decision_size, self.outputs, *self.hidden_sizes)
        if not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError(f'actor sizes are {sizes}, expected positive integers')
        if self.decision_size % self.outputs:
            raise ValueError(f'{self.outputs} outputs do not divide {self.decision_size}')
        for name in ('sees_base_action', 'layer_norm'):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f'{name} is {getattr(self, name)!r}, expected a boolean')
        std = self.exploration_std
        if std is not None and not (type(std) is float and math.isfinite(std) and std >= 0.0):
            raise ValueError(f'exploration_std is {std!r}, expected a number >= 0 or null')


class ResidualActor(nn.Module):
    """Maps an observation (and base action) to a residual distribution.

    The observation normaliser and the base-action scaling are part of the module, so that an
    actor is complete in itself. It starts at almost no residual: orthogonal heads with gain 0.01
    (Policy Decorator, DAWN), or none: heads of zero if it is deterministic (ResFiT).

    Args:
        architecture: sizes.
    """

    action_center: Tensor
    """Centre of the base policy's trained actions, repeated k times, shape (k * m,)."""
    action_half_range: Tensor
    """Half range of the base policy's trained actions, repeated k times, shape (k * m,)."""
    active: Tensor
    """1 where the residual has a bound, 0 where it has none, shape (outputs,). An output without
    effect must not count in the entropy."""

    def __init__(self, architecture: ActorArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        km = architecture.decision_size
        self.normalizer = Normalizer(architecture.observation_size)
        self.register_buffer('action_center', torch.zeros(km))
        self.register_buffer('action_half_range', torch.ones(km))
        self.register_buffer('active', torch.ones(architecture.outputs))
        width = architecture.observation_size + (km if architecture.sees_base_action else 0)
        layers: list[nn.Module] = []
        for hidden in architecture.hidden_sizes:
            layers.append(nn.Linear(width, hidden))
            if architecture.layer_norm:
                layers.append(nn.LayerNorm(hidden))
            layers.append(nn.ReLU())
            width = hidden
        self.body = nn.Sequential(*layers)
        if architecture.exploration_std is None:
            self.heads = nn.Linear(width, 2 * architecture.outputs)
            nn.init.orthogonal_(self.heads.weight, gain=0.01)
        else:
            self.heads = nn.Linear(width, architecture.outputs)
            nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)

    @property
    def _repeats(self) -> int:
        return self.architecture.decision_size // self.architecture.outputs

    def _hold(self, residual: Tensor) -> Tensor:
        """Repeat a held residual over the steps of its decision, to (batch, k * m)."""
        return residual.repeat(1, self._repeats) if self._repeats > 1 else residual

    def set_action_range(self, layout: TransitionLayout) -> None:
        """Take the base policy's action range and the dimensions that have a residual."""
        low, high = torch.tensor(layout.action_min), torch.tensor(layout.action_max)
        steps = layout.decision_steps
        self.action_center.copy_(((low + high) / 2).repeat(steps))
        # A dimension that the base never uses is constant; the floor keeps its input finite.
        self.action_half_range.copy_(((high - low) / 2).clamp_min(1e-3).repeat(steps))
        bounded = (torch.tensor(layout.residual_bound) > 0.0).float()
        self.active.copy_(bounded.repeat(self.architecture.outputs // len(low)))

    def set_initial_std(self, std: float) -> None:
        """Start with this standard deviation before tanh, whatever the observation."""
        share = 2.0 * (math.log(std) - LOG_STD_MIN) / (LOG_STD_MAX - LOG_STD_MIN) - 1.0
        with torch.no_grad():
            self.heads.bias[self.architecture.outputs :] = math.atanh(share)

    def scale_action(self, action: Tensor) -> Tensor:
        """Return an action (..., k * m) in units of the trained half range."""
        return (action - self.action_center) / self.action_half_range

    def forward(self, observation: Tensor, base_action: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return mean and log standard deviation before tanh, each (batch, outputs).

        Args:
            observation: shape (batch, n), not normalised.
            base_action: shape (batch, k * m), command units.

        Returns:
            The log standard deviation is None for a deterministic actor.
        """
        x = self.normalizer(observation)
        if self.architecture.sees_base_action:
            x = torch.cat([x, self.scale_action(base_action)], dim=-1)
        out = self.heads(self.body(x))
        if self.architecture.exploration_std is not None:
            return out, None
        mean, log_std = out.chunk(2, dim=-1)
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(log_std) + 1.0)
        return mean, log_std

    def mean_action(self, observation: Tensor, base_action: Tensor) -> Tensor:
        """Return tanh(mean), differentiable, shape (batch, k * m)."""
        mean, _ = self(observation, base_action)
        return self._hold(torch.tanh(mean) * self.active)

    def noisy_action(
        self,
        observation: Tensor,
        base_action: Tensor,
        std: float,
        clip: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Return tanh(mean) with clipped Gaussian noise, shape (batch, k * m) (TD3)."""
        mean, _ = self(observation, base_action)
        noise = std * torch.randn(mean.shape, generator=generator)
        residual = (torch.tanh(mean) + noise.clamp(-clip, clip)).clamp(-1.0, 1.0)
        return self._hold(residual * self.active)

    def sample(
        self, observation: Tensor, base_action: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return a reparameterised residual (batch, k * m) and its log probability (batch,).

        Raises:
            TypeError: the actor is deterministic and has no probability.
        """
        mean, log_std = self(observation, base_action)
        if log_std is None:
            raise TypeError('a deterministic actor cannot be sampled; use noisy_action')
        noise = torch.randn(mean.shape, generator=generator)
        unbounded = mean + log_std.exp() * noise
        residual = torch.tanh(unbounded) * self.active
        gaussian = -0.5 * noise.pow(2) - log_std - 0.5 * math.log(2.0 * math.pi)
        # log(1 - tanh(u)^2), in the form that does not underflow.
        log_jacobian = 2.0 * (math.log(2.0) - unbounded - nn.functional.softplus(-2.0 * unbounded))
        return self._hold(residual), ((gaussian - log_jacobian) * self.active).sum(-1)

    def act(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        noise_scale: float = 1.0,
    ) -> npt.NDArray[np.float64]:
        """Return one residual action, shape (k * m,), in [-1, 1].

        Args:
            observation: shape (n,).
            base_action: base action of the decision, flattened to (k * m,).
            rng: source of the exploration noise; None returns tanh(mean).
            noise_scale: factor on the noise.
        """
        x = self.normalizer.normalize(np.asarray(observation, dtype=np.float32))
        if self.architecture.sees_base_action:
            base = np.asarray(base_action, dtype=np.float32) - values(self.action_center)
            x = np.concatenate([x, base / values(self.action_half_range)])
        out = forward((*self.body, self.heads), x).astype(np.float64)
        center, spread = np.split(out, [self.architecture.outputs])
        if rng is None:
            return self._tile(np.tanh(center))
        noise = noise_scale * rng.standard_normal(center.shape)
        if self.architecture.exploration_std is not None:
            noise *= self.architecture.exploration_std
            return self._tile(np.clip(np.tanh(center) + noise, -1.0, 1.0))
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (np.tanh(spread) + 1.0)
        return self._tile(np.tanh(center + np.exp(log_std) * noise))

    def uniform(self, half_width: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """Return one uniform residual in [-half_width, half_width], shape (k * m,)."""
        return self._tile(rng.uniform(-half_width, half_width, self.architecture.outputs))

    def _tile(self, residual: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.tile(residual * values(self.active), self._repeats)
