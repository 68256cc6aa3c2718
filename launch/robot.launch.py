# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A base policy with a residual on a robot: `ros2 launch residual_rl_ros robot.launch.py …`.

`config:=my_robot.yaml model:=policy.onnx` runs the policy and a learner; `learner:=false
checkpoint:=runs/robot` runs what was learned. The same processes as `residual-rl up`.
"""

from collections.abc import Mapping
from pathlib import Path

import yaml
from launch.actions import ExecuteProcess

from launch import LaunchDescription
from residual_rl_ros.finetune import find_base_policy
from residual_rl_ros.robot import load_robot
from residual_rl_ros.ros.launch_actions import describe, is_true, node_actions
from residual_rl_ros.ros.topology import RobotRun, robot_topology

ARGUMENTS = (
    ('config', 'ur_forward_position', 'robot YAML, or the name of a shipped one'),
    ('model', '', 'ONNX base policy, or the name of a shipped one'),
    ('checkpoint', 'runs/robot', 'folder of the learner; one that holds a checkpoint is resumed'),
    ('learner', 'true', 'false: run the residual of the checkpoint and learn nothing'),
    ('preset', 'dawn', 'learner preset'),
    ('decision_steps', '1', 'control steps per residual decision (k)'),
    ('residual_scale', '[0.05]', 'lambda: a list of one value, or of one per action'),
    ('prefetch_steps', '0', 'control steps before its first use at which a chunk is requested'),
    ('auto_start', 'false', 'start episodes without ~/start_episode'),
    ('seed', '0', 'seed of policy noise and learner'),
    ('namespace', '', 'namespace of the robot'),
    ('record', '', 'folder of a rosbag2 recording of all topics; empty records nothing'),
)


def start(value: Mapping[str, str]) -> list[object]:
    """Return one action for each process of the topology, and the recorder."""
    _, robot_file = load_robot(value['config'])
    learning = is_true(value['learner'])
    checkpoint = Path(value['checkpoint'])
    run = RobotRun(
        robot_file,
        find_base_policy(value['model']),
        checkpoint if learning else None,
        actor=None if learning else checkpoint,
        preset=value['preset'],
        decision_steps=int(value['decision_steps']),
        residual_scale=tuple(map(float, yaml.safe_load(value['residual_scale']))),
        prefetch_steps=int(value['prefetch_steps']),
        seed=int(value['seed']),
        auto_start=is_true(value['auto_start']),
        namespace=value['namespace'],
    )
    actions = node_actions(robot_topology(run))
    if value['record']:
        command = ['ros2', 'bag', 'record', '--all', '--output', value['record']]
        actions.append(ExecuteProcess(cmd=command, output='screen'))
    return actions


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and defer the rest until they are known."""
    return describe(ARGUMENTS, start)
