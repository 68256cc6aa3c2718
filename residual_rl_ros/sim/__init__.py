# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""MuJoCo tasks for a 7-axis cobot behind the gymnasium API, and experts that solve them."""

from residual_rl_ros.sim.arm_env import ArmEnv
from residual_rl_ros.sim.experts import Expert, make_expert
from residual_rl_ros.sim.parameters import Range, SensorNoise, TaskError, TaskParameters
from residual_rl_ros.sim.tasks import TASK_NAMES, make_task

__all__ = [
    'TASK_NAMES',
    'ArmEnv',
    'Expert',
    'Range',
    'SensorNoise',
    'TaskError',
    'TaskParameters',
    'make_expert',
    'make_task',
]
