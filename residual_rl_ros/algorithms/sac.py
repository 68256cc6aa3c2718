# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Soft actor-critic on a bounded residual.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905. The presets
`dawn` (Ma et al., arXiv 2602.10539), `policy_decorator` (Yuan et al., arXiv 2412.13630),
`best_of_n` and others differ in numbers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from residual_rl_ros.algorithms.actor_critic import (
    ActorCritic,
)
from residual_rl_ros.algorithms.config import MAX_BATCH, ActorCriticConfig
from residual_rl_ros.algorithms.losses import bellman_target
from residual_rl_ros.algorithms.rule import register
from residual_rl_ros.algorithms.training_state import Adam
from residual_rl_ros.schema import parameter
from residual_rl_ros.transitions.batch import Batch
from residual_rl_ros.transitions.layout import TransitionLayout

ACTOR_VALUES = ('minimum', 'mean')
"""What `actor_value` may be."""


@dataclass(frozen=True)
class SacConfig(ActorCriticConfig):
    """Numbers of soft actor-critic."""

    section: ClassVar[str] = 'objective'

    actor_value: str = parameter(
        'minimum', 'of the Q functions, which the actor maximises', choices=ACTOR_VALUES
    )
    entropy_in_target: bool = parameter(True, 'count the entropy of the next decision (soft TD)')
    initial_alpha: float = parameter(0.01, 'entropy temperature at the start', above=0.0)
    target_entropy_per_dimension: float = parameter(
        -1.0, 'wanted entropy of the residual in units of its bound, per dimension [nat]'
    )
    initial_std: float = parameter(
        0.12, 'standard deviation of the residual before tanh at the start', 0.007, 7.0
    )
    alpha_learning_rate: float = parameter(3e-4, 'Adam step size of the temperature', above=0.0)
    actor_batch_size: int = parameter(
        0,
        'transitions per update of actor and temperature, drawn for it; 0 takes the batch of the '
        'critics',
        0,
        MAX_BATCH,
    )

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        yield from super().problems()
        if self.critic_only_updates and self.entropy_in_target:
            yield (
                f'critic_only_updates is {self.critic_only_updates} and entropy_in_target true: '
                'beside a nearly deterministic residual the entropy outweighs the reward, and '
                'critics that are trained alone diverge (DAWN); set critic_only_updates to 0, '
                'entropy_in_target to false, or use algorithm td3'
            )


def actor_loss(q: Tensor, log_pi: Tensor, alpha: Tensor, value: str = 'minimum') -> Tensor:
    """Return the mean of alpha log pi(u|s) - min_i Q_i(s, b + lambda u).

    Args:
        q: Q_i, shape (heads, batch).
        log_pi: shape (batch,).
        alpha: entropy temperature.
        value: `minimum` over the heads, or their `mean` (REDQ).
    """
    return (alpha * log_pi - (q.amin(0) if value == 'minimum' else q.mean(0))).mean()


def temperature_loss(log_alpha: Tensor, log_pi: Tensor, target_entropy: float) -> Tensor:
    """Return log alpha (H - target): it raises alpha while the entropy H is below its target."""
    entropy = -log_pi.detach().mean()
    return log_alpha * (entropy - target_entropy)


@register('sac', SacConfig)
class Sac(ActorCritic):
    """SAC; see `actor_critic` for the notation and `ActorCritic` for the arguments."""

    config: SacConfig

    def __init__(
        self,
        config: SacConfig,
        layout: TransitionLayout,
        generator: torch.Generator,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(config, layout, generator, rng)
        for actor in self._actors():
            actor.set_initial_std(config.initial_std)
        initial = torch.tensor(config.initial_alpha, device=self.device)
        self.log_alpha = initial.log().requires_grad_()
        self.alpha_optimizer = Adam(self.log_alpha, config.alpha_learning_rate)
        self._target_entropy = config.target_entropy_per_dimension * float(self.actor.active.sum())

    def update(self, critic_only: bool = False) -> dict[str, Tensor]:
        """Take one gradient step on the critics and, when due, on actor and temperature."""
        batch = self.sample()
        s = self.actor.normalizer(batch.observation)

        # Critics: y = r + gamma^j V(s').
        metrics = self.regress(batch, s, self.soft_target(batch))

        train_actor = self.actor_due() and not critic_only
        if train_actor:
            metrics |= self.improve(batch, s)
        self.follow(train_actor)
        return metrics

    @torch.no_grad()
    def soft_target(self, batch: Batch) -> Tensor:
        """Return the target y of the critics, shape (batch,)."""
        b_next = batch.next_base_action
        u_next, log_pi_next = self.actor.sample(batch.next_observation, b_next, self._generator)
        cost = self.log_alpha.exp() * log_pi_next if self.config.entropy_in_target else 0.0
        s_next = self.actor.normalizer(batch.next_observation)
        value = self.target_value(s_next, b_next, u_next, cost)
        return bellman_target(batch, value, self.config.reward_offset)

    def improve(self, batch: Batch, s: Tensor) -> dict[str, Tensor]:
        """Take one gradient step on actor and temperature; return metrics."""
        if self.config.actor_batch_size:
            batch = self.sample(self.config.actor_batch_size)
            s = self.actor.normalizer(batch.observation)
        alpha = self.log_alpha.exp().detach()

        # Actor: a reparameterised residual of the policy at s.
        b = self.base_for_actor(batch)
        u, log_pi = self.actor.sample(batch.observation, b, self._generator)
        q = self.critic(s, self.critic_action(b, b + self.bound * u))
        loss = actor_loss(q, log_pi, alpha, self.config.actor_value)
        loss = self.with_imitation(loss, batch, s)
        norm = self.step_actor(loss)

        # Temperature.
        loss = temperature_loss(self.log_alpha, log_pi, self._target_entropy)
        (self.log_alpha.grad,) = torch.autograd.grad(loss, [self.log_alpha])
        self.alpha_optimizer.step()
        return {'alpha': alpha, 'entropy': -log_pi.detach().mean(), 'actor_grad_norm': norm}

    def base_for_actor(self, batch: Batch) -> Tensor:
        """Return the base action of each transition, around which the actor's residual is."""
        return batch.base_action

    def _scalars(self) -> dict[str, Tensor]:
        return {'log_alpha': self.log_alpha}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {**super()._optimizers(), 'alpha_optimizer': self.alpha_optimizer}
