# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the off-policy update rules share: networks, optimisers, the critics' input, tensors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from residual_rl_ros.residual_policy.architecture import ActorArchitecture, CriticArchitecture
from residual_rl_ros.residual_policy.candidate_selection import AdvisedActor
from residual_rl_ros.residual_policy.numpy_actor import NumpyActor
from residual_rl_ros.residual_policy.torch_networks import Critic, ResidualActor
from residual_rl_ros.transitions.replay_buffer import Batch
from residual_rl_ros.transitions.transition import TransitionLayout


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
        rows = [parameter.detach().reshape(heads, -1) for parameter in self._parameters]
        self.vector = nn.Parameter(torch.cat(rows, dim=1))
        pieces = torch.split(self.vector.detach(), [row.shape[1] for row in rows], dim=1)
        for parameter, piece in zip(self._parameters, pieces, strict=True):
            parameter.data = piece.view(parameter.shape)

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


DORMANT_BELOW = 0.025
"""A unit is dormant if its mean activation is below this share of its layer's average
(Sokar et al., arXiv 2302.12902)."""
PRIOR_ROWS = 64
"""Rows of a batch on which the neutral prior is taken."""


@dataclass(frozen=True)
class RuleConfig:
    """Numbers that every update rule has; their sources are in `config/presets/`."""

    gamma: float
    """Discount per decision."""
    n_step: int
    """Decisions whose rewards are summed before the target bootstraps."""
    reward_scale: float
    """Factor on the summed reward."""
    reward_offset: float
    """Added to the scaled reward of every decision."""
    tau: float
    """Step of the target networks towards the trained ones."""
    actor_averaging: float
    """Step of the published actor towards the trained one; 1 publishes the trained one."""
    actor_interval: int
    """Critic updates per actor update."""
    critic_heads: int
    """Number of Q functions."""
    critic_target_heads: int
    """Of these, how many, drawn at random, the minimum in the target is taken over (REDQ)."""
    critic_normalization: str
    """Of the critics' hidden layers: `none`, `layer` or `hyperspherical`."""
    critic_hidden_sizes: tuple[int, ...]
    """Hidden layers of each Q function."""
    critic_sees_residual: bool
    """Give the critics the executed residual in units of its bound too, beside the sum."""
    neutral_prior: float
    """Weight of the prior that an untried residual is worth what the base alone is, in the loss of
    the critics; 0: none. Cal-QL, which has a prior of its own, does not use it."""
    base_in_target: bool
    """Bootstrap from the base action where the critics prefer it to the actor's (IBRL)."""
    actor_hidden_sizes: tuple[int, ...]
    """Hidden layers of the actor."""
    actor_layer_norm: bool
    """LayerNorm in the actor."""
    actor_sees_base_action: bool
    """Give the actor the base action."""
    hold_residual: bool
    """Decide one residual of m numbers and hold it over the k steps, instead of k x m numbers."""
    actor_learning_rate: float
    """Adam step size of the actor."""
    critic_learning_rate: float
    """Adam step size of the critics."""
    max_grad_norm: float
    """Gradient norm limit of each critic."""


