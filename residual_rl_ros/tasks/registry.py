# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The tasks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.tasks.arm_env import ArmEnv
from residual_rl_ros.tasks.parameters import TaskParameters, override_ranges
from residual_rl_ros.tasks.peg_insert import PegInsert, PegInsertParameters
from residual_rl_ros.tasks.push_to_goal import PushToGoal, PushToGoalParameters

__all__ = ['TASK_NAMES', 'ConfigError', 'make_task']

_TASKS: dict[str, tuple[Callable[..., ArmEnv], type[TaskParameters]]] = {
    PegInsert.task_name: (PegInsert, PegInsertParameters),
    PushToGoal.task_name: (PushToGoal, PushToGoalParameters),
}
TASK_NAMES = tuple(_TASKS)


def make_task(name: str, *, render_mode: str | None = None, **overrides: Any) -> ArmEnv:
    """Build a task.

    Args:
        name: One of `TASK_NAMES`.
        render_mode: `rgb_array` to allow `render()`, or None.
        **overrides: Fields of the task's parameters, for example `clearance_m=0.001`, or
            `randomisation={'hole.x': (0.5, 0.6)}`, which replaces ranges by name.

    Raises:
        ConfigError: If the task, a parameter or a range is unknown, or a value out of bounds.
    """
    if name not in _TASKS:
        raise ConfigError(f'unknown task {name!r}, expected one of {list(TASK_NAMES)}; correct it')
    task, parameters = _TASKS[name]
    known = [entry.name for entry in fields(parameters)]
    for override in overrides:
        if override not in known:
            raise ConfigError(
                f'task {name!r} has no parameter {override!r}, expected one of {known}; '
                'rename or remove it'
            )
    if 'randomisation' in overrides:
        defaults = parameters().randomisation
        overrides['randomisation'] = override_ranges(defaults, overrides['randomisation'])
    return task(parameters(**overrides), render_mode)
