# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cal-QL on the data of the warm-up, then soft actor-critic.

Nakamoto et al., "Cal-QL", arXiv 2303.05479. The preset `wsrl` (Zhou et al., arXiv 2412.07762)
forgets the data in between and lets the pre-trained policy fill the memory before it learns on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from residual_rl_ros.algorithms.losses import critic_loss
from residual_rl_ros.algorithms.rule import register
from residual_rl_ros.algorithms.sac import Sac, SacConfig
from residual_rl_ros.schema import parameter
from residual_rl_ros.transitions.batch import Batch


@dataclass(frozen=True)
class CalQlConfig(SacConfig):
    """Numbers of SAC and of the offline regulariser."""

    section: ClassVar[str] = 'objective'

    offline_updates: int = parameter(
        2000, 'updates on the data of the warm-up, which is then forgotten; 0 keeps it', 0
    )
    cql_weight: float = parameter(1.0, 'weight of the regulariser against the TD loss', 0.0)
    cql_actions: int = parameter(
        4, 'actions sampled for it from each of: uniform, policy at s, policy at the next s', 1
    )

    @property
    def learns_offline(self) -> bool:
        """Whether it learns from the warm-up before the residual acts, and then forgets it."""
        return self.offline_updates > 0

    @property
    def preparation_updates(self) -> int:
        """Number of updates that `prepare` takes."""
        return self.offline_updates + super().preparation_updates

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        yield from super().problems()
        if self.anchor_updates:
            yield (
                f'anchor_updates is {self.anchor_updates}, expected 0 with cal_ql: its offline '
                'updates take the place of an anchor; see offline_updates'
            )


def calibrated_cql_loss(
    q: Tensor, q_sampled: Tensor, log_density: Tensor, from_policy: Tensor, returns: Tensor
) -> Tensor:
    """Return the regulariser: it pushes Q of sampled actions down and Q of the data up.

    logsumexp_u [max(Q(s, b + lambda u), return) - log density of u] - Q(s, a), where the return
    that is known calibrates the actions of the policy alone.

    Args:
        q: Q_i(s, a) of the data, shape (heads, batch).
        q_sampled: Q_i of the sampled actions, shape (heads, samples, batch).
        log_density: log density of each sample, shape (samples, batch).
        from_policy: which samples are the policy's, shape (samples,).
        returns: least return of each row's episode, shape (batch,); see
            `ReplayMemory.lower_bounds`.
    """
    calibrated = torch.maximum(q_sampled, returns)
    q_sampled = torch.where(from_policy.view(1, -1, 1), calibrated, q_sampled)
    pushed = torch.logsumexp(q_sampled - log_density, dim=1) - math.log(len(log_density))
    return (pushed - q).mean(1).sum(0)


@register('cal_ql', CalQlConfig)
class CalQl(Sac):
    """SAC with an offline update; see `actor_critic` for the notation and the arguments."""

    config: CalQlConfig

    def prepare(self, pulse: Callable[[], None]) -> dict[str, Tensor]:
        """Fit the normaliser, learn from the data of the warm-up, and forget it."""
        self.fit()
        metrics: dict[str, Tensor] = {}
        if self.config.offline_updates:
            returns = self.memory.lower_bounds(self.config.reward_offset).to(self.device)
            for _ in range(self.config.offline_updates):
                pulse()
                batch = self.memory.sample_replay(self.config.batch_size).to(self.device)
                metrics = self.update_offline(batch, returns[batch.row])
        metrics = {**metrics, **self.train_critics_alone(pulse)}
        if self.config.offline_updates:
            self.memory.replay.clear()
        return metrics

    def update_offline(self, batch: Batch, returns: Tensor) -> dict[str, Tensor]:
        """Take one Cal-QL gradient step on the critics and, when due, on actor and temperature.

        Args:
            batch: transitions of the offline data.
            returns: discounted return that the behaviour policy got from each, shape (batch,); a
                lower bound where its episode was cut off, see `ReplayMemory.lower_bounds`.
        """
        s = self.actor.normalizer(batch.observation)
        y = self.soft_target(batch)
        q = self.executed_value(batch, s)
        td_loss = critic_loss(q, y)

        u, log_density, from_policy = self._sample_residuals(batch)
        count = len(u)
        base = batch.base_action.expand(count, -1, -1)
        x = self.critic_action(base, base + self.bound * u)
        q_sampled = self.critic(s.repeat(count, 1), x.flatten(0, 1)).unflatten(1, (count, -1))
        conservative = calibrated_cql_loss(q, q_sampled, log_density, from_policy, returns)

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
    def _sample_residuals(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return residuals (samples, batch, k * m), log densities, and whose the policy's are."""
        each = self.config.cql_actions
        size, width = len(batch.observation), len(self.bound)
        residuals = [self.actor.uniform((each, size), self._generator)]
        flat = -math.log(2.0) * float(self.actor.active.sum())
        densities = [torch.full((each, size), flat, device=self.device)]
        for observation, base in (
            (batch.observation, batch.base_action),
            (batch.next_observation, batch.next_base_action),
        ):
            u, log_pi = self.actor.sample(
                observation.repeat(each, 1), base.repeat(each, 1), self._generator
            )
            residuals.append(u.view(each, size, width))
            densities.append(log_pi.view(each, size))
        from_policy = torch.arange(3 * each, device=self.device) >= each
        return torch.cat(residuals), torch.cat(densities), from_policy
