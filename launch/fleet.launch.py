# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several robots alike, one learner: `ros2 launch residual_rl_ros fleet.launch.py …`.

`namespaces:='[left, right]' config:=my_robot.yaml model:=policy.onnx` runs a policy in each
namespace and one learner that hears them all. The same processes as `residual-rl up` with several
`--namespace`.
"""

from collections.abc import Mapping

from launch import LaunchDescription
from residual_rl_ros.ros.bringup.launch_actions import (
    ROBOT_ARGUMENTS,
    describe,
    names,
    robot_actions,
    robot_run,
)
from residual_rl_ros.ros.bringup.topology import robot_topology

ARGUMENTS = (
    ('namespaces', '[robot1, robot2]', 'list of the namespaces, one for each robot'),
    *ROBOT_ARGUMENTS,
)


def start(value: Mapping[str, str]) -> list[object]:
    """Return one action for each process of the topology."""
    return robot_actions(robot_topology(robot_run(value, names(value, 'namespaces'))))


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and defer the rest until they are known."""
    return describe(ARGUMENTS, start)
