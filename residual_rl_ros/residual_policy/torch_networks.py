# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The networks as torch trains them: observation normaliser, residual actor, critics.

The actor is a policy over one decision of k x m residual actions, bounded by tanh: a tanh-Gaussian
with a learned standard deviation (SAC), or deterministic with Gaussian exploration noise of a fixed
one (TD3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from residual_rl_ros.residual_policy.architecture import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    OBSERVATION_CLIP,
    ActorArchitecture,
)
from residual_rl_ros.residual_policy.numpy_actor import GaussianActor


def make_body(
    inputs: int,
    hidden_sizes: tuple[int, ...],
    linear: Callable[[int, int], nn.Module],
    normalization: Callable[[int], nn.Module] | None,
) -> tuple[Body, int]:
    """Return the hidden layers, as `architecture.body_layers` names them, and their last width."""
    layers: list[nn.Module] = []
    for width in hidden_sizes:
        layers.append(linear(inputs, width))
        if normalization is not None:
            layers.append(normalization(width))
        layers.append(nn.ReLU(inplace=True))
        inputs = width
    return Body(*layers), inputs


class Body(nn.Sequential):
    """Hidden layers, whose products of matrices may be computed in bfloat16.

    Weights and what comes out are of the precision of the input in any case.
    """

    in_bfloat16 = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the last hidden layer, (..., width), of inputs (..., inputs)."""
        # A cache of converted weights would outlive the optimiser's step.
        with torch.autocast(x.device.type, torch.bfloat16, self.in_bfloat16, cache_enabled=False):
            hidden = x
            for layer in self:
                hidden = layer(hidden)
        return hidden.to(x.dtype)


class Normalizer(nn.Module):
    """Standardises the last dimension with statistics fitted now and then.

    Args:
        size: number of features.
        min_std: floor of the standard deviation; keeps a constant feature finite.
        clip: bound on the normalised value.
    """

    mean: Tensor
    """Mean per feature, shape (size,)."""
    std: Tensor
    """Standard deviation per feature, shape (size,)."""

    def __init__(self, size: int, min_std: float = 1e-4, clip: float = 10.0) -> None:
        super().__init__()
        self._min_std = min_std
        self._clip = clip
        self.register_buffer('mean', torch.zeros(size))
        self.register_buffer('std', torch.ones(size))

    def fit(self, data: Tensor) -> None:
        """Take the statistics of data, shape (samples, size)."""
        self.mean.copy_(data.mean(0))
        self.std.copy_(data.std(0).clamp_min(self._min_std))

    def forward(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std, clipped, shape (..., size)."""
        return ((x - self.mean) / self.std).clamp(-self._clip, self._clip)


