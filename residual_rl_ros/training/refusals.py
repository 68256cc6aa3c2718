# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a run in one process refuses before it begins, since it could not learn."""

from __future__ import annotations

from residual_rl_ros.algorithms.rule import ADD_ON
from residual_rl_ros.config.run import ResolvedRun
from residual_rl_ros.errors import ConfigError


def refuse_nothing_to_learn(run: ResolvedRun) -> None:
    """Refuse a run of a customisation that could not change what the base does.

    Raises:
        ConfigError: no add-on where nothing else is learned, or one proposal to choose from.
    """
    rule, config = run.learner.rule, run.config
    wanted = bool(config.add_ons) or bool(rule.add_on)
    if rule.reward == ADD_ON and not wanted:
        raise ConfigError(
            f'preset {config.preset} learns from an add-on reward, and there is none: give '
            '--add-on, or set reward to total or basic'
        )
    if run.learner.algorithm == 'q_remix' and config.proposals < 2:
        raise ConfigError(
            f'preset {config.preset} chooses among proposals of the base, and proposals is '
            f'{config.proposals}: set it to 8 (--set proposals=8), and residual_scale to 2'
        )
