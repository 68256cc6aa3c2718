# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""TD3 on a bounded residual, with a randomised ensemble of critics.

Fujimoto et al., "Addressing Function Approximation Error in Actor-Critic Methods", arXiv
1802.09477; Chen et al., "REDQ", arXiv 2101.05982. The preset `resfit` (Ankile et al., arXiv
2509.19301) adds a warm-up of the critics and a share of demonstrations.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from residual_rl_ros.algorithms.actor_critic import (
    ActorCritic,
)
from residual_rl_ros.algorithms.config import ActorCriticConfig
from residual_rl_ros.algorithms.losses import bellman_target
from residual_rl_ros.algorithms.rule import register
from residual_rl_ros.residual_policy.torch_networks import FlatParameters, ResidualActor
from residual_rl_ros.schema import parameter
from residual_rl_ros.transitions.batch import Batch
from residual_rl_ros.transitions.layout import TransitionLayout


@dataclass(frozen=True)
class Td3Config(ActorCriticConfig):
    """Numbers of TD3; standard deviations in units of the residual bound."""

    section: ClassVar[str] = 'objective'

    exploration_std: float = parameter(0.1, 'noise on the executed residual', 0.0)
    target_std: float = parameter(0.2, "noise on the target actor's residual (smoothing)", 0.0)
    target_noise_clip: float = parameter(0.5, 'limit of that noise', above=0.0)


def actor_loss(q: Tensor) -> Tensor:
    """Return minus the mean over critics and batch of Q_i(s, b + lambda u)."""
    return -q.mean()


@register('td3', Td3Config)
class Td3(ActorCritic):
    """TD3 with REDQ targets; see `actor_critic` for the notation and the arguments."""

    config: Td3Config

    def __init__(
        self,
        config: Td3Config,
        layout: TransitionLayout,
        generator: torch.Generator,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(config, layout, generator, rng, config.exploration_std)
        self.target_actor = deepcopy(self.actor).requires_grad_(False)
        self._flat_target_actor = FlatParameters(self.target_actor)

    def update(self, critic_only: bool = False) -> dict[str, Tensor]:
        """Take one gradient step on the critics and, when due, on the actor."""
        batch = self.sample()
        s = self.actor.normalizer(batch.observation)

        # Critics: y = r + gamma^j min_{i in a random subset} Q'_i(s', b' + lambda (u' + noise)).
        metrics = self.regress(batch, s, self.smoothed_target(batch))

        # Actor: maximise the mean over all critics of Q_i(s, b + lambda u).
        train_actor = self.actor_due() and not critic_only
        if train_actor:
            b = batch.base_action
            u = self.actor.mean_action(batch.observation, b)
            q = self.critic(s, self.critic_action(b, b + self.bound * u))
            loss = self.with_imitation(actor_loss(q), batch, s)
            metrics['actor_grad_norm'] = self.step_actor(loss)
        self.follow(train_actor)
        return metrics

    @torch.no_grad()
    def smoothed_target(self, batch: Batch) -> Tensor:
        """Return the target y of the critics, shape (batch,)."""
        config, b_next = self.config, batch.next_base_action
        u_next = self.target_actor.noisy_action(
            batch.next_observation,
            b_next,
            config.target_std,
            config.target_noise_clip,
            self._generator,
        )
        s_next = self.actor.normalizer(batch.next_observation)
        value = self.target_value(s_next, b_next, u_next)
        return bellman_target(batch, value, config.reward_offset)

    def follow(self, step_actor: bool) -> None:
        """Move the slow copies, that of the actor in the target too."""
        super().follow(step_actor)
        if step_actor:
            self._flat_target_actor.follow(self._flat_actor, self.config.tau)

    def _actors(self) -> list[ResidualActor]:
        return [*super()._actors(), self.target_actor]

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {**super()._modules(), 'target_actor': self.target_actor}
