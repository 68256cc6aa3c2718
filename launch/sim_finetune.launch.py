# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune in simulation: `ros2 launch residual_rl_ros sim_finetune.launch.py task:=peg_insert`.

The processes and their parameters are those of the demo, in `ros/bringup/simulation.py`. The end of
any process ends the launch. Nothing real can move: the processes are in a namespace and, unless
`domain:=` names one, in a free ROS domain of this machine, whatever `ROS_DOMAIN_ID` says.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch import LaunchDescription
from residual_rl_ros.config.run import load_run
from residual_rl_ros.ros.bringup.launch_actions import describe, simulation_actions
from residual_rl_ros.ros.bringup.launch_arguments import (
    SHARED_ARGUMENTS,
    Argument,
    configured,
    count,
    optional,
    truth,
)
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.common.node_parameters import SIMULATION

ARGUMENTS = (
    Argument('task', 'peg_insert', 'task of config/finetune/, or the path of such a file'),
    Argument('seed', '0', 'seed of environment, policy noise and learner', count),
    Argument(
        'control_steps',
        '',
        'budget of control steps; empty: as configured, 0: endless',
        optional(count),
    ),
    Argument('output_dir', 'runs/launch', 'folder for checkpoint and TensorBoard events', Path),
    Argument('lockstep', 'true', 'step with commands (true) or with wall time (false)', truth),
    Argument(
        'namespace', SIMULATION, 'namespace of all nodes; every topic of the robot YAML is inside'
    ),
    Argument('domain', '', 'ROS domain, in which nothing else may run; empty: a free one'),
    *SHARED_ARGUMENTS,
)


def start(value: Mapping[str, Any]) -> list[object]:
    """Return one action for each process of the topology."""
    config = load_run(value['task'])
    if value['overrides']:
        config = config.changed(value['overrides'])
    resolved = config.resolve()
    policy, robot_file = resolved.policy, resolved.robot_file
    nodes = finetune_topology(
        config,
        robot_file,
        policy.path,
        value['output_dir'],
        value['seed'],
        config.control_steps if value['control_steps'] is None else value['control_steps'],
        value['lockstep'],
        value['namespace'] or SIMULATION,
    )
    return simulation_actions(configured(nodes, value), value['domain'])


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and defer the rest until they are known."""
    return describe(ARGUMENTS, start)
