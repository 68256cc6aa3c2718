# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What on-policy rules of customisation share: numbers, networks, and the phases of updates.

Every `rollout_length` transitions a *phase* takes what robots have done since the one before, goes
through it `epochs` times in random batches, and forgets it. The learner publishes every
`publish_interval` transitions, at the end of a phase too if that divides `rollout_length`. Robots
act on with the actor before for one interval, so that learning and collecting overlap: so many rows
of the next rollout are of an older actor, which `RolloutMemory` knows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from residual_rl_ros.algorithms.config import MAX_BATCH, DiscountConfig, too_deep
from residual_rl_ros.algorithms.customisation import (
    MAX_KNOB,
    CustomisationConfig,
    CustomisedReward,
)
from residual_rl_ros.algorithms.prior import CustomisedActor, Density
from residual_rl_ros.algorithms.rollout_memory import Rollout, RolloutMemory, Rows
from residual_rl_ros.algorithms.training_state import Adam, TrainingState, seeded
from residual_rl_ros.residual_policy.architecture import MAX_HIDDEN_SIZE
from residual_rl_ros.residual_policy.perceptron import LEAST_LOG_STD, MOST_LOG_STD
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.residual_policy.torch_networks import FlatParameters
from residual_rl_ros.residual_policy.torch_perceptron import ValueNetwork
from residual_rl_ros.schema import parameter
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition

EPS = 1e-5
"""Of Adam, as is usual for PPO: gradients that are rounding alone move nothing."""
ORDER, DONE = 'order', 'done'
"""Of a phase: the rows of its batches, shape (epochs, rows), and how many updates it has had."""


@dataclass(frozen=True)
class GreedyConfig(CustomisationConfig):
    """The same knobs; on-policy the entropy may be worth nothing."""

    section: ClassVar[str] = 'customisation'

    temperature: float = parameter(
        1.0,
        "alpha^: what the learned policy's entropy is worth; equal to prior_weight, the policy is "
        'KL-regularised to the base; both 0 is greedy',
        0.0,
        MAX_KNOB,
    )


@dataclass(frozen=True)
class OnPolicyConfig(DiscountConfig, GreedyConfig):
    """Numbers of rules that learn from rollouts of their own actor."""

    section: ClassVar[str] = 'objective'

    rollout_length: int = parameter(2048, 'transitions between two phases of updates', 2)
    epochs: int = parameter(10, 'times that a phase goes through its rollout', 1)
    batch_size: int = parameter(64, 'transitions per update', 1, MAX_BATCH)
    gae_lambda: float = parameter(
        0.95, 'how far rewards count in an advantage before values stand in for them', 0.0, 1.0
    )
    clip_range: float = parameter(
        0.2, 'change of the probability of an action beyond which it is not pushed', above=0.0
    )
    learning_rate: float = parameter(3e-4, 'Adam step size', above=0.0)
    max_grad_norm: float = parameter(0.5, 'gradient norm limit of each network', above=0.0)
    hidden_sizes: tuple[int, ...] = parameter(
        (64, 64), 'hidden layers of every network', 1, MAX_HIDDEN_SIZE
    )
    initial_log_std: float = parameter(
        0.0,
        'log standard deviation before tanh at the start, if the base policy tells no density',
        LEAST_LOG_STD,
        MOST_LOG_STD,
    )
    refit_normalizer: bool = parameter(
        False, 'fit the observation normalisers again whenever the transitions have doubled'
    )

    @property
    def on_policy(self) -> bool:
        """Whether it learns only from decisions that its own actor drew, with its own noise."""
        return True

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        yield from super().problems()
        if self.batch_size > self.rollout_length:
            yield (
                f'batch_size is {self.batch_size}, expected at most rollout_length, which is '
                f'{self.rollout_length}'
            )
        yield from too_deep('hidden_sizes', self.hidden_sizes)


