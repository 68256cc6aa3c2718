# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a robot is asked for beside its task, while it runs: an add-on reward and its weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import yaml

from residual_rl_ros.errors import ConfigError, RewardError
from residual_rl_ros.rewards.composition import AddOns, check_weight, decision_reward
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition


class Customisation:
    """The add-on reward of a robot.

    Args:
        layout: its transitions.
    """

    def __init__(self, layout: TransitionLayout) -> None:
        self._layout = layout
        self.add_ons = AddOns()
        """What is asked for."""
        self._reward = decision_reward(self.add_ons, layout)
        self.text = ''
        """The add-ons, as YAML; empty is none."""
        self.weight = 1.0
        """Factor on them; 0 is the base policy alone."""
        self.reward = 0.0
        """Reward of the episode in progress, or of the last one, of weight 1."""
        self.failures = 0
        """Decisions whose add-on reward was no finite number: they were told with weight 0."""
        self.problem = ''
        """The latest failure; who has told it empties it."""

    @property
    def off(self) -> bool:
        """Whether the base policy is wanted, bit for bit."""
        return self._layout.customisable and self.weight == 0.0

    def change(self, text: str, weight: float) -> None:
        """Ask for something else from the next decision on.

        Args:
            text: add-ons as YAML; empty is none.
            weight: factor on them.

        Raises:
            ConfigError: the transitions have no place for it, the text is wrong, the robot has not
                what it names, or the weight is out of range; what was asked for before stays.
        """
        self.check(text, weight, self._layout)
        if text != self.text:
            self.add_ons = AddOns.from_message(text)
            self._reward = decision_reward(self.add_ons, self._layout)
        self.text, self.weight = text, weight

    @staticmethod
    def check(text: str, weight: float, layout: TransitionLayout) -> None:
        """Refuse what `change` would.

        Raises:
            ConfigError: the text is no add-on, the robot lacks what it names, the layout has no
                place for it, or the weight is out of range.
        """
        check_weight(weight)
        if not layout.customisable and (text or weight != 1.0):
            raise ConfigError(
                'transitions tell no add-on: restart policy_node with customisable:=true'
            )
        decision_reward(AddOns.from_message(text), layout)

    def begin_episode(self) -> None:
        """Add up anew."""
        self.reward = 0.0

    def tell(self, transition: Transition, weight: float) -> npt.NDArray[np.float64]:
        """Return the block `add_on` of a transition: its reward of weight 1, and the weight.

        A reward that is no finite number makes a block of zeros: what happened is worth learning
        from, but nothing is known of the add-on.

        Args:
            transition: without the block.
            weight: that it was decided with.
        """
        if not self._layout.customisable:
            return np.zeros(0)
        try:
            reward = self._reward.of_transition(transition)
        except RewardError as error:
            self.failures += 1
            self.problem = f'{error}; told with weight 0 ({self.failures} so far)'
            return np.zeros(2)
        self.reward += reward
        return np.array([reward, weight])

    def to_yaml(self) -> str:
        """Return the text of the latched topic `~/customisation`."""
        add_ons: Sequence[object] = AddOns.from_message(self.text).to_list()
        values = {'add_on': list(add_ons), 'add_on_weight': self.weight}
        return yaml.safe_dump(values, sort_keys=False)
