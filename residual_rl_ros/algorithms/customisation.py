# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the rules of policy customisation share: two knobs, and which reward they learn from.

Notation: pi the prior, which is the base policy; r_R the add-on reward; omega' (`prior_weight`) and
alpha^ (`temperature`) the knobs; Q_R and pi^ what is learned. All rules look for the soft-optimal
policy of the reward omega' log pi(a|s) + r_R at temperature alpha^. Their learned functions leave
log pi of the present decision out: it is known, large and spiky (Li et al., "Residual Q-Learning",
arXiv 2306.09526). With omega' = 0 they are plain maximum-entropy rules, and train priors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from residual_rl_ros.algorithms.config import ComputationConfig, MemoryConfig, too_deep
from residual_rl_ros.algorithms.prior import Density
from residual_rl_ros.algorithms.replay_memory import ReplayMemory
from residual_rl_ros.algorithms.rule import ADD_ON, BASIC, TOTAL, RuleConfig
from residual_rl_ros.algorithms.training_state import TrainingState
from residual_rl_ros.errors import ConfigError, RewardError
from residual_rl_ros.residual_policy.architecture import MAX_HIDDEN_SIZE
from residual_rl_ros.residual_policy.torch_networks import Normalizer
from residual_rl_ros.rewards.composition import DESCRIPTION, AddOns, check_weight, decision_reward
from residual_rl_ros.schema import parameter
from residual_rl_ros.transitions.batch import Batch
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition

MAX_KNOB = 1e4
"""Largest omega' and alpha^: far more than any reward is worth beside log pi."""


@dataclass(frozen=True)
class CustomisationConfig(RuleConfig):
    """The knobs of customisation, and its reward."""

    section: ClassVar[str] = 'customisation'

    reward: str = parameter(
        ADD_ON,
        'what is learned from: the add-on reward, as customisation does; the basic reward, which '
        'the environment or robot tells, for a prior; or the total of both',
        choices=(BASIC, ADD_ON, TOTAL),
    )
    add_on: tuple[dict[str, Any], ...] = parameter(
        (), f'{DESCRIPTION}; those of the run, if it has any, replace them'
    )
    prior_weight: float = parameter(
        1.0,
        "omega': what log pi(a|s) of the base policy is worth; 0 forgets the base",
        0.0,
        MAX_KNOB,
    )
    temperature: float = parameter(
        1.0,
        "alpha^: what the learned policy's entropy is worth; equal to prior_weight, the policy "
        'starts as the base, and is KL-regularised to it',
        maximum=MAX_KNOB,
        above=0.0,
    )

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        try:
            AddOns.of(self.add_on)
        except ConfigError as error:
            yield str(error)


@dataclass(frozen=True)
class OffPolicyConfig(ComputationConfig, MemoryConfig, CustomisationConfig):
    """Numbers of rules that learn Q_R from a replay memory."""

    section: ClassVar[str] = 'objective'

    update_block: int = parameter(
        1, 'transitions after which the updates that are due are taken, together', 1
    )
    warm_start_transitions: int = parameter(
        0, 'transitions during which prior_weight is multiplied by warm_start_scale', 0
    )
    warm_start_scale: float = parameter(10.0, 'factor on prior_weight meanwhile', above=0.0)
    learning_rate: float = parameter(3e-4, 'Adam step size', above=0.0)
    max_grad_norm: float = parameter(50.0, 'gradient norm limit of each network', above=0.0)
    hidden_sizes: tuple[int, ...] = parameter(
        (256, 256), 'hidden layers of every network', 1, MAX_HIDDEN_SIZE
    )
    normalize_observations: bool = parameter(
        True, 'standardise observations with the statistics of the warm-up'
    )

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        yield from super().problems()
        if self.n_step != 1:
            yield (
                f'n_step is {self.n_step}, expected 1: the prior and the add-on of every decision '
                'count, and a sum over decisions keeps the first and last'
            )
        yield from too_deep('hidden_sizes', self.hidden_sizes)


