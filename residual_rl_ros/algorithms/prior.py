# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""log pi(a|s) of a base policy, differentiable in the action: what customisation adds to a reward.

The base tells a flat block of numbers for each decision (`robot.prior.Prior`); here they
become a density over its k x m actions. Control steps and dimensions are independent of each other.
The same class is the density of a policy that is learned as a change of such a block.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.perceptron import (
    CategoricalArchitecture,
    PriorGaussianArchitecture,
)
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.residual_policy.torch_perceptron import (
    CategoricalNetwork,
    PriorGaussianNetwork,
)
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.transitions.layout import TransitionLayout

EDGE = 1e-6
"""Nearest that a squashed action comes to the ends of its range, as a share of the half range:
there tanh has no inverse, and float32 no more digits."""
LOG_STD_LIMIT = 20.0
"""Largest log standard deviation, either sign, that is told apart; beyond it float32 overflows."""
HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)


class Density(nn.Module):
    """pi(a|s) over the actions of a decision.

    Args:
        layout: sizes, and the trained range to which tanh is scaled.
        kind: of the density; None takes that of the layout.

    Raises:
        ConfigError: there is none.
    """

    centre: Tensor
    half_range: Tensor
    bound: Tensor

    def __init__(self, layout: TransitionLayout, kind: Prior | None = None) -> None:
        super().__init__()
        self.kind = layout.prior if kind is None else kind
        if self.kind is Prior.NONE:
            raise ConfigError(
                'the base policy tells no density of its actions, and prior_weight is above 0: '
                'give its ONNX model the outputs mean and log_std, or logits; or set the width of '
                'a Gaussian around its action, prior_width, in the run'
            )
        self.steps, self.actions = layout.decision_steps, layout.action_size
        low, high = (
            torch.tensor(values, dtype=torch.float64).repeat(self.steps)
            for values in (layout.action_min, layout.action_max)
        )
        self.register_buffer('centre', (0.5 * (low + high)).float(), persistent=False)
        self.register_buffer('half_range', (0.5 * (high - low)).float(), persistent=False)
        bound = torch.tensor(layout.residual_bound).repeat(self.steps).float()
        self.register_buffer('bound', bound, persistent=False)

    @property
    def size(self) -> int:
        """Number P of values in a block."""
        return self.kind.size(self.steps * self.actions)

    # --- Gaussian kinds: z is the action itself, or what tanh squashes

    def moments(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of z, each (..., k * m), of a block (..., P)."""
        mean, log_std = block.chunk(2, dim=-1)
        return mean, log_std.clamp(-LOG_STD_LIMIT, LOG_STD_LIMIT)

    def to_action(self, z: Tensor) -> Tensor:
        """Return the action of z, shape (..., k * m), command units."""
        if self.kind is Prior.GAUSSIAN:
            return z
        return self.centre + self.half_range * torch.tanh(z)

    def from_action(self, action: Tensor) -> Tensor:
        """Return z of an action (..., k * m); what is at the edge or beyond counts as `EDGE`."""
        if self.kind is Prior.GAUSSIAN:
            return action
        x = (action - self.centre) / self.half_range.clamp_min(EDGE)
        return torch.atanh(x.clamp(EDGE - 1.0, 1.0 - EDGE))

    def executed(self, action: Tensor, base_action: Tensor, seen: tuple[Tensor, Tensor]) -> Tensor:
        """Return what a robot executes of an action, shape (..., k * m).

        That is within the residual bound of the base action, and in the trained range or as far
        outside of it as the base action is, or as any action was that a robot has executed. Limits
        of robots are no part of a layout: what they have executed is all that is known of them.

        Args:
            action: command units.
            base_action: command units.
            seen: smallest and largest executed action, see `ReplayBuffer.executed_range`.
        """
        difference = torch.minimum((action - base_action).maximum(-self.bound), self.bound)
        least, most = (each.to(action) for each in seen)
        low = torch.minimum(self.centre - self.half_range, base_action).minimum(least)
        high = torch.maximum(self.centre + self.half_range, base_action).maximum(most)
        return torch.minimum((base_action + difference).maximum(low), high)

    def log_prob_of(self, block: Tensor, z: Tensor, end: Tensor | None = None) -> Tensor:
        """Return log pi of the action of z, shape (...,): exact at the edge too.

        Squashed: log N(z) - log |da/dz| with da/dz = half range * (1 - tanh(z)^2). A dimension that
        the base never moves, or the residual may not, is not decided, and counts as 0.

        Args:
            block: blocks, shape (..., P).
            z: shape (..., k * m).
            end: 1 or -1 where z is the upper or lower end of what the residual bound permits, and
                stands for all that the policy draws beyond it (log Phi instead of log N); else 0.
        """
        mean, log_std = self.moments(block)
        each = -0.5 * ((z - mean) * torch.exp(-log_std)).square() - log_std - HALF_LOG_TAU
        if self.kind is Prior.SQUASHED_GAUSSIAN:
            moves = self.half_range > 0.0
            # log(1 - tanh(z)^2), in the form that does not underflow.
            slope = 2.0 * (math.log(2.0) - z - nn.functional.softplus(-2.0 * z))
            scale = torch.where(moves, self.half_range, 1.0).log()
            each = each - slope - scale
        if end is not None:
            beyond = torch.special.log_ndtr(end * (mean - z) * torch.exp(-log_std))
            each = torch.where(end == 0.0, each, beyond)
        return torch.where(self.bound > 0.0, each, 0.0).sum(-1)

    def draw(self, block: Tensor, generator: torch.Generator) -> Tensor:
        """Return a reparameterised z, shape (..., k * m)."""
        mean, log_std = self.moments(block)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        return mean + log_std.exp() * noise

    # --- categorical: an action is k one-hot vectors of m

    def log_probs(self, block: Tensor) -> Tensor:
        """Return log pi of each of the m actions of every step, shape (..., k, m)."""
        return block.reshape(*block.shape[:-1], self.steps, self.actions).log_softmax(-1)

    # --- every kind

    def log_prob(self, block: Tensor, action: Tensor, end: Tensor | None = None) -> Tensor:
        """Return log pi(a|s), shape (...,), differentiable in both.

        Args:
            block: blocks, shape (..., P).
            action: shape (..., k * m), command units; one-hot vectors if categorical.
            end: see `log_prob_of`; it says nothing of one-hot vectors.
        """
        if self.kind is Prior.CATEGORICAL:
            return (self.log_probs(block).flatten(-2) * action).sum(-1)
        return self.log_prob_of(block, self.from_action(action), end)

    def sample(self, block: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return an action (..., k * m), reparameterised if Gaussian, and log pi of it (...,)."""
        if self.kind is Prior.CATEGORICAL:
            log_probs = self.log_probs(block)
            weights = log_probs.exp().reshape(-1, self.actions)
            chosen = torch.multinomial(weights.cpu(), 1, generator=generator).view(
                log_probs.shape[:-1]
            )
            one_hot = nn.functional.one_hot(chosen, self.actions).to(log_probs)
            return one_hot.flatten(-2), (log_probs * one_hot).sum((-2, -1))
        z = self.draw(block, generator)
        return self.to_action(z), self.log_prob_of(block, z)

    def mode(self, block: Tensor) -> Tensor:
        """Return the action of the mean, or the likeliest if categorical, shape (..., k * m)."""
        if self.kind is Prior.CATEGORICAL:
            best = self.log_probs(block).argmax(-1)
            return nn.functional.one_hot(best, self.actions).to(block).flatten(-2)
        return self.to_action(self.moments(block)[0])

    def entropy(self, block: Tensor) -> Tensor:
        """Return the entropy of a decision, shape (...,) [nat].

        Raises:
            ConfigError: that of a squashed Gaussian has no closed form; take -log pi of samples.
        """
        if self.kind is Prior.CATEGORICAL:
            log_probs = self.log_probs(block)
            return -(log_probs.exp() * log_probs).sum((-2, -1))
        if self.kind is Prior.SQUASHED_GAUSSIAN:
            raise ConfigError('the entropy of a squashed Gaussian has no closed form; sample it')
        each = self.moments(block)[1] + HALF_LOG_TAU + 0.5
        return torch.where(self.bound > 0.0, each, 0.0).sum(-1)


class CustomisedActor(nn.Module):
    """pi^(a|s): the density of the base policy, its block changed by a network, at first by zero.

    A base policy without density has a wide one instead: a Gaussian before tanh, or equal logits.

    Args:
        layout: sizes, and what the base policy tells.
        hidden_sizes: hidden layers.
        initial_log_std: where the log standard deviation starts without a density.

    Raises:
        ConfigError: an action is one of several discrete ones, in a decision of several steps.
    """

    active: Tensor

    def __init__(
        self, layout: TransitionLayout, hidden_sizes: tuple[int, ...], initial_log_std: float
    ) -> None:
        super().__init__()
        if layout.discrete and layout.decision_steps != 1:
            raise ConfigError(
                f'decision_steps is {layout.decision_steps}, expected 1 with discrete actions'
            )
        self.network: CategoricalNetwork | PriorGaussianNetwork
        if layout.discrete:
            # Its logits are what is learned plus log pi: two knobs of 1.
            weight = float(layout.prior is not Prior.NONE)
            categorical = CategoricalArchitecture(layout, hidden_sizes, weight, 1.0)
            self.density = Density(layout, Prior.CATEGORICAL)
            self.network = CategoricalNetwork(categorical)
        else:
            gaussian = PriorGaussianArchitecture(layout, hidden_sizes, initial_log_std)
            self.density = Density(layout, gaussian.kind)
            self.network = PriorGaussianNetwork(gaussian)
        # Where the residual has no bound, nothing that is learned is executed.
        active = (torch.tensor(layout.residual_bound) > 0.0).repeat(layout.decision_steps)
        repeats = len(self.network.start) // layout.decision_size
        self.register_buffer('active', active.repeat(repeats), persistent=False)

    def block(self, observation: Tensor, prior_block: Tensor) -> Tensor:
        """Return the block of pi^, (batch, P), of what the base policy tells."""
        known = prior_block if prior_block.shape[-1] else self.network.start
        return torch.where(self.active, self.network.block(observation, known), known)

    def forward(
        self, observation: Tensor, prior_block: Tensor, action: Tensor, end: Tensor | None = None
    ) -> Tensor:
        """Return log pi^(a|s), shape (batch,); see `Density.log_prob`."""
        return self.density.log_prob(self.block(observation, prior_block), action, end)

    def robot_policy(self) -> RobotPolicy:
        """Return a copy, as the robot runs it."""
        return self.network.to_policy()
