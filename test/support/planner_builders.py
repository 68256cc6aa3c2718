# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Planners whose model is known: the observation moves with the action."""

from __future__ import annotations

from typing import Any

import numpy as np
from transition_builders import make_layout

from residual_rl_ros.residual_policy.dynamics import ModelSizes
from residual_rl_ros.residual_policy.mppi import MppiArchitecture, MppiConfig, MppiPlanner
from residual_rl_ros.rewards.composition import AddOns
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.transitions.layout import TransitionLayout

KEEP_OUT = {
    'name': 'keep_out_box',
    'point': ['tool.z'],
    'lower': [0.0],
    'upper': [9.0],
    'margin': 1.0,
}
"""The further `tool.z` is below 0, the better, to -1."""


def foreign_add_on(observation_names: tuple[str, ...], action_names: tuple[str, ...]) -> Any:
    """Return an add-on as another package makes it: always 0."""
    return lambda observation, action, following: np.zeros(action.shape[:-1])


def known_planner(
    layout: TransitionLayout | None = None,
    density: Prior = Prior.GAUSSIAN,
    add_on: tuple[dict[str, Any], ...] = (KEEP_OUT,),
    add_on_weight: float = 1.0,
    **config: Any,
) -> MppiPlanner:
    """Return a planner for which the last observation grows by the first action.

    Its prior is centred in the trained range, with a log standard deviation of -1.5 there.
    """
    layout = layout or make_layout(residual_bound=(1.0, 0.5))
    sizes = ModelSizes((), (), density)
    numbers = MppiConfig(**{'samples': 64, 'horizon': 3, 'noise': 0.3, **config})
    architecture = MppiArchitecture(layout, sizes, numbers, AddOns.of(add_on), add_on_weight)
    tensors = {
        name: np.full(shape, float(name.endswith('std')), dtype=np.float32)
        for name, shape in architecture.tensor_shapes().items()
    }
    tensors['dynamics.0.weight'][-1, layout.observation_size] = 1.0
    return MppiPlanner(architecture, tensors)
