# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Environments of others, as they are found: registered under ids, and a base policy for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from base_policy_builders import write_onnx_policy
from robot_builders import make_metadata

LIMIT = 12
"""Steps of an episode."""


class Foreign(gymnasium.Env):
    """Counts its steps, and tells what it is made to tell.

    Args:
        info: gives `info` of a step.
        falls: step at which it terminates, with a reward as at every step.
        nan: step from which its reward is NaN.
        pays: reward of a step.
    """

    def __init__(self, info: Any = None, falls: int = 0, nan: int = 0, pays: float = 1.0) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = gymnasium.spaces.Box(-0.1, 0.1, (2,), np.float64)
        self.info, self.falls, self.nan = info or (lambda step: {}), falls, nan
        self.pays = pays

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self.np_random.normal(size=3), {}

    def step(self, action: np.ndarray) -> Any:
        assert self.action_space.contains(action), f'{action!r} is outside of {self.action_space}'
        self.count += 1
        reward = np.nan if self.nan and self.count >= self.nan else self.pays
        observation = np.full(3, 0.01 * self.count)
        return observation, reward, self.count == self.falls, False, self.info(self.count)


TASKS: dict[str, dict[str, Any]] = {
    'Silent-v0': {},
    'Falls-v0': {'falls': 8},
    'Unpaid-v0': {'pays': 0.0},
    'Hidden-v0': {'pays': 0.0, 'info': lambda step: {'solved': True} if step == LIMIT else {}},
    'Along-v0': {'info': lambda step: {'success': float(3 <= step <= 6)}},
    'AtEnd-v0': {'info': lambda step: {'is_success': False} if step == LIMIT else {}},
    'Both-v0': {'info': lambda step: {'is_success': True, 'success': False}},
    'Solved-v0': {'info': lambda step: {'solved': True} if step == LIMIT else {}},
    'Broken-v0': {'nan': 5},
}


def register() -> None:
    """Register `TASKS`."""
    for name, options in TASKS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, Foreign, max_episode_steps=LIMIT, kwargs=options)


def write_base(path: Path) -> Path:
    """Write a base policy for them, whose commands reach their bounds."""
    metadata = make_metadata(
        observation_names=('state.x0', 'state.x1', 'state.x2'),
        action_names=('action0', 'action1'),
        action_min=(-0.1, -0.1),
        action_max=(0.1, 0.1),
    )
    write_onnx_policy(path, metadata)
    return path
