# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A base policy with a residual on a robot: `ros2 launch residual_rl_ros robot.launch.py …`.

`config:=my_robot.yaml model:=policy.onnx` runs the policy and a learner; `learner:=false
checkpoint:=runs/robot` runs what was learned. The same processes as `residual-rl up`. Nothing moves
before `ros2 service call /policy_node/start_episode std_srvs/srv/Trigger`, or key n of `residual-rl
operator`.
"""

from collections.abc import Mapping

from launch import LaunchDescription
from residual_rl_ros.ros.bringup.launch_actions import (
    ROBOT_ARGUMENTS,
    describe,
    robot_actions,
    robot_run,
)
from residual_rl_ros.ros.bringup.topology import robot_topology

ARGUMENTS = (('namespace', '', 'namespace of the robot'), *ROBOT_ARGUMENTS)


def start(value: Mapping[str, str]) -> list[object]:
    """Return one action for each process of the topology."""
    return robot_actions(robot_topology(robot_run(value, (value['namespace'],))))


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and defer the rest until they are known."""
    return describe(ARGUMENTS, start)
