# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A base policy with a residual on a robot: `ros2 launch residual_rl_ros robot.launch.py …`.

`config:=my_robot.yaml model:=policy.onnx` runs the policy and a learner; `learner:=false
checkpoint:=runs/robot` runs what was learned. The same processes as `residual-rl up`. Nothing moves
before `ros2 service call /policy_node/start_episode std_srvs/srv/Trigger`, or key n of `residual-rl
operator`.
"""

from collections.abc import Mapping
from typing import Any

from launch import LaunchDescription
from residual_rl_ros.ros.bringup.launch_actions import describe, robot_actions
from residual_rl_ros.ros.bringup.launch_arguments import (
    ROBOT_ARGUMENTS,
    Argument,
    configured,
    robot_run,
)
from residual_rl_ros.ros.bringup.topology import robot_topology

ARGUMENTS = (Argument('namespace', '', 'namespace of the robot'), *ROBOT_ARGUMENTS)


def start(value: Mapping[str, Any]) -> list[object]:
    """Return one action for each process of the topology."""
    nodes = robot_topology(robot_run(value, (value['namespace'],)))
    return robot_actions(configured(nodes, value))


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and defer the rest until they are known."""
    return describe(ARGUMENTS, start)
