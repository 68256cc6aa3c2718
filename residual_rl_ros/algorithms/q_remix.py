# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Q-remix: pi(a|s) proportional to pi_base(a|s) exp(beta Q_R(s,a)), over the base's own proposals.

Q_R is learned offline, from a recording of the base alone: TD plus a conservative term (Kumar et
al., arXiv 2006.04779) over the proposals, which stand for the density of the base. Online Q_R is
learned on, and beta goes from `beta_start` to `beta`. The notation is that of `customisation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from residual_rl_ros.algorithms.customisation import OffPolicyConfig, OffPolicyCustomisation
from residual_rl_ros.algorithms.losses import critic_loss, td_target
from residual_rl_ros.algorithms.rule import BASIC, register
from residual_rl_ros.algorithms.training_state import Adam, seeded
from residual_rl_ros.residual_policy.q_remix import QRemixPolicy
from residual_rl_ros.residual_policy.torch_networks import FlatParameters
from residual_rl_ros.residual_policy.torch_perceptron import ProposalCritics
from residual_rl_ros.schema import parameter
from residual_rl_ros.transitions.layout import TransitionLayout


@dataclass(frozen=True)
class QRemixConfig(OffPolicyConfig):
    """Numbers of the Q-remix."""

    section: ClassVar[str] = 'objective'
    proposals_advice: ClassVar[str] = (
        'set it to 8 (--set proposals=8, --proposals 8), and residual_scale to 2'
    )

    adds_residuals: ClassVar[bool] = False

    offline_updates: int = parameter(
        4000, 'updates on the data of the warm-up, and on all data after a change of the add-on', 0
    )
    cql_weight: float = parameter(1e-3, 'weight of the conservative term (alpha_CQL)', 0.0)
    tau: float = parameter(0.005, 'step of the target critics', maximum=1.0, above=0.0)
    critic_heads: int = parameter(2, 'number of Q functions; the least counts', 1)
    backup_beta: float = parameter(
        0.0,
        'beta of the policy whose Q_R is learned: 0 is the base, on which the remix is one step of '
        'improvement; 1 about the remix itself; more comes near the best proposal',
        0.0,
        1e6,
    )
    beta: float = parameter(1.0, 'share of Q_R that counts in the end', 0.0, 1.0)
    beta_transitions: int = parameter(0, 'online transitions over which it gets there', 0)
    beta_start: float = parameter(1.0, 'share of Q_R that counts after the warm-up', 0.0, 1.0)

    @property
    def preparation_updates(self) -> int:
        """Number of updates that `prepare` takes."""
        return self.offline_updates

    @property
    def relearning_updates(self) -> int:
        """Number of updates that are due at once when the add-on reward has changed."""
        return self.offline_updates if self.reward != BASIC else 0

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        yield from super().problems()
        if self.prior_weight:
            yield (
                f'prior_weight is {self.prior_weight}, expected 0 with q_remix: the proposals of '
                'the base stand for its density'
            )


def remixed_value(q: Tensor, sharpness: float) -> Tensor:
    """Return V(s) = sum_j w_j Q_R(s, a_j), w proportional to exp(sharpness Q_R), shape (batch,).

    Args:
        q: Q_R of the proposals, shape (batch, N).
        sharpness: beta / alpha^; at 0 it is the value of the base.
    """
    return ((sharpness * q).softmax(-1) * q).sum(-1)


def proposal_cql_loss(q_proposals: Tensor, q: Tensor) -> Tensor:
    """Return E[log mean_j exp Q_i(s, a_j) - Q_i(s, a)], summed over the heads.

    Args:
        q_proposals: Q_i of the proposals, shape (heads, batch, N).
        q: Q_i(s, a) of the executed actions, shape (heads, batch).
    """
    pushed = torch.logsumexp(q_proposals, -1) - math.log(q_proposals.shape[-1])
    return (pushed - q).mean(1).sum(0)


@register('q_remix', QRemixConfig)
class QRemix(OffPolicyCustomisation):
    """The Q-remix; see `OffPolicyCustomisation` for arguments and errors."""

    config: QRemixConfig

    def __init__(
        self,
        config: QRemixConfig,
        layout: TransitionLayout,
        generator: torch.Generator,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(config, layout, generator, rng)
        self.critics = seeded(
            lambda: ProposalCritics(layout, config.critic_heads, config.hidden_sizes), generator
        ).to(self.device)
        self.critics.critic.body.in_bfloat16 = config.in_bfloat16
        self.target_critics = deepcopy(self.critics).requires_grad_(False)
        self._flat = FlatParameters(self.critics, config.critic_heads)
        self._flat_target = FlatParameters(self.target_critics, config.critic_heads)
        self.optimizer = Adam(self._flat.vector, config.learning_rate)
        self._warm = torch.zeros((), dtype=torch.int64)  # Transitions of the warm-up.

    def set_add_on(self, text: str, weight: float = 1.0) -> None:
        """Learn for another add-on; its weight acts on the robot, where it multiplies beta."""
        super().set_add_on(text)

    def prepare(self, pulse: Callable[[], None]) -> dict[str, Tensor]:
        """Fit the normaliser and learn from what is in the memory."""
        metrics = super().prepare(pulse)
        self._warm = self._seen.clone()
        for _ in range(self.config.offline_updates):
            pulse()
            metrics = self.update()
        return metrics

    def update(self) -> dict[str, Tensor]:
        """Take one gradient step on Q_R."""
        batch, reward = self.sample()

        # y = r_R + gamma V(s'), of the least target critic.
        with torch.no_grad():
            proposals = self.critics.proposals(batch.next_base_action, batch.next_proposals)
            q_next = self.target_critics(batch.next_observation, proposals).amin(0)
            sharpness = self.config.backup_beta / self.config.temperature
            y = td_target(reward, batch.bootstrap, remixed_value(q_next, sharpness))

        # Q_R of the executed actions, and of what the base would have done.
        q = self.critics(batch.observation, batch.executed_action.unsqueeze(1)).squeeze(-1)
        proposals = self.critics.proposals(batch.base_action, batch.proposals)
        td_loss = critic_loss(q, y)
        cql_loss = proposal_cql_loss(self.critics(batch.observation, proposals), q)
        loss = td_loss + self.config.cql_weight * cql_loss
        norm = self._flat.differentiate(loss, self.config.max_grad_norm)
        self.optimizer.step()
        self._flat_target.follow(self._flat, self.config.tau)
        self._updates += 1
        metrics = {'critic_loss': td_loss, 'cql_loss': cql_loss, 'critic_grad_norm': norm.max()}
        return {name: value.detach() for name, value in metrics.items()} | {
            'td_error': (q - y).detach().abs().mean()
        }

    @property
    def beta(self) -> float:
        """Share of Q_R that counts now."""
        online = int(self._seen - self._warm)
        first, last, over = self.config.beta_start, self.config.beta, self.config.beta_transitions
        return first + (last - first) * (min(online / over, 1.0) if over else 1.0)

    @torch.no_grad()
    def diagnose(self) -> dict[str, float]:
        """Return metrics on a batch: Q_R of base and choice, and how often they are the same."""
        batch, reward = self.sample()
        proposals = self.critics.proposals(batch.base_action, batch.proposals)
        q = self.critics(batch.observation, proposals)
        advantage = (q - q[..., :1]).amin(0)
        chosen = advantage.argmax(-1)
        q_policy = q.gather(-1, chosen.expand(len(q), -1).unsqueeze(-1))
        return {
            'beta': self.beta,
            'q_base': float(q[..., 0].mean()),
            'q_policy': float(q_policy.mean()),
            'base_preferred_share': float((chosen == 0).float().mean()),
            'learned_reward': float(reward.mean()),
        }

    def robot_policy(self) -> QRemixPolicy:
        """Return a copy of what is learned, as the robot runs it."""
        return self.critics.to_numpy(self.beta, self.config.temperature)

    def _modules(self) -> dict[str, nn.Module]:
        return {'critics': self.critics, 'target_critics': self.target_critics}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {'optimizer': self.optimizer}

    def _scalars(self) -> dict[str, Tensor]:
        return {**super()._scalars(), 'warm': self._warm}
