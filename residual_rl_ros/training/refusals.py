# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a run in one process refuses before it begins, since it could not learn."""

from __future__ import annotations

from typing import Any

import gymnasium

from residual_rl_ros.algorithms.rule import ADD_ON
from residual_rl_ros.config.run import ResolvedRun
from residual_rl_ros.config.success import RETURN
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.episode import run_episode
from residual_rl_ros.tasks.success_probe import PROBE_SEED


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
    run.learner.check_proposals(config.proposals)


SILENT_EPISODES = 20
"""Episodes of the base without any reward after which a task without success is refused."""


def refuse_silence(run: ResolvedRun, env: gymnasium.Env[Any, Any]) -> None:
    """Refuse a task that tells neither success nor a reward: nothing could be learned from it.

    A task that tells no success is played by the base until the first reward, which most give in
    the first episode. A task that tells success is not played.

    Args:
        run: the run; `success` of its configuration is settled.
        env: its environment.

    Raises:
        ConfigError: there was no reward in `SILENT_EPISODES` episodes.
    """
    if run.config.success != RETURN:
        return
    controller = run.evaluation_controller(None)
    try:
        for number in range(SILENT_EPISODES):
            seed = PROBE_SEED + number
            if run_episode(env, controller, seed, number, add_on=run.add_on).total_return:
                return
    finally:
        controller.queue.close()
    raise ConfigError(
        f'{run.config.task} tells no success, and the return of {SILENT_EPISODES} episodes of the '
        'base is 0: there is nothing to learn from; say how it tells success (--success), or give '
        'it a reward'
    )
