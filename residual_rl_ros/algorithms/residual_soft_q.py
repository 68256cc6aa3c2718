# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Residual soft Q-learning: customisation of a base policy with discrete actions.

Li et al., "Residual Q-Learning: Offline and Online Policy Customization without Value", arXiv
2306.09526. With omega' = 0 and the basic reward it is soft Q-learning, which trains the priors.
The notation is that of `customisation`.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from residual_rl_ros.algorithms.customisation import (
    OffPolicyConfig,
    OffPolicyCustomisation,
)
from residual_rl_ros.algorithms.losses import td_target
from residual_rl_ros.algorithms.rule import register
from residual_rl_ros.algorithms.training_state import Adam, seeded
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.perceptron import CategoricalArchitecture, CategoricalPolicy
from residual_rl_ros.residual_policy.torch_networks import FlatParameters
from residual_rl_ros.residual_policy.torch_perceptron import Perceptron
from residual_rl_ros.schema import parameter
from residual_rl_ros.transitions.layout import TransitionLayout


@dataclass(frozen=True)
class ResidualSoftQConfig(OffPolicyConfig):
    """Numbers of residual soft Q-learning."""

    section: ClassVar[str] = 'objective'

    target_interval: int = parameter(10, 'updates after which the target network is copied', 1)
    epsilon: float = parameter(
        0.04, 'share of decisions with a uniformly drawn action, in the end', 0.0, 1.0
    )
    epsilon_transitions: int = parameter(
        0, 'transitions over which that share falls to this, from 1', 0
    )


def preferences(q: Tensor, log_pi: Tensor | float, prior_weight: float) -> Tensor:
    """Return Q_R(s, a) + omega' log pi(a|s) of every action, shape (batch, m)."""
    return q + prior_weight * log_pi


def soft_value(preference: Tensor, temperature: float) -> Tensor:
    """Return V_R(s) = alpha^ log sum_a exp((Q_R + omega' log pi) / alpha^), shape (batch,)."""
    return temperature * torch.logsumexp(preference / temperature, dim=-1)


def huber_value_loss(q: Tensor, y: Tensor) -> Tensor:
    """Return the mean Huber loss of Q_R(s, a) against y."""
    return nn.functional.smooth_l1_loss(q, y)


@register('residual_soft_q', ResidualSoftQConfig)
class ResidualSoftQ(OffPolicyCustomisation):
    """Residual soft Q-learning; see `OffPolicyCustomisation` for the arguments.

    Raises:
        ConfigError: actions are not discrete, or a decision has several steps.
    """

    config: ResidualSoftQConfig

    def __init__(
        self,
        config: ResidualSoftQConfig,
        layout: TransitionLayout,
        generator: torch.Generator,
        rng: np.random.Generator,
    ) -> None:
        if not layout.discrete:
            raise ConfigError(
                'residual_soft_q chooses among discrete actions, and those of this robot are '
                'continuous: use residual_sac'
            )
        if layout.decision_steps != 1:
            # Q_R of k actions would be a table of m^k; a sum over steps has another optimum.
            raise ConfigError(
                f'decision_steps is {layout.decision_steps}, expected 1 with residual_soft_q'
            )
        super().__init__(config, layout, generator, rng)
        n, m = layout.observation_size, layout.action_size
        self.values = seeded(lambda: Perceptron(n, config.hidden_sizes, m), generator)
        self.values.to(self.device)
        self.values.body.in_bfloat16 = config.in_bfloat16
        self.target_values = deepcopy(self.values).requires_grad_(False)
        self._flat = FlatParameters(self.values)
        self._flat_target = FlatParameters(self.target_values)
        self.optimizer = Adam(self._flat.vector, config.learning_rate)

    def update(self) -> dict[str, Tensor]:
        """Take one gradient step on Q_R."""
        batch, reward = self.sample()

        # y = r_R + gamma V_R(s').
        with torch.no_grad():
            q_next = self.target_values(batch.next_observation)
            value = soft_value(self.preferences(q_next, batch.next_prior), self.config.temperature)
            y = td_target(reward, batch.bootstrap, value)

        # Q_R of the executed actions.
        q = (self.values(batch.observation) * batch.executed_action).sum(-1)
        loss = huber_value_loss(q, y)
        norm = self._flat.differentiate(loss, self.config.max_grad_norm)
        self.optimizer.step()

        self._updates += 1
        if self._updates % self.config.target_interval == 0:
            self._flat_target.follow(self._flat, 1.0)
        return {
            'critic_loss': loss.detach(),
            'td_error': (q - y).detach().abs().mean(),
            'critic_grad_norm': norm.max(),
        }

    def preferences(self, q: Tensor, told: Tensor) -> Tensor:
        """Return Q_R + omega' log pi, (batch, m), of Q_R and what the base policy tells."""
        log_pi = self.prior.log_probs(told).squeeze(-2) if self.prior else 0.0
        return preferences(q, log_pi, self.prior_weight)

    @torch.no_grad()
    def diagnose(self) -> dict[str, float]:
        """Return metrics on a batch: entropy, share of base actions that it would keep, Q_R."""
        batch, _ = self.sample()
        q = self.values(batch.observation)
        preference = self.preferences(q, batch.prior)
        log_pi = (preference / self.config.temperature).log_softmax(-1)
        kept = batch.base_action.gather(-1, preference.argmax(-1, keepdim=True))
        return {
            **super().diagnose(),
            'entropy': float(-(log_pi.exp() * log_pi).sum(-1).mean()),
            'base_preferred_share': float(kept.mean()),
            'q_executed': float((q * batch.executed_action).sum(-1).mean()),
        }

    @property
    def epsilon(self) -> float:
        """Share of uniformly drawn actions now."""
        last, over = self.config.epsilon, self.config.epsilon_transitions
        return max(last, 1.0 - (1.0 - last) * int(self._seen) / over) if over else last

    def robot_policy(self) -> CategoricalPolicy:
        """Return a copy of what is learned, as the robot runs it."""
        architecture = CategoricalArchitecture(
            self.layout,
            self.config.hidden_sizes,
            self.prior_weight,
            self.config.temperature,
            self.epsilon,
        )
        return CategoricalPolicy(architecture, self.values.to_numpy())

    def _modules(self) -> dict[str, nn.Module]:
        return {'values': self.values, 'target_values': self.target_values}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {'optimizer': self.optimizer}
