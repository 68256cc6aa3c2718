# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Residual soft actor-critic: customisation of a base policy with continuous actions.

Li et al., "Residual Q-Learning: Offline and Online Policy Customization without Value", arXiv
2306.09526. With omega' = 0 and the basic reward it is SAC (arXiv 1812.05905), which trains the
priors. The notation is that of `customisation`.
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
from residual_rl_ros.algorithms.losses import critic_loss, td_target
from residual_rl_ros.algorithms.prior import Density
from residual_rl_ros.algorithms.rule import register
from residual_rl_ros.algorithms.sac import temperature_loss
from residual_rl_ros.algorithms.training_state import Adam, seeded
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.architecture import CRITIC_NORMALIZATIONS
from residual_rl_ros.residual_policy.perceptron import (
    LEAST_LOG_STD,
    MOST_LOG_STD,
    PriorGaussian,
    PriorGaussianArchitecture,
)
from residual_rl_ros.residual_policy.torch_networks import Critic, FlatParameters
from residual_rl_ros.residual_policy.torch_perceptron import PriorGaussianNetwork
from residual_rl_ros.schema import parameter
from residual_rl_ros.transitions.layout import TransitionLayout


@dataclass(frozen=True)
class ResidualSacConfig(OffPolicyConfig):
    """Numbers of residual soft actor-critic."""

    section: ClassVar[str] = 'objective'

    tau: float = parameter(0.005, 'step of the target networks', maximum=1.0, above=0.0)
    tune_temperature: bool = parameter(
        False, 'let alpha^, which starts at temperature, hold the entropy at its target'
    )
    target_entropy_per_dimension: float = parameter(
        -1.0, 'wanted entropy of actions in units of half their range, per dimension [nat]'
    )
    initial_log_std: float = parameter(
        0.0,
        'log standard deviation before tanh at the start, if the base policy tells no density',
        LEAST_LOG_STD,
        MOST_LOG_STD,
    )
    hold_noise: bool = parameter(
        False, 'explore with one draw of the noise for all decisions between two weight messages'
    )
    critic_heads: int = parameter(2, 'number of Q functions, whose minimum counts', 1)
    critic_normalization: str = parameter(
        'layer', 'of the hidden layers of the critics', choices=CRITIC_NORMALIZATIONS
    )


def residual_value(
    q: Tensor, log_pi: Tensor | float, log_policy: Tensor, prior_weight: float, alpha: Tensor
) -> Tensor:
    """Return V_R = min_i Q_i(s, a) + omega' log pi(a|s) - alpha^ log pi^(a|s), shape (batch,).

    The actions are those of pi^. Q_i has shape (heads, batch), the densities (batch,).
    """
    return q.amin(0) + prior_weight * log_pi - alpha * log_policy


