# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The add-on reward that a learner learns for, and what it is asked to learn for instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from residual_rl_ros.algorithms.rule import BASIC, Customisable, Rule
from residual_rl_ros.config.preset import LearnerConfig
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.rewards.composition import AddOns, decision_reward
from residual_rl_ros.transitions.layout import TransitionLayout


class LearnedAddOn:
    """Gives a rule the add-ons that are asked for; until somebody asks, those of the preset.

    Args:
        config: the preset.
        rule: what learns for them.
        layout: transition layout.
    """

    def __init__(self, config: LearnerConfig, rule: Rule, layout: TransitionLayout) -> None:
        self._config, self._rule, self._layout = config, rule, layout
        self.asked = ('', 1.0)
        """Add-ons in use instead of those of the preset, as YAML, and their weight."""
        self._changed = False

    def check(self, text: str) -> None:
        """Refuse an add-on that cannot be learned.

        Args:
            text: add-ons as YAML; empty is none.

        Raises:
            ConfigError: the rule learns none, or the text is wrong for this robot.
        """
        learns = isinstance(self._rule, Customisable)
        if text and (not learns or self._config.rule.reward == BASIC):
            raise ConfigError(
                f'algorithm {self._config.algorithm} of this preset learns from the basic reward '
                'alone: take a preset of customisation, and set reward to add_on or total'
            )
        decision_reward(AddOns.from_message(text), self._layout)

    def change(self, text: str, weight: float) -> bool:
        """Learn for another add-on reward, or another weight of it, from now on.

        At weight 0 the base acts alone, and what was learned waits.

        Args:
            text: add-ons as YAML; empty is none.
            weight: factor on them.

        Returns:
            Whether these are other add-ons than before; the weight alone acts on the robot.

        Raises:
            ConfigError: as `check`, or the weight is out of range; what was learned for stays.
        """
        self.check(text)
        if not weight or not isinstance(self._rule, Customisable):
            return False
        known = self._wanted(self.asked[0], self._changed)
        changed = self._changed or bool(text)
        wanted = self._wanted(text, changed)
        self._rule.set_add_on(wanted.to_yaml(), weight)
        self.asked, self._changed = (text, weight), changed
        return wanted.to_list() != known.to_list()

    def _wanted(self, text: str, changed: bool) -> AddOns:
        """Return the add-ons of a text; as long as nobody has asked for others, the preset's."""
        preset = AddOns.of(self._config.rule.add_on)
        return AddOns.from_message(text) if changed else preset

    def state_dict(self) -> dict[str, Any]:
        """Return what is asked for as JSON values, for a checkpoint."""
        return {'add_on': list(self.asked), 'add_on_changed': self._changed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if not isinstance(self._rule, Customisable):
            return
        text, weight = state['add_on']
        self._changed = bool(state['add_on_changed'])
        self.asked = (str(text), float(weight))
        self._rule.set_add_on(self._wanted(str(text), self._changed).to_yaml(), float(weight))
