# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""WSRL: Cal-QL before, plain SAC with a randomised ensemble afterwards, no data kept in between.

Zhou et al., "Efficient Online Reinforcement Learning Fine-Tuning Need Not Retain Offline Data",
arXiv 2412.07762; Nakamoto et al., "Cal-QL", arXiv 2303.05479. Emptying the buffer and the warm-up
with the pre-trained policy are the learner's, not part of the update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from residual_rl_ros.algorithms.sac import Sac, SacConfig
from residual_rl_ros.transitions.replay_buffer import Batch


@dataclass(frozen=True)
class WsrlConfig(SacConfig):
    """Numbers of SAC and of the offline regulariser."""

    cql_weight: float
    """Weight of the conservative regulariser against the TD loss."""
    cql_actions: int
    """Actions sampled for it from each of: uniform, policy at s, policy at s'."""


class Wsrl(Sac):
    """SAC with an offline update; see `ActorCritic` for the notation and the arguments."""

    config: WsrlConfig

    def update_offline(self, batch: Batch, returns: Tensor) -> dict[str, Tensor]:
        """Take one Cal-QL gradient step on the critics and, when due, on actor and temperature.

        Args:
            batch: transitions of the offline data.
            returns: discounted return that the behaviour policy got from each, shape (batch,);
                minus infinity where its episode was cut off and the return is not known.
        """
        s = self.actor.normalizer(batch.observation)
        y = self.soft_target(batch)
        q = self.critic(s, self.critic_action(batch.base_action, batch.executed_action))
        td_loss = (q - y).pow(2).mean(1).sum(0)

        # Push down Q of sampled actions, not below the known return, and up Q of the data:
        # logsumexp_u [max(Q(s, b + lambda u), return) - log density of u] - Q(s, a).
        sampled, log_density, from_policy = self._sample_actions(batch)
        count = sampled.shape[0]
        base = batch.base_action.expand(count, -1, -1)
        x = self.critic_action(base, base + self.bound * sampled)
        q_sampled = self.critic(s.repeat(count, 1), x.flatten(0, 1)).unflatten(1, (count, -1))
        calibrated = torch.maximum(q_sampled, returns)
        q_sampled = torch.where(from_policy.view(1, -1, 1), calibrated, q_sampled)
        pushed = torch.logsumexp(q_sampled - log_density, dim=1) - math.log(count)
        conservative = (pushed - q).mean(1).sum(0)

        norm = self.step_critic(td_loss + self.config.cql_weight * conservative)
        metrics = {
            'critic_loss': td_loss.detach(),
            'td_error': (q.detach() - y).abs().mean(),
            'cql_loss': conservative.detach(),
            'critic_grad_norm': norm,
        }
        train_actor = self.actor_due()
        if train_actor:
            metrics |= self.improve(batch, s)
        self.follow(train_actor)
        return metrics

    @torch.no_grad()
    def _sample_actions(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return residuals (samples, batch, k * m), log densities, and whose the policy's are."""
        each = self.config.cql_actions
        size, width = len(batch.observation), len(self.bound)
        residuals = [self.actor.uniform((each, size), self._generator)]
        flat = -math.log(2.0) * float(self.actor.active.sum())
        densities = [torch.full((each, size), flat)]
        for observation, base in (
            (batch.observation, batch.base_action),
            (batch.next_observation, batch.next_base_action),
        ):
            u, log_pi = self.actor.sample(
                observation.repeat(each, 1), base.repeat(each, 1), self._generator
            )
            residuals.append(u.view(each, size, width))
            densities.append(log_pi.view(each, size))
        from_policy = torch.arange(3 * each) >= each
        return torch.cat(residuals), torch.cat(densities), from_policy
