# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune in simulation: `ros2 launch residual_rl_ros sim_finetune.launch.py task:=peg_insert`.

The processes and their parameters come from `residual_rl_ros.ros.bringup.topology`, as in the demo.
The end of any process ends the launch. Nothing real can move: the processes are in a namespace and,
unless `domain:=` names one, in a free ROS domain of this machine, whatever `ROS_DOMAIN_ID` says.
"""

from collections.abc import Mapping
from pathlib import Path

from launch import LaunchDescription
from residual_rl_ros.config.run import load_run
from residual_rl_ros.ros.bringup.launch_actions import count, describe, simulation_actions, truth
from residual_rl_ros.ros.bringup.topology import finetune_topology
from residual_rl_ros.ros.common.node_parameters import SIMULATION

ARGUMENTS = (
    ('task', 'peg_insert', 'task of config/finetune/, or the path of such a file'),
    ('seed', '0', 'seed of environment, policy noise and learner'),
    ('control_steps', '', 'budget of control steps; empty: as configured, 0: endless'),
    ('output_dir', 'runs/launch', 'folder for checkpoint and TensorBoard events'),
    ('lockstep', 'true', 'step with commands (true) or with wall time (false)'),
    ('namespace', SIMULATION, 'namespace of all nodes; every topic of the robot YAML is inside'),
    ('domain', '', 'ROS domain, in which nothing else may run; empty: a free one'),
)


def start(value: Mapping[str, str]) -> list[object]:
    """Return one action for each process of the topology."""
    config = load_run(value['task'])
    resolved = config.resolve()
    policy, robot_file = resolved.policy, resolved.robot_file
    nodes = finetune_topology(
        config,
        robot_file,
        policy.path,
        Path(value['output_dir']),
        count(value, 'seed'),
        count(value, 'control_steps') if value['control_steps'] else config.control_steps,
        truth(value, 'lockstep'),
        value['namespace'] or SIMULATION,
    )
    return simulation_actions(nodes, value['domain'])


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and defer the rest until they are known."""
    return describe(ARGUMENTS, start)
