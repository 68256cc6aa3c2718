# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the off-policy rules share: numbers, networks, optimisers, the critics' input.

Notation: s observation, b base action, u residual action in [-1, 1], lambda the residual bound,
a = b + lambda u the executed action, r the n-step sum of rewards over j decisions, a prime for the
decision after them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from residual_rl_ros.algorithms.config import ActorCriticConfig
from residual_rl_ros.algorithms.losses import critic_loss, neutral_prior_loss
from residual_rl_ros.algorithms.replay_memory import ReplayMemory
from residual_rl_ros.algorithms.training_state import Adam, TrainingState, plasticity, seeded
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.architecture import (
    ActorArchitecture,
    CriticArchitecture,
)
from residual_rl_ros.residual_policy.candidate_selection import BestOfNActor
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.residual_policy.torch_networks import Critic, FlatParameters, ResidualActor
from residual_rl_ros.transitions.batch import Batch
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition

PRIOR_ROWS = 64
"""Rows of a batch on which the neutral prior is taken."""


class ActorCritic(TrainingState, ABC):
    """Networks, optimisers and memory; subclasses add the update.

    Args:
        config: numbers.
        layout: sizes, action range and residual bound.
        generator: source of random numbers of initialisation and updates.
        rng: source of the draws from the memory.
        exploration_std: fixed exploration noise of a deterministic actor; None for a learned one.
    """

    def __init__(
        self,
        config: ActorCriticConfig,
        layout: TransitionLayout,
        generator: torch.Generator,
        rng: np.random.Generator,
        exploration_std: float | None = None,
    ) -> None:
        if layout.discrete:
            raise ConfigError(
                'the preset is for continuous actions, and those of this robot are discrete: use '
                'residual_soft_q'
            )
        self.config = self._preset = config
        self.memory = ReplayMemory(config, layout, rng)
        self._episode_decisions = 0.0  # In the warm-up; 0 while it goes on.
        self._generator = generator
        n, km = layout.observation_size, layout.decision_size

        def build() -> tuple[ResidualActor, Critic]:
            residual_size = layout.action_size if config.hold_residual else km
            architecture = ActorArchitecture(
                layout,
                config.actor_hidden_sizes,
                config.actor_sees_base_action,
                residual_size,
                config.actor_layer_norm,
                exploration_std,
            )
            actor = ResidualActor(architecture)
            inputs = n + (2 if config.critic_sees_residual else 1) * km
            sizes, normalization = config.critic_hidden_sizes, config.critic_normalization
            return actor, Critic(config.critic_heads, inputs, sizes, normalization)

        self.actor, self.critic = seeded(build, generator)
        self.device = config.find_device()
        self.actor.to(self.device)
        self.critic.to(self.device)
        self.actor.body.in_bfloat16 = self.critic.body.in_bfloat16 = config.in_bfloat16
        self.mean_actor = deepcopy(self.actor).requires_grad_(False)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.bound = self.actor.residual_bound
        self._updates = 0
        heads = config.critic_heads
        self._flat_actor = FlatParameters(self.actor)
        self._flat_mean_actor = FlatParameters(self.mean_actor)
        self._flat_critic = FlatParameters(self.critic, heads)
        self._flat_target_critic = FlatParameters(self.target_critic, heads)
        self.actor_optimizer = Adam(self._flat_actor.vector, config.actor_learning_rate)
        self.critic_optimizer = Adam(self._flat_critic.vector, config.critic_learning_rate)

    # --- the learner's questions (`Rule`)

    def observe(self, transition: Transition, robot: str = '') -> None:
        """Store a transition of a robot."""
        self.memory.add(transition, robot)
        fitted = self.memory.normalizer_transitions
        if self.config.refit_normalizer and fitted and len(self.memory) >= 2 * fitted:
            self.fit_normalizer()

    def prepare(self, pulse: Callable[[], None]) -> dict[str, Tensor]:
        """Fit what depends on the task and train the critics alone, if the preset wants it."""
        self.fit()
        metrics = self.anchor(pulse)
        return {**metrics, **self.train_critics_alone(pulse)}

    def anchor(self, pulse: Callable[[], None]) -> dict[str, Tensor]:
        """Regress the critics on the returns of the memory; return the metrics of the last update.

        Values that start near zero tell the actor for thousands of updates that any residual leads
        to success: bootstrapped, the price of failure comes back one decision at a time. Rows whose
        return is not known are left out.
        """
        metrics: dict[str, Tensor] = {}
        if not self.config.anchor_updates:
            return metrics
        returns = self.memory.known_returns(self.config.reward_offset)
        known = np.flatnonzero(returns.isfinite().numpy())
        if not len(known):
            self.remark = (
                f'anchor_updates is {self.config.anchor_updates}, but all {len(returns)} decisions '
                'of the warm-up are of episodes that a time limit ended, or an operator, and their '
                'rewards are not 0 and 1: no return is known, and the critics start without an '
                'anchor; let success and failure end episodes, or set anchor_updates to 0'
            )
            return metrics
        returns = returns.to(self.device)
        for _ in range(self.config.anchor_updates):
            pulse()
            batch = self.memory.sample_rows(known, self.config.batch_size).to(self.device)
            s = self.actor.normalizer(batch.observation)
            metrics = self.regress(batch, s, returns[batch.row])
        self._flat_target_critic.follow(self._flat_critic, 1.0)
        return metrics

    def fit(self) -> None:
        """Take the scale of observations and the length of episodes from the memory."""
        self.fit_normalizer()
        self._scale(self.memory.episode_decisions)
        self.remark = self.config.short_sight(self.memory.episode_decisions)

    def _scale(self, episode_decisions: float) -> None:
        self._episode_decisions = episode_decisions
        self.config = self.memory.config = self._preset.scaled(episode_decisions)

    def derived(self) -> dict[str, float]:
        """Return the numbers that follow from the warm-up, by their names in a preset."""
        names = ('gamma', 'reward_offset')
        own, preset = self.config, self._preset
        return {n: getattr(own, n) for n in names if getattr(own, n) != getattr(preset, n)}

    def sample(self, size: int = 0) -> Batch:
        """Draw a batch from the memory; of `batch_size` if no size is given."""
        return self.memory.sample(size).to(self.device)

    @property
    def online_updates(self) -> int:
        """Updates since the warm-up: those of `prepare` are no experience of the robot."""
        config = self.config
        # The anchor's are not counted as updates.
        return max(0, self._updates - (config.preparation_updates - config.anchor_updates))

    def train_critics_alone(self, pulse: Callable[[], None]) -> dict[str, Tensor]:
        """Take the critic-only updates; return the metrics of the last."""
        metrics: dict[str, Tensor] = {}
        for _ in range(self.config.critic_only_updates):
            pulse()
            metrics = self.update(critic_only=True)
        return metrics

    def updates_due(self, transitions: int) -> int:
        """Return `utd` times the transitions."""
        return self.config.updates_for(transitions)

    @abstractmethod
    def update(self, critic_only: bool = False) -> dict[str, Tensor]:
        """Take one gradient step on a batch of the memory and return scalar metrics, detached."""

    def robot_policy(self) -> RobotPolicy:
        """Return a copy of the published actor; with `residual_candidates`, critics choose."""
        config, actor = self.config, self.mean_actor.to_numpy()
        if not config.residual_candidates:
            return actor
        # The more must agree, the fewer residuals are executed.
        heads = config.choosing_heads or config.critic_target_heads
        tensors = {
            name: value[:heads].cpu().numpy().copy()
            for name, value in self.critic.state_dict().items()
        }
        critics = self.critic_architecture(heads)
        return BestOfNActor.of(actor, critics, tensors, config.residual_candidates)

    def critic_architecture(self, heads: int) -> CriticArchitecture:
        """Return the sizes of so many of the critics."""
        config = self.config
        return CriticArchitecture(
            heads,
            config.critic_hidden_sizes,
            config.critic_normalization,
            config.critic_sees_residual,
        )

    def published(self, version: tuple[int, int]) -> None:
        """Take no note: off-policy rules learn from whoever acted."""

    # --- shared by the updates

    def fit_normalizer(self) -> None:
        """Fit the observation normaliser to the memory."""
        observations = self.memory.observations()
        for actor in self._actors():
            actor.normalizer.fit(observations)
        self.memory.normalizer_transitions = len(self.memory)

    def critic_action(self, base: Tensor, action: Tensor) -> Tensor:
        """Return what the critics see of an executed action.

        The residual is a small part of the sum; in units of its bound it has the scale of the
        other inputs (the structural scale mismatch that DAWN names).
        """
        scaled = self.actor.scale_action(action)
        if not self.config.critic_sees_residual:
            return scaled
        # A takeover can be far outside the bound. A dimension without a bound has no residual: what
        # differs there is rounding of the way to the robot and back, or an operator's.
        residual = ((action - base) / self.bound.clamp_min(1e-6)).clamp(-3.0, 3.0)
        return torch.cat([scaled, residual * (self.bound > 0.0)], dim=-1)

    def executed_value(self, batch: Batch, s: Tensor) -> Tensor:
        """Return Q_i(s, a) of the executed actions, shape (heads, batch)."""
        q: Tensor = self.critic(s, self.critic_action(batch.base_action, batch.executed_action))
        return q

    def target_value(
        self, s_next: Tensor, base: Tensor, u: Tensor, cost: Tensor | float = 0.0
    ) -> Tensor:
        """Return the value of the next decision, shape (batch,).

        It is the minimum over the drawn target critics, less the cost of the residual; with
        `base_in_target` that of the base, which costs nothing, where the minimum is larger there.
        The robot decides almost like this if critics choose: it takes the base action if one of
        them sees no advantage, and else the best of several residuals.

        Args:
            s_next: normalised observation, shape (batch, n).
            base: base action, shape (batch, k * m).
            u: residual, shape (batch, k * m).
            cost: of each residual, such as alpha log pi, shape (batch,).
        """
        a = self.critic_action(base, base + self.bound * u)
        if self.config.base_in_target:
            s_next, a = s_next.repeat(2, 1), torch.cat([a, self.critic_action(base, base)])
        q: Tensor = self.target_critic(s_next, a)
        q = q[self.draw_target_heads()]
        of_residual, *of_base = q.amin(0).view(-1, len(base))
        value = of_residual - cost
        return torch.where(of_base[0] > of_residual, of_base[0], value) if of_base else value

    def draw_target_heads(self) -> Tensor | slice:
        """Return which of the target critics make a target."""
        drawn, heads = self.config.critic_target_heads, self.config.critic_heads
        if self.config.critic_heads_repeat:
            return torch.randint(heads, (drawn,), generator=self._generator)
        if drawn < heads:
            return torch.randperm(heads, generator=self._generator)[:drawn]
        return slice(None)

    def random_advantage(self, s: Tensor, b: Tensor) -> Tensor:
        """Return Q_i(s, b + lambda u) - Q_i(s, b) for uniform u, shape (heads, rows).

        Where the data say nothing of a residual, the value that a critic gives it is arbitrary. The
        actor follows a high one at once and never tries a residual with a low one. The base's value
        takes no gradient.
        """
        u = self.actor.uniform((len(b),), self._generator)
        with torch.no_grad():
            q_base = self.critic(s, self.critic_action(b, b))
        advantage: Tensor = self.critic(s, self.critic_action(b, b + self.bound * u)) - q_base
        return advantage

    def with_neutral_prior(self, loss: Tensor, batch: Batch, s: Tensor) -> Tensor:
        """Return the loss of the critics plus the prior's, as much of it as is left by now."""
        weight = self.config.neutral_prior
        if self.config.neutral_prior_episodes:
            learned_from = self.online_updates / self.config.utd
            episodes = learned_from / max(1.0, self._episode_decisions)
            weight *= max(0.0, 1.0 - episodes / self.config.neutral_prior_episodes)
        if not weight:
            return loss
        advantage = self.random_advantage(s[:PRIOR_ROWS], batch.base_action[:PRIOR_ROWS])
        return loss + weight * neutral_prior_loss(advantage)

    def with_imitation(self, loss: Tensor, batch: Batch, s: Tensor) -> Tensor:
        """Return the loss of the actor plus `imitation_weight` times that of imitation.

        Only demonstrated residuals that the critics prefer to the actor's count (the Q filter of
        Nair et al., arXiv 1709.10089): the term vanishes with agreement, and where the actor has
        become better than what it was shown.
        """
        count = batch.demonstrations
        if not (self.config.imitation_weight and count):
            return loss
        b = batch.base_action[-count:]
        shown = self.actor.as_residual(batch.executed_action[-count:] - b)
        u = self.actor.mean_action(batch.observation[-count:], b)
        with torch.no_grad():
            a = torch.cat([b + self.bound * shown, b + self.bound * u])
            q = self.critic(s[-count:].repeat(2, 1), self.critic_action(b.repeat(2, 1), a)).amin(0)
            preferred = q[:count] > q[count:]
        distance = (u - shown).square().mean(-1)
        imitation: Tensor = (distance * preferred).mean()
        return loss + self.config.imitation_weight * imitation

    def regress(self, batch: Batch, s: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Take one gradient step on the critics towards y, shape (batch,); return metrics."""
        q = self.executed_value(batch, s)
        loss = critic_loss(q, y)
        metrics = {'critic_loss': loss.detach(), 'td_error': (q - y).detach().abs().mean()}
        metrics['critic_grad_norm'] = self.step_critic(self.with_neutral_prior(loss, batch, s))
        return metrics

    def step_critic(self, loss: Tensor) -> Tensor:
        """Descend on the critics; return the largest gradient norm of one before clipping."""
        norms = self._flat_critic.differentiate(loss, self.config.max_grad_norm)
        self.critic_optimizer.step()
        self.critic.project()
        return norms.max()

    def step_actor(self, loss: Tensor) -> Tensor:
        """Descend on the actor alone; return its gradient norm before clipping."""
        norm = self._flat_actor.differentiate(loss, self.config.max_grad_norm)
        self.actor_optimizer.step()
        return norm.squeeze(0)

    def actor_due(self) -> bool:
        """Count an update; return whether it trains the actor too."""
        self._updates += 1
        return self._updates % self.config.actor_interval == 0

    def follow(self, step_actor: bool) -> None:
        """Move the slow copies: theta' <- theta' + tau (theta - theta')."""
        self._flat_target_critic.follow(self._flat_critic, self.config.tau)
        self.target_critic.project()
        if step_actor:
            self._flat_mean_actor.follow(self._flat_actor, self.config.actor_averaging)

    @torch.no_grad()
    def diagnose(self) -> dict[str, float]:
        """Return metrics on a batch of the memory, which cost as much as several updates.

        `q_base`, `q_executed` and `q_policy` compare the base's action, the executed one and the
        mean of the trained actor, whose size and saturation are `residual_magnitude` and
        `residual_saturation`, on the same states. `base_preferred_share` says in how many of them
        a critic sees no advantage of that mean.
        """
        batch = self.sample()
        s = self.actor.normalizer(batch.observation)
        b = batch.base_action
        q_base = self.critic(s, self.critic_action(b, b))
        u = self.actor.mean_action(batch.observation, b)
        q_policy = self.critic(s, self.critic_action(b, b + self.bound * u))
        preferred = ~((q_policy - q_base).amin(0) > 0.0)
        executed = self.critic_action(b, batch.executed_action)
        features = self.critic.features(s, executed)
        return {
            'q_base': float(q_base.mean()),
            'q_policy': float(q_policy.mean()),
            'base_preferred_share': float(preferred.float().mean()),
            **self.residual_metrics(u),
            'q_executed': float(self.critic.head(features).mean()),
            **plasticity(features),
            'gamma': self.config.gamma,
        }

    def residual_metrics(self, u: Tensor) -> dict[str, float]:
        """Return metrics of residuals, shape (batch, k * m), and of what they are learned from."""
        size = u[:, self.bound > 0.0].abs()
        metrics = {
            'residual_magnitude': float(size.mean()),
            'residual_saturation': float((size > 0.95).float().mean()),
            'normalizer_transitions': float(self.memory.normalizer_transitions),
        }
        if self.config.samples_demonstrations:
            metrics['demonstrations'] = float(self.memory.demonstrations)
        return metrics

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor needed to continue, by name, for a checkpoint."""
        decisions = torch.tensor(self._episode_decisions, dtype=torch.float64)
        return {**super().state_dict(), 'episode_decisions': decisions}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned; see `Rule`."""
        super().load_state_dict(tensors)
        if tensors['episode_decisions']:
            self._scale(float(tensors['episode_decisions']))

    def _actors(self) -> list[ResidualActor]:
        return [self.actor, self.mean_actor]

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {
            'actor': self.actor,
            'mean_actor': self.mean_actor,
            'critic': self.critic,
            'target_critic': self.target_critic,
        }

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            'actor_optimizer': self.actor_optimizer,
            'critic_optimizer': self.critic_optimizer,
        }