class ActorCritic(ABC):
    """Networks and optimisers; subclasses add the update.

    Notation in the updates: s observation, b base action, u residual action in [-1, 1], lambda the
    bound, a = b + lambda u the executed action, a prime for the state after the n-step return.

    Args:
        config: numbers.
        layout: sizes, action range and residual bound.
        generator: source of every random number in initialisation and updates.
        exploration_std: fixed exploration noise of a deterministic actor; None for a learned one.
    """

    def __init__(
        self,
        config: RuleConfig,
        layout: TransitionLayout,
        generator: torch.Generator,
        exploration_std: float | None = None,
    ) -> None:
        self.config = config
        self._generator = generator
        n, km = layout.observation_size, layout.decision_size
        # torch initialises layers from its global generator; borrow it, then give it back.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            self.actor = ResidualActor(
                ActorArchitecture(
                    layout,
                    config.actor_hidden_sizes,
                    config.actor_sees_base_action,
                    layout.action_size if config.hold_residual else km,
                    config.actor_layer_norm,
                    exploration_std,
                )
            )
            self.critic = Critic(
                config.critic_heads,
                n + (2 if config.critic_sees_residual else 1) * km,
                config.critic_hidden_sizes,
                config.critic_normalization,
            )
        self.mean_actor = deepcopy(self.actor).requires_grad_(False)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.bound = torch.tensor(self.actor.architecture.residual_bound)
        self._updates = 0
        heads = config.critic_heads
        self._flat_actor = FlatParameters(self.actor)
        self._flat_mean_actor = FlatParameters(self.mean_actor)
        self._flat_critic = FlatParameters(self.critic, heads)
        self._flat_target_critic = FlatParameters(self.target_critic, heads)
        self.actor_optimizer = _adam(self._flat_actor, config.actor_learning_rate)
        self.critic_optimizer = _adam(self._flat_critic, config.critic_learning_rate)

    @abstractmethod
    def update(self, batch: Batch, critic_only: bool = False) -> dict[str, Tensor]:
        """Take one gradient step and return scalar metrics, detached."""

    def fit_normalizer(self, observations: Tensor) -> None:
        """Fit the observation normaliser, shape (samples, n)."""
        for actor in self._actors():
            actor.normalizer.fit(observations)

    def critic_action(self, base: Tensor, action: Tensor) -> Tensor:
        """Return what the critics see of an executed action.

        The residual is a small part of the sum; in units of its bound it has the scale of the
        other inputs (the structural scale mismatch that DAWN names).
        """
        scaled = self.actor.scale_action(action)
        if not self.config.critic_sees_residual:
            return scaled
        # A takeover can be far outside the bound, and an unused dimension has none.
        residual = ((action - base) / self.bound.clamp_min(1e-6)).clamp(-3.0, 3.0)
        return torch.cat([scaled, residual], dim=-1)

    def target_value(self, s_next: Tensor, base: Tensor, u: Tensor) -> Tensor:
        """Return the value of the next decision, shape (batch,).

        It is the minimum over the drawn target critics, and with `base_in_target` the larger of
        those of residual and base. Nearly so the robot decides if critics choose: it takes the
        base already if one of them sees no advantage, and the best of several residuals.
        """
        a = self.critic_action(base, base + self.bound * u)
        if self.config.base_in_target:
            s_next, a = s_next.repeat(2, 1), torch.cat([a, self.critic_action(base, base)])
        q: Tensor = self.target_critic(s_next, a)
        drawn = self.config.critic_target_heads
        if drawn < self.config.critic_heads:
            q = q[torch.randperm(self.config.critic_heads, generator=self._generator)[:drawn]]
        return q.amin(0).view(-1, len(base)).amax(0)

    def target_return(self, batch: Batch, value: Tensor) -> Tensor:
        """Return y = r + gamma^j value of the n-step return, shape (batch,)."""
        config = self.config
        r = config.reward_scale * batch.reward + config.reward_offset * batch.reward_weight
        return r + batch.bootstrap * value

    def regress(self, batch: Batch, s: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Take one gradient step of every Q(s, a) towards y; return metrics.

        The loss of a head is (Q_i(s, a) - y)^2, and neutral_prior times the square of the
        advantage of a random residual.
        """
        q = self.critic(s, self.critic_action(batch.base_action, batch.executed_action))
        error = q - y
        loss = error.square().mean(1).sum(0)
        metrics = {'critic_loss': loss.detach(), 'td_error': error.detach().abs().mean()}
        if self.config.neutral_prior:
            advantage = self.random_advantage(s[:PRIOR_ROWS], batch.base_action[:PRIOR_ROWS])
            loss = loss + self.config.neutral_prior * advantage.square().mean(1).sum(0)
        metrics['critic_grad_norm'] = self.step_critic(loss)
        return metrics

    def robot_actor(self, candidates: int) -> NumpyActor:
        """Return a copy of the published actor as the robot runs it.

        Args:
            candidates: residuals from which critics, which then come with it, choose one for a
                decision; 0 sends none. As many come as the target has: the more must agree, the
                fewer residuals are executed.
        """
        actor = self.mean_actor.to_numpy()
        if not candidates:
            return actor
        config = self.config
        architecture = CriticArchitecture(
            candidates,
            config.critic_target_heads,
            config.critic_hidden_sizes,
            config.critic_normalization,
            config.critic_sees_residual,
        )
        tensors = {
            name: value[: config.critic_target_heads].numpy().copy()
            for name, value in self.critic.state_dict().items()
        }
        return AdvisedActor(actor.architecture, actor.tensors, architecture, tensors)

    def random_advantage(self, s: Tensor, b: Tensor) -> Tensor:
        """Return Q_i(s, b + lambda u) - Q_i(s, b) for uniform u, shape (heads, rows).

        Where the data say nothing of a residual, a critic promises or threatens what it likes. The
        actor follows a promise at once, and the minimum of two critics makes of a threat a wall
        that it never looks behind. The base's value takes no gradient.
        """
        u = self.actor.uniform((len(b),), self._generator)
        with torch.no_grad():
            q_base = self.critic(s, self.critic_action(b, b))
        advantage: Tensor = self.critic(s, self.critic_action(b, b + self.bound * u)) - q_base
        return advantage

    def step_critic(self, loss: Tensor) -> Tensor:
        """Descend on the critics; return the largest gradient norm of one before clipping."""
        norms = self._flat_critic.differentiate(loss, self.config.max_grad_norm)
        self.critic_optimizer.step()
        self.critic.project()
        return norms.max()

    def step_actor(self, loss: Tensor) -> Tensor:
        """Descend on the actor alone; return its gradient norm."""
        norm = self._flat_actor.differentiate(loss)
        self.actor_optimizer.step()
        return norm.squeeze(0)

    def actor_due(self) -> bool:
        """Count an update; return whether it trains the actor too."""
        self._updates += 1
        return self._updates % self.config.actor_interval == 0

    def follow(self, step_actor: bool) -> None:
        """Move the slow copies: theta' <- theta' + tau (theta - theta')."""
        self._flat_target_critic.follow(self._flat_critic, self.config.tau)
        self.target_critic.project()
        if step_actor:
            self._flat_mean_actor.follow(self._flat_actor, self.config.actor_averaging)

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Return metrics that are too dear for every update.

        `q_base`, `q_executed` and `q_policy` compare the base's action, the executed one and the
        mean of the trained actor, whose size and saturation are `residual_magnitude` and
        `residual_saturation`, on the same states. `base_preferred_share` says in how many of them
        a critic sees no advantage of that mean. `critic_rank` is the number of singular values
        that hold 99 % of the features' sum (Kumar et al., arXiv 2010.14498), over their width.
        """
        s = self.actor.normalizer(batch.observation)
        b = batch.base_action
        q_base = self.critic(s, self.critic_action(b, b))
        u = self.actor.mean_action(batch.observation, b)
        q_policy = self.critic(s, self.critic_action(b, b + self.bound * u))
        preferred = ~((q_policy - q_base).amin(0) > 0.0)
        size = u[:, self.bound > 0.0].abs()
        executed = self.critic_action(b, batch.executed_action)
        features = self.critic.features(s, executed)
        activity = features.abs().mean(1)
        dormant = activity <= DORMANT_BELOW * activity.mean(-1, keepdim=True)
        singular = torch.linalg.svdvals(features[0])
        share = singular.cumsum(0) / singular.sum().clamp_min(1e-12)
        return {
            'q_base': float(q_base.mean()),
            'q_policy': float(q_policy.mean()),
            'base_preferred_share': float(preferred.float().mean()),
            'residual_magnitude': float(size.mean()),
            'residual_saturation': float((size > 0.95).float().mean()),
            'q_executed': float(self.critic.head(features).mean()),
            'critic_dormant_share': float(dormant.float().mean()),
            'critic_rank': float(int((share < 0.99).sum()) + 1) / features.shape[-1],
        }

    def state(self) -> dict[str, Tensor]:
        """Return every tensor needed to continue, by name, for a checkpoint."""
        tensors = {name: value.detach().clone() for name, value in self._scalars().items()}
        for name, module in self._modules().items():
            for key, value in module.state_dict().items():
                tensors[f'{name}.{key}'] = value.detach().contiguous().clone()
        for name, optimizer in self._optimizers().items():
            for index, slots in optimizer.state_dict()['state'].items():
                for key, value in slots.items():
                    tensors[f'{name}.{index}.{key}'] = torch.as_tensor(value).clone()
        tensors['updates'] = torch.tensor(self._updates)
        tensors['generator'] = self._generator.get_state()
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned.

        Raises:
            RuntimeError: the tensors are of another architecture.
            KeyError: one is missing.
        """
        for name, module in self._modules().items():
            prefix = f'{name}.'
            module.load_state_dict(
                {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            )
        with torch.no_grad():
            for name, value in self._scalars().items():
                value.copy_(tensors[name])
        for name, optimizer in self._optimizers().items():
            (parameter,) = optimizer.param_groups[0]['params']
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f'{name}.'):
                    _, index, slot = key.split('.')
                    if index != '0' or (slot != 'step' and value.shape != parameter.shape):
                        raise RuntimeError(f'{key} of shape {tuple(value.shape)} fits no parameter')
                    state.setdefault(0, {})[slot] = value.clone()
            optimizer.load_state_dict({**optimizer.state_dict(), 'state': state})
        self._updates = int(tensors['updates'])
        self._generator.set_state(tensors['generator'])

    def _actors(self) -> list[ResidualActor]:
        return [self.actor, self.mean_actor]

    def _scalars(self) -> dict[str, Tensor]:
        return {}

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {
            'actor': self.actor,
            'mean_actor': self.mean_actor,
            'critic': self.critic,
            'target_critic': self.target_critic,
        }

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            'actor_optimizer': self.actor_optimizer,
            'critic_optimizer': self.critic_optimizer,
        }


def _adam(flat: FlatParameters, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam([flat.vector], lr=learning_rate, fused=True)
