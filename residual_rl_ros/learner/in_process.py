# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune in one process, without ROS: the same classes, the same schedule, no middleware."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium

from residual_rl_ros.evaluation.episodes import Episode, run_episode
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.residual.controller import ResidualController
from residual_rl_ros.spec import Transition


def finetune(
    env: gymnasium.Env[Any, Any],
    controller: ResidualController,
    learner: Learner,
    control_steps: int,
    first_seed: int,
    on_episode: Callable[[Episode], None] = lambda episode: None,
) -> int:
    """Collect, learn and swap actors until `control_steps` are done; return the steps taken.

    Args:
        env: environment.
        controller: exploring controller in lockstep.
        learner: a learner of the same layout.
        control_steps: budget; the episode that crosses it is played to its end.
        first_seed: environment seed of the first episode; the following count up.
        on_episode: called after every episode.
    """

    def ingest(transition: Transition) -> None:
        message = learner.ingest(transition)
        if message is not None:
            controller.slot.offer(message)

    controller.slot.offer(learner.first_message())
    steps = 0
    number = 0
    while steps < control_steps:
        episode = run_episode(env, controller, first_seed + number, number, ingest)
        steps += episode.steps
        number += 1
        on_episode(episode)
    return steps
