# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Critics of the base's proposals, as torch trains them: the twin of `q_remix.QRemixPolicy`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.architecture import CriticArchitecture
from residual_rl_ros.residual_policy.candidate_selection import CRITIC
from residual_rl_ros.residual_policy.q_remix import QRemixArchitecture, QRemixPolicy
from residual_rl_ros.residual_policy.torch_networks import Critic, Normalizer
from residual_rl_ros.transitions.layout import TransitionLayout


class ProposalCritics(nn.Module):
    """Q_i(s, a_j) of several actions at each observation, with the scaling of both.

    Args:
        layout: sizes and the trained range of actions.
        heads: number of Q functions.
        hidden_sizes: hidden layers of each.

    Raises:
        ConfigError: the residual cannot lead from one proposal to any other.
    """

    center: Tensor
    half_range: Tensor

    def __init__(self, layout: TransitionLayout, heads: int, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self._layout = layout
        self._sizes = CriticArchitecture(heads, hidden_sizes, 'layer', sees_residual=False)
        low, high, bound = (
            torch.tensor(values).repeat(layout.decision_steps)
            for values in (layout.action_min, layout.action_max, layout.residual_bound)
        )
        # What the base never uses has no bound.
        short = (bound > 0.0) & (bound < 0.999 * (high - low))
        if layout.proposals > 1 and bool(short.any()):
            raise ConfigError(
                f'residual_bound is {list(layout.residual_bound)}, less than the range of the '
                "base's actions: its proposals are that far apart; set residual_scale to 2"
            )
        self.register_buffer('center', (low + high) / 2.0, persistent=False)
        self.register_buffer('half_range', ((high - low) / 2.0).clamp_min(1e-3), persistent=False)
        inputs = layout.observation_size + layout.decision_size
        self.normalizer = Normalizer(layout.observation_size)
        self.critic = Critic(heads, inputs, hidden_sizes, 'layer')

    def forward(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Return Q, shape (heads, batch, N).

        Args:
            observation: shape (batch, n), not normalised.
            actions: shape (batch, N, k * m), command units.
        """
        rows, count, _ = actions.shape
        s = self.normalizer(observation).repeat_interleave(count, 0)
        q: Tensor = self.critic(s, ((actions - self.center) / self.half_range).flatten(0, 1))
        return q.view(-1, rows, count)

    def proposals(self, base: Tensor, others: Tensor) -> Tensor:
        """Return all proposals, (batch, N, k * m), the base action first."""
        return torch.cat([base, others], dim=1).view(len(base), -1, self._layout.decision_size)

    def to_numpy(self, beta: float, temperature: float) -> QRemixPolicy:
        """Return a copy of what they are now, as the robot runs it."""
        tensors = {
            # The robot has the names of critics that choose.
            name.replace('critic.', CRITIC, 1): value.cpu().numpy().copy()
            for name, value in self.state_dict().items()
        }
        return QRemixPolicy(
            QRemixArchitecture(self._layout, self._sizes, beta, temperature), tensors
        )
