# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Residual policy gradient with PPO: on-policy customisation of a base policy with a density.

Wang et al., "Residual Policy Gradient: A Reward View of KL-regularized Objective", arXiv
2503.11019; the entropy is part of the reward, so that no loss has a bonus for it. The notation is
that of `customisation`, and: pi_b the actor that drew an action, pi_o the actor at the beginning of
a phase of updates, V and A value and advantage of pi_b. What an older actor drew counts by
pi_o / pi_b, and the trust region is around pi_o (Hilton et al., arXiv 2110.00641).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import functional_call

from residual_rl_ros.algorithms.on_policy import OnPolicyConfig, OnPolicyCustomisation
from residual_rl_ros.algorithms.rollout_memory import Rollout, Rows
from residual_rl_ros.algorithms.rule import register
from residual_rl_ros.transitions.replay_buffer import NONE

ROUNDING = 1e-5
"""log pi of the same numbers, computed in another batch, may differ by less than this."""
MOST_LOG_RATIO = 20.0
"""Beyond it the exponential, and so a gradient, may not be finite; it is clipped anyway."""
MAX_IMPORTANCE = 2.0
"""Most that a row counts: an action that its older actor hardly ever draws."""


def augmented_reward(
    reward: Tensor,
    log_prior: Tensor | float,
    log_pi: Tensor,
    prior_weight: float,
    temperature: float,
) -> Tensor:
    """Return r = r_R + omega' log pi(a|s) - alpha^ log pi_b(a|s), shape (rows,)."""
    return reward + prior_weight * log_prior - temperature * log_pi


def generalised_advantage(
    td_error: npt.NDArray[np.float64], following: npt.NDArray[np.int64], decay: float
) -> npt.NDArray[np.float64]:
    """Return A_t = delta_t + gamma lambda A_(t+1), shape (rows,); GAE, arXiv 1506.02438.

    Args:
        td_error: delta_t = r_t + gamma V(s_(t+1)) - V(s_t), without V at a termination; rows in the
            order of time.
        following: row of t + 1, `NONE` where the sum ends: delta_t has V(s_(t+1)) there already.
        decay: gamma lambda.
    """
    advantage = td_error.copy()
    for row in range(len(advantage) - 1, -1, -1):
        if following[row] != NONE:
            advantage[row] += decay * advantage[following[row]]
    return advantage


def present_advantage(
    advantage: Tensor, log_pi: Tensor, log_behaviour: Tensor, temperature: float
) -> Tensor:
    """Return A - alpha^ (log pi^(a|s) - log pi_b(a|s)), shape (batch,), without gradient.

    It is A with the entropy of the present step taken of the actor as it moves. With that of pi_b
    the surrogate is linear: it goes to its clip range however little is left to gain, and beyond
    the soft optimum.
    """
    moved = log_pi.detach() - log_behaviour
    return advantage - temperature * moved * (moved.abs() > ROUNDING)


def clipped_surrogate(
    log_pi: Tensor, log_proximal: Tensor, advantage: Tensor, importance: Tensor, clip_range: float
) -> Tensor:
    """Return the mean of -w min(rho A, clip(rho, 1 - eps, 1 + eps) A) with rho = pi^ / pi_o.

    Args:
        log_pi: log pi^(a|s), shape (batch,).
        log_proximal: log pi_o(a|s), shape (batch,).
        advantage: A, shape (batch,).
        importance: w = pi_o / pi_b, shape (batch,).
        clip_range: eps.
    """
    ratio = (log_pi - log_proximal).clamp_max(MOST_LOG_RATIO).exp()
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -(importance * torch.minimum(ratio * advantage, clipped * advantage)).mean()


