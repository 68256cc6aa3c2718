# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`check-robot --live` before the drivers of the robots that are ready."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import rclpy
from fake_drivers import ACTIVITY, FRANKA, INSTALLED, SAFETY, ArmDriver, stand_ins
from fake_grippers import REAL, serve
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from ready_robots import ROBOTS, driver_of
from ros_fixtures import with_package
from sensor_msgs.msg import JointState

from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.robot.command import GRIPPER, PARALLEL_GRIPPER
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.tools.live_check import check_live

pytestmark = pytest.mark.ros

SECONDS = 1.2


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(monkeypatch)


def problems_of(name: str, domain_id: int) -> list[str]:
    """Return what is wrong, but for what only the installed packages of a driver can tell."""
    robot, _ = load_robot(name)
    silent = {ACTIVITY, SAFETY, FRANKA} - INSTALLED
    stops = tuple(stop for stop in robot.stop_inputs if stop.type not in silent)
    # How old messages may be is a matter of this computer, not of the driver.
    channels = tuple(replace(channel, max_age_s=2.0) for channel in robot.channels)
    robot = replace(robot, stop_inputs=stops, channels=channels)
    report = InspectionReport(name)
    check_live(robot, report, SECONDS, domain_id=domain_id)
    return [each for each in report.problems if REAL or 'GripperCommand server' not in each]


@pytest.mark.parametrize(
    'name',
    [name if name == ROBOTS[0] else pytest.param(name, marks=pytest.mark.slow) for name in ROBOTS],
)
def test_a_driver_that_is_as_described_has_no_problem(name: str, domain_id: int) -> None:
    driver = driver_of(name, domain_id)
    try:
        assert problems_of(name, domain_id) == []
    finally:
        driver.close()


@contextmanager
def zeros(domain_id: int, joints: tuple[str, ...]) -> Iterator[None]:
    """Publish zeros for the joints of an arm, as a forgotten joint_state_publisher does."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node('joint_state_publisher', context=context)
    publisher = node.create_publisher(JointState, 'joint_states', 10)

    def publish() -> None:
        message = JointState(name=list(joints), position=[0.0] * len(joints))
        message.velocity = message.position
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    node.create_timer(0.02, publish)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown(timeout_sec=1.0)
        thread.join(timeout=2.0)
        node.destroy_node()
        context.try_shutdown()


def test_what_is_wrong_with_a_driver_is_named_before_anything_moves(domain_id: int) -> None:
    driver = ArmDriver(domain_id, 'ur5e_robotiq', gripper=False)
    driver.program(False)
    driver.switch('inactive')
    controller = driver.nodes[1]
    controller.set_parameters([Parameter('joints', value=list(driver.arm.joints[::-1]))])
    try:
        with zeros(domain_id, driver.arm.joints):
            problems = problems_of('ur5e_robotiq', domain_id)
    finally:
        driver.close()

    def named(*parts: str) -> bool:
        return any(all(part in problem for part in parts) for problem in problems)

    assert named('two publishers of ', '/robotiq_gripper_controller', '/joint_state_publisher')
    assert named("stop input 'program'", 'is False: the robot would hold')
    assert named('forward_position_controller', 'bring action.names into its order')


@with_package('controller_manager_msgs')
@with_package('control_msgs')
def test_a_controller_that_is_inactive_is_named_and_a_client_is_no_server(domain_id: int) -> None:
    driver = ArmDriver(domain_id, 'ur5e_robotiq')
    driver.switch('inactive')
    driver.states['robotiq_gripper_controller'] = 'unconfigured'
    try:
        problems = problems_of('ur5e_robotiq', domain_id)
    finally:
        driver.close()
    arm, hand = (each for each in problems if each.startswith('command'))
    assert "'arm' (/forward_position_controller/commands): /forward_position_controller is" in arm
    assert ' is inactive, and does nothing with it: ros2 control switch_controllers' in arm
    assert '/robotiq_gripper_controller is unconfigured' in hand
    assert any(each.startswith("stop input 'controller'") for each in problems)
    driver = ArmDriver(domain_id, 'ur5e_robotiq', gripper=False)
    kind = message_class(GRIPPER)
    client = ActionClient(driver.nodes[0], kind, 'robotiq_gripper_controller/gripper_cmd')
    try:
        (problem,) = problems_of('ur5e_robotiq', domain_id)
    finally:
        client.destroy()
        driver.close()
    assert "'gripper' (/robotiq_gripper_controller/gripper_cmd): no control_msgs/" in problem


@with_package('control_msgs')
def test_a_gripper_with_an_action_of_another_type_is_named(domain_id: int) -> None:
    driver = ArmDriver(domain_id, 'ur5e_robotiq', gripper=False)
    serve(driver.nodes[3], driver.arm.gripper, driver.finger, PARALLEL_GRIPPER)
    try:
        (problem,) = problems_of('ur5e_robotiq', domain_id)
    finally:
        driver.close()
    assert (
        'no control_msgs/action/GripperCommand server, but one of control_msgs/action/' in problem
    )
    assert 'ParallelGripperCommand: correct type in the robot YAML' in problem


def test_joint_targets_in_another_order_than_the_controller_takes_them_are_named(
    domain_id: int,
) -> None:
    driver = ArmDriver(domain_id, 'fr3')
    joints = [*driver.arm.joints[1:], driver.arm.joints[0]]
    driver.nodes[1].set_parameters([Parameter('joints', value=joints)])
    try:
        (problem,) = problems_of('fr3', domain_id)
    finally:
        driver.close()
    assert f'/joint_impedance_controller has the joints {", ".join(joints)}' in problem
    assert 'name the same in the same order' in problem