class OnPolicyCustomisation(TrainingState, ABC):
    """Memory, networks and phases; subclasses add what a phase learns from, and the update.

    Args:
        config: numbers.
        layout: sizes, and what the base policy tells of its density.
        generator: source of random numbers of initialisation.
        rng: source of the order of rows.

    Raises:
        ConfigError: the base policy tells no density though `prior_weight` is above 0, or the
            robot lacks an observation or action that an add-on names.
    """

    def __init__(
        self,
        config: OnPolicyConfig,
        layout: TransitionLayout,
        generator: torch.Generator,
        rng: np.random.Generator,
    ) -> None:
        self.config, self.layout = config, layout
        self.memory = RolloutMemory(layout, config.rollout_length)
        self.reward = CustomisedReward(config, layout)
        self.prior = Density(layout) if config.prior_weight else None
        """The density of the base policy; None if it counts for nothing."""
        sizes, start = config.hidden_sizes, config.initial_log_std
        self.actor = seeded(lambda: CustomisedActor(layout, sizes, start), generator)
        self.critic = seeded(lambda: ValueNetwork(layout.observation_size, sizes), generator)
        self._flat_actor = FlatParameters(self.actor)
        self._flat_critic = FlatParameters(self.critic)
        self.actor_optimizer = Adam(self._flat_actor.vector, config.learning_rate, EPS)
        self.critic_optimizer = Adam(self._flat_critic.vector, config.learning_rate, EPS)
        self._generator, self._rng = generator, rng
        self._updates = 0
        self.rollout_metrics: dict[str, Tensor] = {}
        """Of the rollout that is learned from."""
        self._seen, self._fitted = (torch.zeros((), dtype=torch.int64) for _ in range(2))
        """Transitions observed, and how many there were when the normalisers were fitted."""
        self.bound = torch.tensor(layout.residual_bound).repeat(layout.decision_steps)
        """Largest residual, shape (k * m,), command units."""

    @property
    def _batches(self) -> int:
        """Updates of an epoch."""
        return math.ceil(self.config.rollout_length / self.config.batch_size)

    @abstractmethod
    def begin_phase(self, rollout: Rollout) -> Rows:
        """Return what a phase learns from, and describe the rollout in `rollout_metrics`."""

    @abstractmethod
    def update(self) -> dict[str, Tensor]:
        """Take one gradient step on rows of the rollout and return scalar metrics, detached."""

    def next_rows(self) -> Rows:
        """Return the rows of an update; the first one of a phase takes the rollout.

        Empty if robots have done nothing to learn from since the last phase.
        """
        if not self.memory.phase:
            rollout = self.memory.take(self.config.gamma)
            rows = len(rollout.following)
            if rows < 2:  # No advantage stands out.
                return {}
            if self.config.refit_normalizer and self._seen >= 2 * self._fitted:
                self._fit(rollout.batch.observation)
            self.memory.phase = self.begin_phase(rollout)
            order = [self._rng.permutation(rows) for _ in range(self.config.epochs)]
            self.memory.phase[ORDER] = torch.from_numpy(np.array(order))
            self.memory.phase[DONE] = torch.zeros((), dtype=torch.int64)
        phase = self.memory.phase
        # A rollout of few rows, since others acted too, has fewer batches; one of two phases that
        # were owed has those of both.
        rows = phase[ORDER].shape[1]
        phases = max(1, rows // self.config.rollout_length)
        batches = min(phases * self._batches, math.ceil(rows / self.config.batch_size))
        epoch, part = divmod(int(phase[DONE]), batches)
        drawn = phase[ORDER][epoch].tensor_split(batches)[part]
        phase[DONE] += 1
        if int(phase[DONE]) == self.config.epochs * batches:
            self.memory.phase = {}
        self._updates += 1
        return {name: value[drawn] for name, value in phase.items() if name not in (ORDER, DONE)}

    def step_actor(self, loss: Tensor) -> Tensor:
        """Descend on the actor; return its gradient norm before clipping."""
        norms = self._flat_actor.differentiate(loss, self.config.max_grad_norm)
        self.actor_optimizer.step()
        return norms.max()

    def step_critic(self, loss: Tensor) -> Tensor:
        """Descend on the value function; return its gradient norm before clipping."""
        norms = self._flat_critic.differentiate(loss, self.config.max_grad_norm)
        self.critic_optimizer.step()
        return norms.max()

    @property
    def temperature(self) -> float:
        """Alpha^."""
        return self.config.temperature

    def set_add_on(self, text: str, weight: float = 1.0) -> None:
        """Learn for another add-on from now on; see `CustomisedReward.set_add_on`."""
        self.reward.set_add_on(text, weight)

    # --- the learner's questions (`Rule`)

    def observe(self, transition: Transition, robot: str = '') -> None:
        """Store a transition of a robot."""
        self.memory.add(transition, robot)
        self._seen += 1

    def prepare(self, pulse: Callable[[], None]) -> dict[str, Tensor]:
        """Fit the observation normalisers to the warm-up, and forget it."""
        self._fit(self.memory.observations())
        self.memory.clear()
        return {}

    def _fit(self, observations: Tensor) -> None:
        for network in (self.actor.network, self.critic):
            network.normalizer.fit(observations)
        self._fitted.copy_(self._seen)

    def updates_due(self, transitions: int) -> int:
        """Return those of the phases of all whole rollouts."""
        phases = transitions // self.config.rollout_length
        return phases * self.config.epochs * self._batches

    def published(self, version: tuple[int, int]) -> None:
        """Remember the actor that robots may use from now on, by its version."""
        self.memory.published(version, self.actor.state_dict())

    def derived(self) -> dict[str, float]:
        """Return that nothing follows from the warm-up."""
        return {}

    def diagnose(self) -> dict[str, float]:
        """Return the knobs, and mean and deviation of the targets of the value function."""
        return {
            'prior_weight': self.config.prior_weight,
            'add_on_weight': self.reward.weight,
            'value_mean': float(self.critic.mean),
            'value_std': float(self.critic.std),
        }

    def robot_policy(self) -> RobotPolicy:
        """Return a copy of what is learned, as the robot runs it."""
        return self.actor.robot_policy()

    def _modules(self) -> dict[str, nn.Module]:
        return {'actor': self.actor, 'critic': self.critic}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            'actor_optimizer': self.actor_optimizer,
            'critic_optimizer': self.critic_optimizer,
        }

    def _scalars(self) -> dict[str, Tensor]:
        return {'seen': self._seen, 'fitted': self._fitted}