def squared_value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Return half the mean of (V(s) - (A + V_o(s)))^2."""
    return 0.5 * (value - target).square().mean()


def describe(
    reward: Tensor, log_prior: Tensor, log_pi: Tensor, importance: Tensor, unknown: Tensor
) -> dict[str, Tensor]:
    """Return metrics of a rollout; see `augmented_reward` for the arguments."""
    return {
        'learned_reward': reward.mean(),
        'entropy': -log_pi.mean(),
        'kl_to_prior': (log_pi - log_prior).mean(),
        'importance_deviation': (importance - 1.0).abs().mean(),
        'rollout_unknown_rows': unknown,
    }


@register('residual_ppo', OnPolicyConfig)
class ResidualPpo(OnPolicyCustomisation):
    """Residual PPO; see `OnPolicyCustomisation` for the arguments."""

    @torch.no_grad()
    def begin_phase(self, rollout: Rollout) -> Rows:
        """Return what a phase learns from, and describe the rollout in `rollout_metrics`."""
        config, batch, rows = self.config, rollout.batch, len(rollout.following)
        s, told = batch.observation, batch.prior
        # What was drawn, whatever the limits of the robot have made of it: they are a part of the
        # world, as the add-on of what was executed is.
        a = batch.base_action + self.bound * rollout.residual
        # The residual bound alone is known: what was cut off there is as likely as all beyond it.
        end = rollout.residual.sign() * (rollout.residual.abs() >= 1.0)

        # How likely that was by the actor of each row, and is now.
        by_actor = [functional_call(self.actor, each, (s, told, a, end)) for each in rollout.actors]
        log_behaviour = torch.stack(by_actor)[rollout.actor, torch.arange(rows)]
        log_proximal = self.actor(s, told, a, end)
        importance = (log_proximal - log_behaviour).exp()

        # r = r_R + omega' log pi - alpha^ log pi_b.
        learned = self.reward(batch)
        log_prior = self.prior.log_prob(told, a, end) if self.prior else torch.zeros(rows)
        reward = augmented_reward(
            learned, log_prior, log_behaviour, config.prior_weight, config.temperature
        )

        # A, and the target of V.
        value, next_value = self.critic(s), self.critic(batch.next_observation)
        td_error = (reward + batch.bootstrap * next_value - value).double().numpy()
        decay = config.gamma * config.gae_lambda
        gae = generalised_advantage(td_error, rollout.following, decay)
        advantage = torch.from_numpy(gae).float()
        target = advantage + value
        self.critic.rescale(target)

        unknown = torch.tensor(float(rollout.unknown))
        self.rollout_metrics = describe(learned, log_prior, log_behaviour, importance, unknown)
        return {
            'observation': s,
            'told': told,
            'action': a,
            'end': end,
            'log_behaviour': log_behaviour,
            'log_proximal': log_proximal,
            'importance': importance.clamp_max(MAX_IMPORTANCE),
            'advantage': advantage - advantage.mean(),
            # What is worth less than entropy is not blown up.
            'unit': (advantage.std() + 1e-8).clamp_min(config.temperature).expand(rows),
            'target': target,
        }

    def update(self) -> dict[str, Tensor]:
        """Take one gradient step on actor and value; empty if there is nothing to learn from."""
        row = self.next_rows()
        if not row:
            return {}

        # Actor.
        log_pi = self.actor(row['observation'], row['told'], row['action'], row['end'])
        advantage = present_advantage(
            row['advantage'], log_pi, row['log_behaviour'], self.config.temperature
        )
        loss = clipped_surrogate(
            log_pi,
            row['log_proximal'],
            advantage / row['unit'],
            row['importance'],
            self.config.clip_range,
        )
        actor_norm = self.step_actor(loss)

        # Value, in units of the deviation of its targets.
        value, target = self.critic(row['observation']), row['target']
        critic_loss = squared_value_loss(value / self.critic.std, target / self.critic.std)
        critic_norm = self.step_critic(critic_loss)

        log_ratio = log_pi.detach() - row['log_proximal']
        moved = log_ratio.exp() - 1.0
        return self.rollout_metrics | {
            'actor_loss': loss.detach(),
            'critic_loss': critic_loss.detach(),
            'actor_grad_norm': actor_norm,
            'critic_grad_norm': critic_norm,
            'update_kl': (moved - log_ratio).mean(),
            'clipped_share': (moved.abs() > self.config.clip_range).float().mean(),
        }
