# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Choose and edit: soft actor-critic on residuals around the base's own proposals.

The robot draws N proposals of the base for a decision, the actor edits each, and an ensemble of
critics picks one (`residual_policy.choose_and_edit`), here in the target too. The proposals come
with the transition: what the next decision is worth costs critics, and never a call of the base.
After EXPO (Dong et al., arXiv 2507.07986). The base action of a transition is the proposal that the
robot took, so b + lambda u is what was executed, as with every other rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from residual_rl_ros.algorithms.losses import bellman_target
from residual_rl_ros.algorithms.rule import register
from residual_rl_ros.algorithms.sac import Sac, SacConfig
from residual_rl_ros.residual_policy.candidate_selection import CRITIC
from residual_rl_ros.residual_policy.choose_and_edit import (
    ChooseAndEditActor,
    ChooseAndEditArchitecture,
)
from residual_rl_ros.transitions.batch import Batch


@dataclass(frozen=True)
class ChooseAndEditConfig(SacConfig):
    """Numbers of choose and edit; `residual_candidates` is E, the edits a proposal."""

    section: ClassVar[str] = 'objective'
    proposals_advice: ClassVar[str] = 'set it to 8 (--set proposals=8, --proposals 8)'

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        yield from super().problems()
        if not self.residual_candidates:
            yield (
                'residual_candidates is 0, expected at least 1 with choose_and_edit: the edits of '
                'each proposal'
            )
        if self.choosing_heads or self.base_in_target:
            yield (
                f'choosing_heads is {self.choosing_heads} and base_in_target '
                f'{self.base_in_target}, expected 0 and false with choose_and_edit: all critics '
                'choose, and the base action is always among the candidates'
            )


def pick(advantages: Tensor, judges: Tensor | slice) -> Tensor:
    """Return what `residual_policy.choose_and_edit.pick` does, for each row, shape (batch,).

    Args:
        advantages: A_i(c), shape (heads, batch, candidates).
        judges: heads that pick.
    """
    best = advantages[judges].amin(0).argmax(-1)  # The base action has 0.
    of_best = advantages.gather(-1, best.expand(len(advantages), -1).unsqueeze(-1)).squeeze(-1)
    convinced = of_best.mean(0) > of_best.std(0, correction=0)
    return torch.where(convinced, best, torch.zeros_like(best))


@register('choose_and_edit', ChooseAndEditConfig)
class ChooseAndEdit(Sac):
    """Choose and edit; see `Sac` for the arguments."""

    config: ChooseAndEditConfig

    @torch.no_grad()
    def soft_target(self, batch: Batch) -> Tensor:
        """Return the target y of the critics, shape (batch,)."""
        proposals = all_proposals(batch.next_base_action, batch.next_proposals)
        q, cost = self.candidate_values(batch.next_observation, proposals)
        judges = self.draw_target_heads()
        best = pick(q - q[..., :1], judges).unsqueeze(-1)
        value = q[judges].amin(0).gather(-1, best) - cost.gather(-1, best)
        return bellman_target(batch, value.squeeze(-1), self.config.reward_offset)

    def candidate_values(self, observation: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Return Q'_i of every candidate and what its entropy costs.

        Args:
            observation: shape (batch, n), not normalised.
            proposals: shape (batch, N, k * m); the first is the base action.

        Returns:
            Shapes (heads, batch, N * (1 + E)) and (batch, N * (1 + E)), the edits of a proposal
            side by side, none first.
        """
        rows, count, km = proposals.shape
        edits = self.config.residual_candidates
        of_each = observation.repeat_interleave(count * edits, 0)
        u, log_pi = self.actor.sample(
            of_each, proposals.repeat_interleave(edits, 1).flatten(0, 1), self._generator
        )
        u = torch.cat([u.new_zeros(rows, count, 1, km), u.view(rows, count, edits, km)], dim=2)
        b = proposals.unsqueeze(2).expand_as(u)
        a = self.critic_action(b, b + self.bound * u).flatten(0, 2)
        s = self.actor.normalizer(observation).repeat_interleave(count * (1 + edits), 0)
        q = self.target_critic(s, a).view(-1, rows, count * (1 + edits))
        cost = torch.zeros(rows, count, 1 + edits, device=q.device)
        if self.config.entropy_in_target:
            cost[..., 1:] = self.log_alpha.exp() * log_pi.view(rows, count, edits)
        return q, cost.flatten(1)

    def base_for_actor(self, batch: Batch) -> Tensor:
        """Return one of the proposals of each transition, which the actor learns to edit."""
        proposals = all_proposals(batch.base_action, batch.proposals)
        rows, count, _ = proposals.shape
        drawn = torch.randint(count, (rows,), generator=self._generator)
        return proposals[torch.arange(rows), drawn]

    def robot_policy(self) -> ChooseAndEditActor:
        """Return a copy of the published actor and of all critics."""
        actor, critics = self.mean_actor.to_numpy(), self.critic_architecture(self.critic.heads)
        tensors = {
            f'{CRITIC}{name}': value.cpu().numpy().copy()
            for name, value in self.critic.state_dict().items()
        }
        config = self.config
        architecture = ChooseAndEditArchitecture(
            actor.architecture, critics, config.residual_candidates, config.critic_target_heads
        )
        return ChooseAndEditActor(architecture, {**actor.tensors, **tensors})

    @torch.no_grad()
    def diagnose(self) -> dict[str, float]:
        """Return the metrics of `ActorCritic.diagnose`, and what is chosen where a batch led to."""
        batch = self.sample()
        proposals = all_proposals(batch.next_base_action, batch.next_proposals)
        q, _ = self.candidate_values(batch.next_observation, proposals)
        best = pick(q - q[..., :1], slice(None))
        chosen = best >= 1 + self.config.residual_candidates
        return {
            **super().diagnose(),
            'base_preferred_share': float((best == 0).float().mean()),
            'proposal_chosen_share': float(chosen.float().mean()),
        }


def all_proposals(base: Tensor, others: Tensor) -> Tensor:
    """Return the proposals of each transition, the base action first, (batch, N, k * m)."""
    return torch.cat([base, others], dim=1).view(len(base), -1, base.shape[-1])
