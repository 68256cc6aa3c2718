# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""DAWN: soft actor-critic on a bounded residual with a normalised critic.

Ma et al., "What Makes Value Learning Efficient in Residual Reinforcement Learning?",
arXiv 2602.10539. The warm-up on base-policy data is the learner's phase, not part of the update.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from residual_rl_ros.networks.critic import Critic
from residual_rl_ros.replay.buffer import Batch
from residual_rl_ros.residual.actor import ActorArchitecture, ResidualActor
from residual_rl_ros.spec import TransitionLayout


@dataclass(frozen=True)
class DawnConfig:
    """Numbers of the update rule; their sources are in `config/presets/dawn.yaml`."""

    gamma: float
    """Discount per decision."""
    n_step: int
    """Decisions whose rewards are summed before the target bootstraps."""
    entropy_in_target: bool
    """Count the entropy of the next decision in the target (soft TD)."""
    reward_scale: float
    """Factor on the summed reward."""
    reward_offset: float
    """Added to the scaled reward of every decision."""
    tau: float
    """Step of the target critics towards the critics."""
    actor_averaging: float
    """Step of the published actor towards the trained one; 1 publishes the trained one."""
    initial_alpha: float
    """Entropy temperature at the start."""
    target_entropy_per_dimension: float
    """Wanted entropy of the unscaled residual, per dimension [nat]."""
    critic_heads: int
    """Number of Q functions; the minimum is used."""
    critic_hidden_sizes: tuple[int, ...]
    """Hidden layers of each Q function."""
    critic_layer_norm: bool
    """LayerNorm in the critics."""
    critic_sees_residual: bool
    """Give the critics the executed residual in units of its bound too, beside the sum."""
    actor_hidden_sizes: tuple[int, ...]
    """Hidden layers of the actor."""
    initial_std: float
    """Standard deviation of the residual before tanh at the start, between 0.007 and 7."""
    actor_sees_base_action: bool
    """Give the actor the base action."""
    hold_residual: bool
    """Decide one residual of m numbers and hold it over the k steps, instead of k x m numbers."""
    actor_learning_rate: float
    """Adam step size of the actor."""
    critic_learning_rate: float
    """Adam step size of the critics."""
    alpha_learning_rate: float
    """Adam step size of the temperature."""
    max_grad_norm: float
    """Gradient norm limit of each critic."""