@register('residual_sac', ResidualSacConfig)
class ResidualSac(OffPolicyCustomisation):
    """Residual SAC; see `OffPolicyCustomisation` for the arguments.

    Raises:
        ConfigError: actions are discrete.
    """

    config: ResidualSacConfig

    def __init__(
        self,
        config: ResidualSacConfig,
        layout: TransitionLayout,
        generator: torch.Generator,
        rng: np.random.Generator,
    ) -> None:
        if layout.discrete:
            raise ConfigError('the actions of this robot are discrete: use residual_soft_q')
        super().__init__(config, layout, generator, rng)
        inputs = layout.observation_size + layout.decision_size
        sizes, heads = config.hidden_sizes, config.critic_heads
        starts, holds = config.initial_log_std, config.hold_noise
        architecture = PriorGaussianArchitecture(layout, sizes, starts, holds)
        self.policy = Density(layout, architecture.kind).to(self.device)
        """The density of pi^, which has the kind of the prior."""
        self.actor = seeded(lambda: PriorGaussianNetwork(architecture), generator)
        self.critic = seeded(
            lambda: Critic(heads, inputs, sizes, config.critic_normalization), generator
        )
        nn.init.zeros_(self.critic.head.weight)
        nn.init.zeros_(self.critic.head.bias)
        for network in (self.actor, self.critic):
            network.to(self.device).body.in_bfloat16 = config.in_bfloat16
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self._flat_actor = FlatParameters(self.actor)
        self._flat_critic = FlatParameters(self.critic, heads)
        self._flat_target = FlatParameters(self.target_critic, heads)
        self.actor_optimizer = Adam(self._flat_actor.vector, config.learning_rate)
        self.critic_optimizer = Adam(self._flat_critic.vector, config.learning_rate)
        start = torch.tensor(config.temperature, device=self.device)
        self.log_alpha = start.log().requires_grad_()
        self.alpha_optimizer = Adam(self.log_alpha, config.learning_rate)
        ranges = self.policy.half_range[self.policy.bound > 0.0]
        self._target_entropy = float((config.target_entropy_per_dimension + ranges.log()).sum())

    @property
    def temperature(self) -> float:
        """Alpha^ now."""
        return float(self.log_alpha.detach().exp())

    def values(self, critic: Critic, observation: Tensor, action: Tensor) -> Tensor:
        """Return Q_i(s, a), shape (heads, batch)."""
        scaled = (action - self.policy.centre) / self.policy.half_range.clamp_min(1e-3)
        q: Tensor = critic(self.actor.normalizer(observation), scaled)
        return q

    def policy_value(
        self, critic: Critic, observation: Tensor, prior_block: Tensor, base_action: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return V_R of one action of pi^ and log pi^ of it, each (batch,), differentiable."""
        block = self.actor.block(observation, prior_block)
        z = self.policy.draw(block, self._generator)
        log_policy = self.policy.log_prob_of(block, z)
        log_pi = self.prior.log_prob_of(prior_block, z) if self.prior else 0.0
        # Critics know what robots execute, and nothing of what these would never do.
        seen = self.memory.replay.executed_range()
        action = self.policy.executed(self.policy.to_action(z), base_action, seen)
        q = self.values(critic, observation, action)
        alpha = self.log_alpha.exp().detach()
        return residual_value(q, log_pi, log_policy, self.prior_weight, alpha), log_policy

    def update(self) -> dict[str, Tensor]:
        """Take one gradient step on critics, actor and, if it is tuned, alpha^."""
        batch, reward = self.sample()

        # Critics: y = r_R + gamma V_R(s').
        with torch.no_grad():
            after = batch.next_observation, batch.next_prior, batch.next_base_action
            value, _ = self.policy_value(self.target_critic, *after)
            y = td_target(reward, batch.bootstrap, value)
        q = self.values(self.critic, batch.observation, batch.executed_action)
        loss = critic_loss(q, y)
        norms = self._flat_critic.differentiate(loss, self.config.max_grad_norm)
        self.critic_optimizer.step()
        self.critic.project()

        # Actor: maximise V_R(s), through log pi too.
        now = batch.observation, batch.prior, batch.base_action
        value, log_policy = self.policy_value(self.critic, *now)
        actor_norm = self._flat_actor.differentiate(-value.mean(), self.config.max_grad_norm)
        self.actor_optimizer.step()

        if self.config.tune_temperature:
            tuning = temperature_loss(self.log_alpha, log_policy, self._target_entropy)
            (self.log_alpha.grad,) = torch.autograd.grad(tuning, [self.log_alpha])
            self.alpha_optimizer.step()
        self._flat_target.follow(self._flat_critic, self.config.tau)
        self.target_critic.project()
        self._updates += 1
        return {
            'critic_loss': loss.detach(),
            'td_error': (q - y).detach().abs().mean(),
            'critic_grad_norm': norms.max(),
            'actor_grad_norm': actor_norm.max(),
            'alpha': self.log_alpha.exp().detach(),
            'entropy': -log_policy.detach().mean(),
        }

    def robot_policy(self) -> PriorGaussian:
        """Return a copy of what is learned, as the robot runs it."""
        # The noise that is held changes with what was seen, and takes none of the training's.
        seed = self._generator.initial_seed() + int(self._seen)
        return self.actor.to_policy(torch.Generator().manual_seed(seed % 2**63))

    def _modules(self) -> dict[str, nn.Module]:
        return {'actor': self.actor, 'critic': self.critic, 'target_critic': self.target_critic}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        names = 'actor_optimizer', 'critic_optimizer', 'alpha_optimizer'
        return {name: getattr(self, name) for name in names}

    def _scalars(self) -> dict[str, Tensor]:
        return {**super()._scalars(), 'log_alpha': self.log_alpha}
