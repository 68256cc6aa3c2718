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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from residual_rl_ros.algorithms.rule import RuleConfig
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.rewards.composition import AddOns, decision_reward
from residual_rl_ros.schema import parameter
from residual_rl_ros.transitions.replay_buffer import Batch
from residual_rl_ros.transitions.transition import Transition, TransitionLayout

BASIC, ADD_ON, TOTAL = 'basic', 'add_on', 'total'
MAX_KNOB = 1e4
"""Largest omega' and alpha^: far more than any reward is worth beside log pi."""
MAX_ADD_ON_WEIGHT = 1e6


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
    add_on: str = parameter(
        '', 'add-on rewards, as a list of maps in YAML: [{name: ..., weight: 1.0}]; empty is none'
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
            AddOns.from_yaml(self.add_on)
        except ConfigError as error:
            yield str(error)


class CustomisedReward:
    """The reward that a rule learns from, of transitions that store the basic one alone.

    An add-on is a pure function of a transition. So nothing is relabelled when it changes: it is
    taken whenever a batch is drawn.

    Args:
        config: which reward, and the add-ons to begin with.
        layout: transition layout.

    Raises:
        ConfigError: the robot has not what an add-on reads.
    """

    def __init__(self, config: CustomisationConfig, layout: TransitionLayout) -> None:
        self.kind, self._layout = config.reward, layout
        self.text, self.weight = '', 1.0
        """The add-ons in use, as YAML, and their common weight."""
        self.set_add_on(config.add_on)

    def set_add_on(self, text: str, weight: float = 1.0) -> None:
        """Take other add-ons from now on; an empty text is none.

        Args:
            text: as `CustomisationConfig.add_on`.
            weight: factor on all of them; 0 is the basic reward.

        Raises:
            ConfigError: the text is none, the robot has not what it names, or the weight is out of
                range; the add-ons in use stay.
        """
        if not abs(weight) <= MAX_ADD_ON_WEIGHT:
            raise ConfigError(
                f'add_on_weight is {weight}, expected a number within {MAX_ADD_ON_WEIGHT:g}'
            )
        self._add_ons = decision_reward(AddOns.from_yaml(text), self._layout)
        self.text, self.weight = text, float(weight)

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
        if not bool((batch.reward_weight == 1.0).all()):
            raise ConfigError('n_step is above 1, expected 1 with an add-on reward')
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
        weighted: npt.NDArray[np.float64] = self.weight * self._add_ons.of_decision(
            observation, executed_action, next_observation
        )
        return weighted
