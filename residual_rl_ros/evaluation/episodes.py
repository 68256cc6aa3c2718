# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run episodes of an environment under a controller, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from residual_rl_ros.residual.controller import ResidualController, StepFeedback
from residual_rl_ros.transition import Success, Transition


@dataclass(frozen=True)
class Episode:
    """Outcome of one episode."""

    seed: int
    success: bool
    steps: int
    """Control steps."""


def run_episode(
    env: gymnasium.Env[Any, Any],
    controller: ResidualController,
    seed: int,
    number: int,
    on_transition: Callable[[Transition], None] = lambda transition: None,
    on_step: Callable[[], None] = lambda: None,
    takeover: Callable[[], npt.NDArray[np.float64]] | None = None,
) -> Episode:
    """Play one episode from `env.reset(seed=seed)`.

    Args:
        env: environment; `info['success']` decides, or else a termination with positive reward.
        controller: the control loop.
        seed: seed of the environment.
        number: episode number; with the controller's own seed, seeds the base policy's noise.
        on_transition: called with every completed decision.
        on_step: called after every control step, for example to render.
        takeover: gives an operator's command for every control step.
    """
    observation, _ = env.reset(seed=seed)
    controller.begin_episode(number, observation, stamp=0.0)
    steps = 0
    while True:
        command = controller.command(takeover() if takeover else None)
        assert command is not None, 'a lockstep controller never holds'
        observation, reward, terminated, truncated, info = env.step(command.astype(np.float32))
        steps += 1
        done = terminated or truncated
        success = bool(info.get('success', terminated and float(reward) > 0.0))
        outcome = Success(int(success)) if done else Success.UNLABELLED
        feedback = StepFeedback(float(reward), terminated, truncated, outcome)
        transition = controller.step(observation, float(steps), feedback)
        on_step()
        if transition is not None:
            on_transition(transition)
        if done:
            return Episode(seed, success, steps)
