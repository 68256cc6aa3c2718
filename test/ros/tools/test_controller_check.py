# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A controller says which joints it takes, in which order: before it drops the first command."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.robot.command import TRAJECTORY, Command
from residual_rl_ros.robot.description import RobotConfig, load_robot
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.ros.tools.controller_check import check_controllers

pytestmark = pytest.mark.ros

ROBOT, _ = load_robot('ur_forward_position')
JOINTS = [name.removesuffix('.position') for name in ROBOT.action.names]
JTC = Command('jtc/joint_trajectory', TRAJECTORY, tuple(JOINTS))


@pytest.fixture
def problems_with(domain_id: int) -> Iterator[Callable[..., list[str]]]:
    """Yield a function that compares a robot with a controller of some parameters."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node('controller', context=context, allow_undeclared_parameters=True)
    for kind, command in ((Float64MultiArray, ROBOT.commands[0]), (JointTrajectory, JTC)):
        node.create_subscription(kind, command.topic, lambda message: None, 1)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()

    with NodeHost('check_robot', domain_id) as tool:

        def compare(robot: RobotConfig = ROBOT, **parameters: Any) -> list[str]:
            node.set_parameters(
                [Parameter(name, value=value) for name, value in parameters.items()]
            )
            report = InspectionReport('ur')
            check_controllers(tool, robot, report)
            assert all(': /controller ' in problem for problem in report.problems)
            return report.problems

        while not tool.node.get_subscriptions_info_by_topic(f'/{JTC.topic}'):
            tool.executor.spin_once(timeout_sec=0.05)
        yield compare
    executor.shutdown(timeout_sec=1.0)
    thread.join(timeout=2.0)
    node.destroy_node()
    context.try_shutdown()


def test_plain_numbers_must_be_as_many_and_in_the_order_of_the_controller(
    problems_with: Callable[..., list[str]],
) -> None:
    assert problems_with() == []  # Not one of ros2_control.
    assert problems_with(joints=JOINTS, interface_name='position') == []
    (size,) = problems_with(joints=JOINTS[:4])
    assert f'takes 4 values, for {", ".join(JOINTS[:4])}; the robot YAML has 6 actions' in size
    (order,) = problems_with(joints=JOINTS[::-1])
    assert 'bring action.names into its order' in order
    loose = replace(ROBOT, action=replace(ROBOT.action, units=(), hold='last'))
    (interface,) = problems_with(loose, joints=JOINTS, interface_name='velocity')
    assert 'takes velocities, which a hold would repeat: set action.units to m/s' in interface
    positions = replace(ROBOT, action=replace(ROBOT.action, units=('rad',) * 6, hold='last'))
    (units,) = problems_with(positions, joints=JOINTS, interface_name='effort')
    assert "takes efforts, the robot YAML has action.units ['rad'," in units


def test_a_trajectory_names_all_joints_of_its_controller_and_no_other(
    problems_with: Callable[..., list[str]],
) -> None:
    arm = replace(ROBOT, commands=(JTC,))
    assert problems_with(arm, joints=JOINTS[::-1]) == []
    (unknown,) = problems_with(arm, joints=JOINTS[1:])
    assert f'has no joint {JOINTS[0]}, it has' in unknown
    (missing,) = problems_with(arm, joints=[*JOINTS, 'rail'])
    assert 'refuses trajectories without rail' in missing
    assert problems_with(arm, joints=[*JOINTS, 'rail'], allow_partial_joints_goal=True) == []
