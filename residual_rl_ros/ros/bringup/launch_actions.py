# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A topology as launch actions, for the files in `launch/`; needs a ROS installation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext, LaunchDescription
from residual_rl_ros.resources import find_base_policy
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.topology import ENVIRONMENT, NodeSpec, RobotRun

ROBOT_ARGUMENTS = (
    ('config', 'ur_forward_position', 'robot YAML, or the name of a shipped one'),
    ('model', '', 'ONNX base policy, or the name of a shipped one'),
    ('checkpoint', 'runs/robot', 'folder of the learner; one that holds a checkpoint is resumed'),
    ('learner', 'true', 'false: run the residual of the checkpoint and learn nothing'),
    ('preset', '', 'learner preset; empty is that of the checkpoint, or dawn'),
    ('decision_steps', '1', 'control steps per residual decision (k)'),
    ('residual_scale', '[0.05]', 'lambda: a list of one value, or of one per action'),
    ('prefetch_steps', '0', 'control steps before its first use at which a chunk is requested'),
    ('chunk_blend_steps', '0', 'control steps over which a new chunk takes over'),
    ('auto_start', 'false', 'start episodes without ~/start_episode'),
    ('seed', '0', 'seed of policy noise and learner'),
    ('classifier', '', 'ONNX success classifier that judges the episodes'),
    ('reward', '', 'instead: package.module:factory of a reward function'),
    ('record', '', 'folder of a new bag of observations, commands and transitions'),
)
"""Launch arguments of `robot.launch.py` and `fleet.launch.py`: name, default, description."""


def robot_run(value: Mapping[str, str], namespaces: tuple[str, ...]) -> RobotRun:
    """Return the run that the values of `ROBOT_ARGUMENTS` describe."""
    _, robot_file = load_robot(value['config'])
    learning = is_true(value['learner'])
    checkpoint = Path(value['checkpoint'])
    return RobotRun(
        robot_file,
        find_base_policy(value['model']),
        checkpoint if learning else None,
        actor=None if learning else checkpoint,
        preset=value['preset'],
        decision_steps=int(value['decision_steps']),
        residual_scale=tuple(map(float, yaml.safe_load(value['residual_scale']))),
        prefetch_steps=int(value['prefetch_steps']),
        chunk_blend_steps=int(value['chunk_blend_steps']),
        seed=int(value['seed']),
        auto_start=is_true(value['auto_start']),
        namespaces=namespaces,
        classifier=Path(value['classifier']) if value['classifier'] else None,
        reward=value['reward'],
        record=Path(value['record']) if value['record'] else None,
    )


def describe(
    arguments: Sequence[tuple[str, str, str]], start: Callable[[Mapping[str, str]], Sequence[Any]]
) -> LaunchDescription:
    """Return the description of a launch file.

    Args:
        arguments: name, default and description of each launch argument.
        start: returns the actions for the arguments' values.
    """

    def perform(context: LaunchContext) -> list[Any]:
        return list(
            start({name: LaunchConfiguration(name).perform(context) for name, _, _ in arguments})
        )

    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in arguments
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=perform)])


def node_actions(nodes: Sequence[NodeSpec]) -> list[Any]:
    """Return one action for each process; lifecycle nodes configure and activate themselves."""
    return [
        (LifecycleNode if node.lifecycle else Node)(
            package='residual_rl_ros',
            executable=node.executable,
            name=node.executable,
            namespace=node.namespace,
            remappings=list(node.remappings.items()),
            parameters=[*map(str, node.parameter_files), dict(node.flat_parameters())],
            ros_arguments=['--enclave', node.enclave],
            additional_env=ENVIRONMENT,
            output='screen',
        )
        for node in nodes
    ]


def end_with(nodes: Sequence[Any]) -> list[Any]:
    """Return actions that end the launch when the last of these nodes has ended."""
    running = len(nodes)

    def ended(event: ProcessExited, context: LaunchContext) -> EmitEvent | None:
        nonlocal running
        del event
        running -= 1
        # A second shutdown is an error.
        return EmitEvent(event=Shutdown()) if running == 0 and not context.is_shutdown else None

    return [
        RegisterEventHandler(OnProcessExit(target_action=node, on_exit=ended)) for node in nodes
    ]


def policies(nodes: Sequence[NodeSpec], actions: Sequence[Any]) -> list[Any]:
    """Return the actions of the policy nodes: a robot goes on without its learner."""
    return [
        action
        for node, action in zip(nodes, actions, strict=True)
        if node.executable == 'policy_node'
    ]


def is_true(text: str) -> bool:
    """Return whether a launch argument says yes."""
    return text.lower() in ('true', '1', 'yes', 'on')
