# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Soft actor-critic on a bounded residual.

Presets `dawn`, `policy_decorator` and `sac_residual_plain` share this rule and differ in numbers
only: critic normalisation and prior, warm-up, exploration, updates a decision.

Ma et al., "What Makes Value Learning Efficient in Residual Reinforcement Learning?" (DAWN),
arXiv 2602.10539; Yuan et al., "Policy Decorator", arXiv 2412.13630.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from residual_rl_ros.algorithms.actor_critic import ActorCritic, RuleConfig
from residual_rl_ros.transitions.replay_buffer import Batch
from residual_rl_ros.transitions.transition import TransitionLayout


@dataclass(frozen=True)
class SacConfig(RuleConfig):
    """Numbers of soft actor-critic."""

    entropy_in_target: bool
    """Count the entropy of the next decision in the target (soft TD)."""
    initial_alpha: float
    """Entropy temperature at the start."""
    target_entropy_per_dimension: float
    """Wanted entropy of the unscaled residual, per dimension [nat]."""
    initial_std: float
    """Standard deviation of the residual before tanh at the start, between 0.007 and 7."""
    alpha_learning_rate: float
    """Adam step size of the temperature."""


class Sac(ActorCritic):
    """SAC; see `ActorCritic` for the notation and the arguments."""

    config: SacConfig

    def __init__(
        self, config: SacConfig, layout: TransitionLayout, generator: torch.Generator
    ) -> None:
        super().__init__(config, layout, generator)
        for actor in self._actors():
            actor.set_initial_std(config.initial_std)
        self.log_alpha = torch.tensor(config.initial_alpha).log().requires_grad_()
        self.alpha_optimizer = torch.optim.Adam(
            [self.log_alpha], lr=config.alpha_learning_rate, fused=True
        )
        self._target_entropy = config.target_entropy_per_dimension * float(self.actor.active.sum())

    def update(self, batch: Batch, critic_only: bool = False) -> dict[str, Tensor]:
        """Take one gradient step on the critics and, when due, on actor and temperature."""
        s = self.actor.normalizer(batch.observation)

        # Critic: y = r + gamma^j (V - alpha log pi(u'|s')), V = min_i Q'_i(s', b' + lambda u'),
        # or min_i Q'_i(s', b') if that is larger and `base_in_target`.
        y = self.soft_target(batch)
        metrics = self.regress(batch, s, y)
        train_actor = self.actor_due() and not critic_only
        if train_actor:
            metrics |= self.improve(batch, s)
        self.follow(train_actor)
        return metrics

    @torch.no_grad()
    def soft_target(self, batch: Batch) -> Tensor:
        """Return the target of the critics, shape (batch,)."""
        b_next = batch.next_base_action
        u_next, log_pi_next = self.actor.sample(batch.next_observation, b_next, self._generator)
        value = self.target_value(self.actor.normalizer(batch.next_observation), b_next, u_next)
        if self.config.entropy_in_target:
            value -= self.log_alpha.exp() * log_pi_next
        return self.target_return(batch, value)

    def improve(self, batch: Batch, s: Tensor) -> dict[str, Tensor]:
        """Take one gradient step on actor and temperature; return metrics."""
        alpha = self.log_alpha.exp().detach()

        # Actor: maximise min_i Q_i(s, b + lambda u) - alpha log pi(u|s).
        u, log_pi = self.actor.sample(batch.observation, batch.base_action, self._generator)
        a = batch.base_action + self.bound * u
        q = self.critic(s, self.critic_action(batch.base_action, a)).amin(0)
        norm = self.step_actor((alpha * log_pi - q).mean())

        # Temperature: raise alpha while the entropy is below its target.
        entropy = -log_pi.detach().mean()
        self.log_alpha.grad = entropy - self._target_entropy
        self.alpha_optimizer.step()
        return {'alpha': alpha, 'entropy': entropy, 'actor_grad_norm': norm}

    def _scalars(self) -> dict[str, Tensor]:
        return {'log_alpha': self.log_alpha}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {**super()._optimizers(), 'alpha_optimizer': self.alpha_optimizer}
