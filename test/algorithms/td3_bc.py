# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An update rule of another package, in one file: TD3+BC (Fujimoto and Gu, arXiv 2106.06860)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from residual_rl_ros.algorithms.losses import critic_loss
from residual_rl_ros.algorithms.rule import register
from residual_rl_ros.algorithms.td3 import Td3, Td3Config
from residual_rl_ros.schema import parameter


@dataclass(frozen=True)
class Td3BcConfig(Td3Config):
    """Numbers of TD3+BC."""

    section: ClassVar[str] = 'objective'

    bc_alpha: float = parameter(2.5, 'weight of the value against the imitation', above=0.0)


def actor_loss(q: Tensor, u: Tensor, u_executed: Tensor, alpha: float) -> Tensor:
    """Return -alpha Q / mean |Q| + (u - u_executed)^2."""
    weight = alpha / q.abs().mean().detach()
    return -weight * q.mean() + (u - u_executed).square().mean()


@register('td3_bc', Td3BcConfig)
class Td3Bc(Td3):
    """TD3 whose actor imitates what was executed."""

    config: Td3BcConfig

    def update(self, critic_only: bool = False) -> dict[str, Tensor]:
        """Take one gradient step on the critics and, when due, on the actor."""
        batch = self.memory.sample()
        s, b = self.actor.normalizer(batch.observation), batch.base_action
        loss = critic_loss(self.executed_value(batch, s), self.smoothed_target(batch))
        metrics = {'critic_loss': loss.detach(), 'critic_grad_norm': self.step_critic(loss)}
        train_actor = self.actor_due() and not critic_only
        if train_actor:
            u = self.actor.mean_action(batch.observation, b)
            q = self.critic(s, self.critic_action(b, b + self.bound * u))[0]
            executed = (batch.executed_action - b) / self.bound.clamp_min(1e-6)
            loss = actor_loss(q, u, executed.clamp(-1.0, 1.0), self.config.bc_alpha)
            metrics['actor_grad_norm'] = self.step_actor(loss)
        self.follow(train_actor)
        return metrics
