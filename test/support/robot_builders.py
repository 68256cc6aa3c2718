# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A small robot for tests: its names, its actions, the metadata of its base policies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.robot.action_spec import ActionSpec

OBSERVATIONS = ('arm.position.a', 'arm.position.b', 'tool.z')
ACTIONS = ('a.position', 'b.position')


def make_metadata(**changes: Any) -> BasePolicyMetadata:
    """Return the metadata of a base policy with n = 3, m = 2 and 4 of 6 actions executed."""
    metadata = BasePolicyMetadata(
        observation_names=OBSERVATIONS,
        action_names=ACTIONS,
        action_min=(-1.0, -0.5),
        action_max=(1.0, 0.5),
        rate_hz=20.0,
        n_obs_steps=1,
        horizon=6,
        exec_start=1,
        exec_steps=4,
    )
    return replace(metadata, **changes)


def make_action_spec(**changes: Any) -> ActionSpec:
    """Return limits that are wider than the trained actions of `make_metadata`."""
    values: dict[str, Any] = {
        'names': ACTIONS,
        'lower': np.array([-2.0, -2.0]),
        'upper': np.array([2.0, 2.0]),
        'max_step': np.array([10.0, 10.0]),
    }
    return ActionSpec(**{**values, **changes})
