# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ResFiT: TD3 on a bounded residual with a randomised ensemble of critics.

Ankile et al., "Residual Off-Policy RL for Finetuning Behavior Cloning Policies", arXiv 2509.19301.
The critics' warm-up on base data and the share of demonstrations are the learner's, not part of the
update.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from residual_rl_ros.algorithms.actor_critic import ActorCritic, FlatParameters, RuleConfig
from residual_rl_ros.residual_policy.torch_networks import ResidualActor
from residual_rl_ros.transitions.replay_buffer import Batch
from residual_rl_ros.transitions.transition import TransitionLayout


@dataclass(frozen=True)
class ResfitConfig(RuleConfig):
    """Numbers of TD3; standard deviations in units of the residual bound."""

    exploration_std: float
    """Noise on the executed residual."""
    target_std: float
    """Noise on the target actor's residual (target policy smoothing)."""
    target_noise_clip: float
    """Limit of that noise."""


class Resfit(ActorCritic):
    """TD3 with REDQ targets; see `ActorCritic` for the notation and the arguments."""

    config: ResfitConfig

    def __init__(
        self, config: ResfitConfig, layout: TransitionLayout, generator: torch.Generator
    ) -> None:
        super().__init__(config, layout, generator, config.exploration_std)
        self.target_actor = deepcopy(self.actor).requires_grad_(False)
        self._flat_target_actor = FlatParameters(self.target_actor)

    def update(self, batch: Batch, critic_only: bool = False) -> dict[str, Tensor]:
        """Take one gradient step on the critics and, when due, on the actor."""
        config = self.config
        s = self.actor.normalizer(batch.observation)

        # Critic: y = r + gamma^j min_{i in a random subset} Q'_i(s', b' + lambda (u' + noise)).
        with torch.no_grad():
            b_next = batch.next_base_action
            u_next = self.target_actor.noisy_action(
                batch.next_observation,
                b_next,
                config.target_std,
                config.target_noise_clip,
                self._generator,
            )
            s_next = self.actor.normalizer(batch.next_observation)
            y = self.target_return(batch, self.target_value(s_next, b_next, u_next))
        metrics = self.regress(batch, s, y)

        # Actor: maximise the mean over all critics of Q_i(s, b + lambda u).
        train_actor = self.actor_due() and not critic_only
        if train_actor:
            u = self.actor.mean_action(batch.observation, batch.base_action)
            a = batch.base_action + self.bound * u
            q = self.critic(s, self.critic_action(batch.base_action, a)).mean()
            metrics['actor_grad_norm'] = self.step_actor(-q)
        self.follow(train_actor)
        return metrics

    def follow(self, step_actor: bool) -> None:
        """Move the slow copies, that of the actor in the target too."""
        super().follow(step_actor)
        if step_actor:
            self._flat_target_actor.follow(self._flat_actor, self.config.tau)

    def _actors(self) -> list[ResidualActor]:
        return [*super()._actors(), self.target_actor]

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {**super()._modules(), 'target_actor': self.target_actor}