class Dawn:
    """Networks, optimisers and the update.

    Args:
        config: numbers.
        layout: sizes, action range and residual bound.
        generator: source of every random number in initialisation and updates.
    """

    def __init__(
        self,
        config: DawnConfig,
        layout: TransitionLayout,
        generator: torch.Generator,
    ) -> None:
        self._config = config
        self._generator = generator
        n, km = layout.observation_size, layout.decision_size
        # torch initialises layers from its global generator; borrow it, then give it back.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            self.actor = ResidualActor(
                ActorArchitecture(
                    n,
                    km,
                    config.actor_hidden_sizes,
                    config.actor_sees_base_action,
                    layout.action_size if config.hold_residual else km,
                )
            )
            features = n + (2 if config.critic_sees_residual else 1) * km
            self.critic = Critic(
                config.critic_heads, features, config.critic_hidden_sizes, config.critic_layer_norm
            )
        self.actor.set_action_range(layout)
        self.actor.set_initial_std(config.initial_std)
        self.mean_actor = deepcopy(self.actor).requires_grad_(False)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = torch.tensor(config.initial_alpha).log().requires_grad_()
        self._bound = torch.tensor(layout.residual_bound).repeat(layout.decision_steps)
        self._target_entropy = config.target_entropy_per_dimension * float(self.actor.active.sum())
        adam = torch.optim.Adam
        self.actor_optimizer = adam(
            self.actor.parameters(), lr=config.actor_learning_rate, fused=True
        )
        self.critic_optimizer = adam(
            self.critic.parameters(), lr=config.critic_learning_rate, fused=True
        )
        self.alpha_optimizer = adam([self.log_alpha], lr=config.alpha_learning_rate)

    def fit_normalizer(self, observations: Tensor) -> None:
        """Fit the observation normaliser on the warm-up data, shape (samples, n), once."""
        for actor in (self.actor, self.mean_actor):
            actor.normalizer.fit(observations)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take one gradient step on critics, actor and temperature.

        Notation: s observation, a executed action, b base action, u residual action in [-1, 1],
        lambda the bound, so that a = b + lambda u.

        Returns:
            Scalar metrics, detached.
        """
        config, actor = self._config, self.actor
        alpha = self.log_alpha.exp().detach()
        s = actor.normalizer(batch.observation)
        s_next = actor.normalizer(batch.next_observation)

        # Critic: y = r + gamma^j (min_i Q'_i(s', b' + lambda u') - alpha log pi(u'|s')).
        with torch.no_grad():
            u_next, log_pi_next = actor.sample(
                batch.next_observation, batch.next_base_action, self._generator
            )
            b_next = batch.next_base_action
            x_next = self._critic_action(b_next, b_next + self._bound * u_next)
            q_next = self.target_critic(s_next, x_next).amin(0)
            if config.entropy_in_target:
                q_next -= alpha * log_pi_next
            r = config.reward_scale * batch.reward + config.reward_offset * batch.reward_weight
            y = r + batch.bootstrap * q_next
        q = self.critic(s, self._critic_action(batch.base_action, batch.executed_action))
        critic_loss = (q - y).pow(2).mean(1).sum(0)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_norm = self._clip_each_critic()
        self.critic_optimizer.step()

        # Actor: maximise min_i Q_i(s, b + lambda u) - alpha log pi(u|s).
        u, log_pi = actor.sample(batch.observation, batch.base_action, self._generator)
        x = self._critic_action(batch.base_action, batch.base_action + self._bound * u)
        self.critic.requires_grad_(False)
        actor_loss = (alpha * log_pi - self.critic(s, x).amin(0)).mean()
        self.critic.requires_grad_(True)
        self.actor_optimizer.zero_grad()
        actor_loss.backward()
        self.actor_optimizer.step()

        # Temperature: raise alpha while the entropy is below its target.
        entropy = -log_pi.detach().mean()
        alpha_loss = self.log_alpha * (entropy - self._target_entropy)
        self.alpha_optimizer.zero_grad()
        alpha_loss.backward()  # type: ignore[no-untyped-call]
        self.alpha_optimizer.step()

        # Targets: theta' <- theta' + tau (theta - theta'); likewise the actor that is published.
        _follow(self.target_critic, self.critic, config.tau)
        _follow(self.mean_actor, actor, config.actor_averaging)
        return {
            'critic_loss': critic_loss.detach(),
            'q_executed': q.detach().mean(),
            'q_policy': -(actor_loss.detach() + alpha * entropy),
            'td_error': (q.detach() - y).abs().mean(),
            'alpha': alpha,
            'entropy': entropy,
            'residual_magnitude': u.detach().abs().mean(),
            'residual_saturation': (u.detach().abs() > 0.95).float().mean(),
            'critic_grad_norm': critic_norm,
        }

    def _critic_action(self, base: Tensor, action: Tensor) -> Tensor:
        """Return what the critics see of an executed action.

        The residual is a small part of the sum; in units of its bound it has the scale of the
        other inputs (the structural scale mismatch that DAWN names).
        """
        scaled = self.actor.scale_action(action)
        if not self._config.critic_sees_residual:
            return scaled
        # A takeover can be far outside the bound, and an unused dimension has none.
        residual = ((action - base) / self._bound.clamp_min(1e-6)).clamp(-3.0, 3.0)
        return torch.cat([scaled, residual], dim=-1)

    def _clip_each_critic(self) -> Tensor:
        """Limit the gradient norm of each Q function; return the largest norm before."""
        grads = [parameter.grad for parameter in self.critic.parameters()]
        squares = torch.stack([grad.flatten(1).pow(2).sum(1) for grad in grads if grad is not None])
        norms = squares.sum(0).sqrt()
        scale = (self._config.max_grad_norm / norms.clamp_min(1e-12)).clamp_max(1.0)
        if (scale < 1.0).any():
            for grad in grads:
                if grad is not None:
                    grad.mul_(scale.view(-1, *[1] * (grad.dim() - 1)))
        return norms.max()

    def state(self) -> dict[str, Tensor]:
        """Return every tensor needed to continue, by name, for a checkpoint."""
        tensors: dict[str, Tensor] = {'log_alpha': self.log_alpha.detach().clone()}
        for name, module in self._modules().items():
            for key, value in module.state_dict().items():
                tensors[f'{name}.{key}'] = value.detach().contiguous().clone()
        for name, optimizer in self._optimizers().items():
            for index, slots in optimizer.state_dict()['state'].items():
                for key, value in slots.items():
                    tensors[f'{name}.{index}.{key}'] = torch.as_tensor(value).clone()
        tensors['generator'] = self._generator.get_state()
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned.

        Raises:
            RuntimeError: the tensors are of another architecture.
        """
        for name, module in self._modules().items():
            prefix = f'{name}.'
            module.load_state_dict(
                {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            )
        with torch.no_grad():
            self.log_alpha.copy_(tensors['log_alpha'])
        for name, optimizer in self._optimizers().items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f'{name}.'):
                    _, index, slot = key.split('.')
                    state.setdefault(int(index), {})[slot] = value.clone()
            optimizer.load_state_dict({**optimizer.state_dict(), 'state': state})
        self._generator.set_state(tensors['generator'])

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
            'alpha_optimizer': self.alpha_optimizer,
        }


@torch.no_grad()
def _follow(slow: torch.nn.Module, fast: torch.nn.Module, step: float) -> None:
    """Move every parameter of `slow` towards `fast` by a share of the distance."""
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), step)