class CustomisedReward:
    """The reward that a rule learns from, of transitions that store the basic one alone.

    An add-on is a pure function of a transition. So nothing is relabelled when it changes: it is
    taken whenever a batch is drawn.

    Args:
        config: which reward, and the add-ons to begin with.
        layout: transition layout.

    Raises:
        ConfigError: the robot lacks an observation or action that an add-on names.
    """

    def __init__(self, config: CustomisationConfig, layout: TransitionLayout) -> None:
        self.kind, self._layout = config.reward, layout
        self.add_ons, self.weight = AddOns.of(config.add_on), 1.0
        """The add-ons in use, and their common weight."""
        self._bound = decision_reward(self.add_ons, layout)
        self.failures = 0
        """Drawn transitions whose add-on reward was no finite number: there it counted as 0."""

    def set_add_on(self, text: str, weight: float = 1.0) -> None:
        """Take other add-ons from now on; an empty text is none.

        Args:
            text: the list of `CustomisationConfig.add_on`, in YAML.
            weight: factor on all of them; 0 is the basic reward.

        Raises:
            ConfigError: the text is no add-on, the robot lacks what it names, or the weight is out
                of range; the add-ons in use stay.
        """
        check_weight(weight)
        add_ons = AddOns.from_yaml(text)
        self._bound = decision_reward(add_ons, self._layout)
        self.add_ons, self.weight = add_ons, float(weight)

    def __call__(self, batch: Batch) -> Tensor:
        """Return the reward of each transition of a batch, shape (batch,).

        Raises:
            ConfigError: the batch sums the rewards of several decisions; only the first and the
                last observation of these are there.
        """
        if self.kind == BASIC:
            return batch.reward
        add_on = self.add_on(batch)
        return batch.reward + add_on if self.kind == TOTAL else add_on

    def add_on(self, batch: Batch) -> Tensor:
        """Return the weighted add-on reward of each transition of a batch, shape (batch,).

        Raises:
            ConfigError: as above.
        """
        if batch.n_step > 1:
            raise ConfigError(f'n_step is {batch.n_step}, expected 1 with an add-on reward')
        arrays = (batch.observation, batch.executed_action, batch.next_observation)
        values = self._weighted(*(each.cpu().numpy() for each in arrays))
        return torch.as_tensor(values, dtype=batch.reward.dtype, device=batch.reward.device)

    def of_transition(self, transition: Transition) -> float:
        """Return the reward of one transition."""
        if self.kind == BASIC:
            return transition.reward
        add_on = float(
            self._weighted(
                transition.observation, transition.executed_action, transition.next_observation
            )
        )
        return transition.reward + add_on if self.kind == TOTAL else add_on

    def _weighted(
        self,
        observation: npt.NDArray[np.floating],
        executed_action: npt.NDArray[np.floating],
        next_observation: npt.NDArray[np.floating],
    ) -> npt.NDArray[np.float64]:
        rows = observation, executed_action, next_observation
        try:
            values = self._bound.of_decision(*rows)
        except RewardError:
            # One bad number costs one number.
            if observation.ndim == 1:
                self.failures += 1
                return np.zeros(())
            return np.array([self._weighted(*row) for row in zip(*rows, strict=True)])
        weighted: npt.NDArray[np.float64] = self.weight * values
        return weighted


class OffPolicyCustomisation(TrainingState, ABC):
    """Memory, reward and prior of a rule that learns Q_R; subclasses add networks and the update.

    Args:
        config: numbers.
        layout: sizes, and what the base policy tells of its density.
        generator: source of random numbers of initialisation and updates.
        rng: source of the draws from the memory.

    Raises:
        ConfigError: the base policy tells no density though `prior_weight` is above 0, or the
            robot lacks an observation or action that an add-on names.
    """

    def __init__(
        self,
        config: OffPolicyConfig,
        layout: TransitionLayout,
        generator: torch.Generator,
        rng: np.random.Generator,
    ) -> None:
        self.config, self.layout = config, layout
        self.memory = ReplayMemory(config, layout, rng)
        self.reward = CustomisedReward(config, layout)
        self.device = config.find_device()
        self.prior = Density(layout).to(self.device) if config.prior_weight else None
        """The density of the base policy; None if it counts for nothing."""
        self._generator = generator
        self._updates = 0
        self._seen = torch.zeros((), dtype=torch.int64)
        """Transitions that were observed."""

    @property
    def prior_weight(self) -> float:
        """Omega' now."""
        warm = int(self._seen) < self.config.warm_start_transitions
        return self.config.prior_weight * (self.config.warm_start_scale if warm else 1.0)

    @property
    def temperature(self) -> float:
        """Alpha^ now."""
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
        """Fit the observation normalisers to the warm-up."""
        if self.config.normalize_observations:
            observations = self.memory.observations()
            for normalizer in self._normalizers():
                normalizer.fit(observations)
            self.memory.normalizer_transitions = len(self.memory)
        return {}

    def updates_due(self, transitions: int) -> int:
        """Return `utd` times the transitions, in blocks."""
        block = self.config.update_block
        return self.config.updates_for(transitions // block * block)

    def derived(self) -> dict[str, float]:
        """Return that nothing follows from the warm-up."""
        return {}

    def published(self, version: tuple[int, int]) -> None:
        """Take no note: off-policy rules learn from whoever acted."""

    def sample(self) -> tuple[Batch, Tensor]:
        """Draw a batch and its rewards, (batch,)."""
        batch = self.memory.sample()
        return batch.to(self.device), self.reward(batch).to(self.device)

    def diagnose(self) -> dict[str, float]:
        """Return the mean of the reward that is learned, on a batch, and the knobs."""
        _, reward = self.sample()
        return {
            'learned_reward': float(reward.mean()),
            'prior_weight': self.prior_weight,
            'add_on_weight': self.reward.weight,
            'add_on_failures': float(self.reward.failures),
        }

    def _normalizers(self) -> list[Normalizer]:
        return [
            each
            for network in self._modules().values()
            for each in network.modules()
            if isinstance(each, Normalizer)
        ]

    @abstractmethod
    def update(self) -> dict[str, Tensor]:
        """Take one gradient step on a batch of the memory and return scalar metrics, detached."""

    def _scalars(self) -> dict[str, Tensor]:
        return {'seen': self._seen}
