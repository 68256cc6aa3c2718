# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several robots alike, one learner: `ros2 launch residual_rl_ros fleet.launch.py …`.

`namespaces:='[left, right]' config:=my_robot.yaml model:=policy.onnx` runs a policy in each
namespace and one learner that hears them all. The same processes as `residual-rl up` with several
`--namespace`.
"""

from collections.abc import Mapping
from typing import Any

from launch import LaunchDescription
from residual_rl_ros.ros.bringup.launch_actions import describe, robot_actions
from residual_rl_ros.ros.bringup.launch_arguments import (
    ROBOT_ARGUMENTS,
    Argument,
    configured,
    names,
    robot_run,
)
from residual_rl_ros.ros.bringup.topology import robot_topology

ARGUMENTS = (
    Argument('namespaces', '[robot1, robot2]', 'list of the namespaces, one for each robot', names),
    *ROBOT_ARGUMENTS,
)


def start(value: Mapping[str, Any]) -> list[object]:
    """Return one action for each process of the topology."""
    nodes = robot_topology(robot_run(value, value['namespaces']))
    return robot_actions(configured(nodes, value))


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and defer the rest until they are known."""
    return describe(ARGUMENTS, start)
