# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several robots alike, one learner: `ros2 launch residual_rl_ros fleet.launch.py …`.

`namespaces:='[left, right]' config:=my_robot.yaml model:=policy.onnx` runs a policy in each
namespace and one learner that hears them all. The same processes as `residual-rl up` with several
`--namespace`.
"""

from collections.abc import Mapping

import yaml

from launch import LaunchDescription
from residual_rl_ros.ros.bringup.launch_actions import (
    ROBOT_ARGUMENTS,
    describe,
    end_with,
    node_actions,
    policies,
    robot_run,
)
from residual_rl_ros.ros.bringup.topology import robot_topology

ARGUMENTS = (
    ('namespaces', '[robot1, robot2]', 'list of the namespaces, one for each robot'),
    *ROBOT_ARGUMENTS,
)


def start(value: Mapping[str, str]) -> list[object]:
    """Return one action for each process of the topology.

    Raises:
        ValueError: `namespaces` is no list.
    """
    namespaces = yaml.safe_load(value['namespaces'])
    if not isinstance(namespaces, list):
        raise ValueError(f'namespaces is {namespaces!r}, expected a list such as [left, right]')
    nodes = robot_topology(robot_run(value, tuple(map(str, namespaces))))
    actions = node_actions(nodes)
    return [*end_with(policies(nodes, actions)), *actions]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and defer the rest until they are known."""
    return describe(ARGUMENTS, start)
