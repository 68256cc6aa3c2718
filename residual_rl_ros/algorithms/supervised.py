# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A residual that is regressed on demonstrations, without any reinforcement learning.

It is the baseline that every use of demonstrations has to beat: the residual actor is moved towards
what was demonstrated less what the base policy would have done, and stays what it is then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from residual_rl_ros.algorithms.actor_critic import ActorCritic
from residual_rl_ros.algorithms.config import ActorCriticConfig
from residual_rl_ros.algorithms.rule import register
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.schema import parameter
from residual_rl_ros.transitions.layout import TransitionLayout


@dataclass(frozen=True)
class SupervisedConfig(ActorCriticConfig):
    """Numbers of the regression."""

    section: ClassVar[str] = 'objective'

    regression_updates: int = parameter(
        4000, 'gradient steps of the actor on the demonstrations, after the warm-up', 1
    )

    @property
    def preparation_updates(self) -> int:
        """Number of updates that `prepare` takes."""
        return self.regression_updates

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        yield from super().problems()
        for key in ('anchor_updates', 'critic_only_updates'):
            if getattr(self, key):
                yield (
                    f'{key} is {getattr(self, key)}, expected 0 with supervised: it trains no '
                    'critics'
                )


@register('supervised', SupervisedConfig)
class Supervised(ActorCritic):
    """Regression on demonstrations; see `ActorCritic` for the arguments."""

    config: SupervisedConfig

    def __init__(
        self,
        config: SupervisedConfig,
        layout: TransitionLayout,
        generator: torch.Generator,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(config, layout, generator, rng, exploration_std=0.0)

    def prepare(self, pulse: Callable[[], None]) -> dict[str, Tensor]:
        """Fit the actor to the demonstrations.

        Raises:
            ConfigError: there are none.
        """
        if not self.memory.demonstrations:
            raise ConfigError(
                'algorithm supervised has no demonstrations to learn from; name some with '
                '--demonstrations'
            )
        self.fit()
        metrics: dict[str, Tensor] = {}
        for _ in range(self.config.regression_updates):
            pulse()
            metrics = self.update()
        return metrics

    def updates_due(self, transitions: int) -> int:
        """Return 0: what the robot does teaches nothing."""
        del transitions
        return 0

    def update(self, critic_only: bool = False) -> dict[str, Tensor]:
        """Take one gradient step of the actor towards demonstrated residuals."""
        del critic_only
        batch = self.memory.sample_demonstrations(self.config.batch_size).to(self.device)
        b = batch.base_action
        u = self.actor.mean_action(batch.observation, b)
        loss = (u - self.actor.as_residual(batch.executed_action - b)).square().mean()
        norm = self.step_actor(loss)
        self._flat_mean_actor.follow(self._flat_actor, self.config.actor_averaging)
        return {'imitation_loss': loss.detach(), 'actor_grad_norm': norm}

    @torch.no_grad()
    def diagnose(self) -> dict[str, float]:
        """Return metrics of the residual on demonstrations; the critics are never trained."""
        batch = self.memory.sample_demonstrations(self.config.batch_size).to(self.device)
        return self.residual_metrics(self.actor.mean_action(batch.observation, batch.base_action))