class ResidualActor(nn.Module):
    """Maps an observation (and base action) to a residual distribution.

    The observation normaliser and the base-action scaling are part of the module, so that an
    actor is complete in itself. It starts at almost no residual: orthogonal heads with gain 0.01
    (Policy Decorator, DAWN), or none: heads of zero if it is deterministic (ResFiT).

    Args:
        architecture: sizes.
    """

    action_center: Tensor
    action_half_range: Tensor
    residual_bound: Tensor
    active: Tensor

    def __init__(self, architecture: ActorArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.normalizer = Normalizer(architecture.observation_size, clip=OBSERVATION_CLIP)
        for name in ('action_center', 'action_half_range', 'residual_bound', 'active'):
            self.register_buffer(name, torch.tensor(getattr(architecture, name)), persistent=False)
        self.body, width = make_body(
            architecture.input_size,
            architecture.hidden_sizes,
            nn.Linear,
            nn.LayerNorm if architecture.layer_norm else None,
        )
        if architecture.exploration_std is None:
            self.heads = nn.Linear(width, 2 * architecture.outputs)
            nn.init.orthogonal_(self.heads.weight, gain=0.01)
        else:
            self.heads = nn.Linear(width, architecture.outputs)
            nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)

    def _hold(self, residual: Tensor) -> Tensor:
        """Repeat a held residual over the steps of its decision, to (..., k * m)."""
        repeats = self.architecture.repeats
        return torch.cat([residual] * repeats, dim=-1) if repeats > 1 else residual

    def as_residual(self, difference: Tensor) -> Tensor:
        """Return the residual that comes nearest to a difference of actions, (..., k * m).

        Args:
            difference: executed minus base action, command units, shape (..., k * m).
        """
        u = (difference / self.residual_bound.clamp_min(1e-6)).clamp(-1.0, 1.0)
        decided = u.view(*u.shape[:-1], self.architecture.repeats, -1).mean(-2)
        return self._hold(decided * self.active)

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

    def uniform(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return uniform residuals in [-1, 1], shape (*shape, k * m)."""
        residual = 2.0 * torch.rand(*shape, self.architecture.outputs, generator=generator) - 1.0
        return self._hold(residual.to(self.active) * self.active)

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
        noise = std * torch.randn(mean.shape, generator=generator).to(mean)
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
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        unbounded = mean + log_std.exp() * noise
        residual = torch.tanh(unbounded) * self.active
        gaussian = -0.5 * noise.pow(2) - log_std - 0.5 * math.log(2.0 * math.pi)
        # log(1 - tanh(u)^2), in the form that does not underflow.
        log_jacobian = 2.0 * (math.log(2.0) - unbounded - nn.functional.softplus(-2.0 * unbounded))
        return self._hold(residual), ((gaussian - log_jacobian) * self.active).sum(-1)

    def to_numpy(self) -> GaussianActor:
        """Return a copy of what the actor is now, as the robot runs it."""
        tensors = {name: value.cpu().numpy().copy() for name, value in self.state_dict().items()}
        return GaussianActor(self.architecture, tensors)


class EnsembleLinear(nn.Module):
    """`heads` independent linear layers in one batched product.

    Initialised as `nn.Linear` initialises each.

    Args:
        heads: number of ensemble members.
        inputs: input features.
        outputs: output features.
    """

    def __init__(self, heads: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(heads, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map (heads, batch, inputs) to (heads, batch, outputs)."""
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleLayerNorm(nn.Module):
    """Layer normalisation with an affine transform of its own for each ensemble member."""

    def __init__(self, heads: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, 1, features))
        self.bias = nn.Parameter(torch.zeros(heads, 1, features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of (heads, batch, features)."""
        normal = nn.functional.layer_norm(x, x.shape[-1:])
        return torch.addcmul(self.bias, normal, self.weight)


class Hypersphere(nn.Module):
    """Project the last dimension on the unit sphere, scaled to unit variance per feature.

    With the weight columns kept at length one (`Critic.project`) neither features nor weights can
    grow, after SimbaV2 (arXiv 2502.15280).

    Args:
        features: width of the layer; the projection is the same for all.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        del features

    def forward(self, x: Tensor) -> Tensor:
        """Return x / |x| * sqrt(features)."""
        return nn.functional.normalize(x, dim=-1) * math.sqrt(x.shape[-1])


class Critic(nn.Module):
    """Q(s, a) of an ensemble: Linear -> normalisation -> ReLU blocks and a linear head (DAWN, B.3).

    Args:
        heads: number of Q functions.
        inputs: features of (normalised observation, scaled executed action).
        hidden_sizes: widths of the hidden layers.
        normalization: of every hidden layer: `none`, `layer` or `hyperspherical`.
    """

    def __init__(
        self, heads: int, inputs: int, hidden_sizes: tuple[int, ...], normalization: str = 'layer'
    ) -> None:
        super().__init__()
        self.heads = heads
        self._on_sphere = normalization == 'hyperspherical'
        normalizations: dict[str, Callable[[int], nn.Module] | None] = {
            'none': None,
            'layer': partial(EnsembleLayerNorm, heads),
            'hyperspherical': Hypersphere,
        }
        self.body, width = make_body(
            inputs, hidden_sizes, partial(EnsembleLinear, heads), normalizations[normalization]
        )
        self.head = EnsembleLinear(heads, width, 1)
        self.project()

    def features(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the last hidden layer, shape (heads, batch, width)."""
        x = torch.cat([observation, action], dim=-1)
        hidden: Tensor = self.body(x.expand(self.heads, *x.shape))
        return hidden

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return Q, shape (heads, batch), of normalised observations and scaled actions."""
        q: Tensor = self.head(self.features(observation, action))
        return q.squeeze(-1)

    @torch.no_grad()
    def project(self) -> None:
        """Bring hidden weights back to the sphere; due after every optimiser step."""
        if self._on_sphere:
            for layer in self.body:
                if isinstance(layer, EnsembleLinear):
                    layer.weight.copy_(nn.functional.normalize(layer.weight, dim=1))


class FlatParameters:
    """The parameters of a network side by side in one tensor, of which they become views.

    Args:
        module: the network. A copy of it made later shares nothing with this, and what replaces
            its tensors (`to`, `load_state_dict(assign=True)`) takes it away from this.
        heads: size of the first dimension of every parameter, for an ensemble.
    """

    vector: nn.Parameter
    """Shape (heads, parameters of one head)."""

    def __init__(self, module: nn.Module, heads: int = 1) -> None:
        self._parameters = list(module.parameters())
        rows = [tensor.detach().reshape(heads, -1) for tensor in self._parameters]
        self.vector = nn.Parameter(torch.cat(rows, dim=1))
        pieces = torch.split(self.vector.detach(), [row.shape[1] for row in rows], dim=1)
        for tensor, piece in zip(self._parameters, pieces, strict=True):
            tensor.data = piece.view(tensor.shape)

    def differentiate(self, loss: Tensor, limit: float = math.inf) -> Tensor:
        """Set the gradient to that of a loss.

        Args:
            loss: a scalar.
            limit: largest norm of the gradient of a head.

        Returns:
            Norm of the gradient of each head before it was limited, shape (heads,).
        """
        heads = len(self.vector)
        gradients = torch.autograd.grad(loss, self._parameters)
        self.vector.grad = torch.cat([each.reshape(heads, -1) for each in gradients], dim=1)
        norms: Tensor = torch.linalg.vector_norm(self.vector.grad, dim=1)
        if (norms > limit).any():
            self.vector.grad *= (limit / norms).clamp_max(1.0).unsqueeze(1)
        return norms

    @torch.no_grad()
    def follow(self, fast: FlatParameters, step: float) -> None:
        """Move towards the parameters of another network by a share of the distance."""
        self.vector.lerp_(fast.vector, step)
