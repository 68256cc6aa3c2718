# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A topology as launch actions, for the files in `launch/`; needs a ROS installation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext, LaunchDescription
from residual_rl_ros.ros.topology import NodeSpec


def describe(
    arguments: Sequence[tuple[str, str, str]], start: Callable[[Mapping[str, str]], Sequence[Any]]
) -> LaunchDescription:
    """Return the description of a launch file.

    Args:
        arguments: name, default and description of each launch argument.
        start: returns the actions for the arguments' values.
    """

    def perform(context: LaunchContext) -> list[Any]:
        value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in arguments}
        on_exit = RegisterEventHandler(OnProcessExit(on_exit=_end, handle_once=True))
        return [on_exit, *start(value)]

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
            parameters=[*map(str, node.parameter_files), dict(node.flat_parameters())],
            output='screen',
        )
        for node in nodes
    ]


def is_true(text: str) -> bool:
    """Return whether a launch argument says yes."""
    return text.lower() in ('true', '1', 'yes', 'on')


def _end(event: ProcessExited, context: LaunchContext) -> EmitEvent | None:
    """End the launch with its first process, whichever it is; a second shutdown is an error."""
    del event
    return None if context.is_shutdown else EmitEvent(event=Shutdown())
