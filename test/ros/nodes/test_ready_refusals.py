# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a driver is named, and nothing moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_drivers import ArmDriver
from processes import wait_for
from ready_robots import LIMIT_S, begin, policy_node
from ros_fixtures import Caller
from std_srvs.srv import Trigger

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.ros.common import command_outputs
from residual_rl_ros.ros.common.managed_node import WARN
from residual_rl_ros.ros.nodes.policy_node import PolicyNode

pytestmark = pytest.mark.ros

UR = 'ur5e_robotiq'


@pytest.fixture
def node(domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PolicyNode]:
    """Yield the policy node of a UR5e, whose episodes start by themselves."""
    with policy_node(
        UR, tmp_path, domain_id, monkeypatch, auto_start=True, hold_limit_s=0.5
    ) as made:
        yield made


@pytest.fixture
def start(domain_id: int) -> Iterator[Callable[..., ArmDriver]]:
    """Yield a function that starts a driver."""
    drivers: list[ArmDriver] = []

    def make(**options: bool) -> ArmDriver:
        drivers.append(ArmDriver(domain_id, UR, **options))
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.close()


def test_without_the_server_of_its_gripper_nothing_moves(
    node: PolicyNode, start: Callable[..., ArmDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_outputs, 'SERVER_LIMIT_S', 0.5)
    driver = start(gripper=False)
    begin(node)
    assert not node.active
    assert isinstance(node.failure, ConfigError)
    assert "'gripper': no control_msgs/action/GripperCommand server at" in str(node.failure)
    assert '/robotiq_gripper_controller/gripper_cmd within 0.5 s' in str(node.failure)
    assert driver.commands == []


def test_a_robot_that_must_not_move_is_not_moved_and_says_why(
    node: PolicyNode, start: Callable[..., ArmDriver]
) -> None:
    driver = start()
    driver.switch('inactive')
    driver.program(False)
    driver.safety_mode(3)
    time.sleep(0.5)
    begin(node)
    assert node.active

    def told() -> bool:
        stops = node._loop.obstacles.stops
        return all('is ' in stops.get(name, '') for name in ('controller', 'program', 'safety'))

    wait_for(told, LIMIT_S, 'the stops')
    time.sleep(0.5)
    stops = node._loop.obstacles.stops
    assert (
        'controllers[name=forward_position_controller].state.label is inactive'
        in (stops['controller'])
    )
    assert 'robot_program_running data is False' in stops['program']
    assert 'safety_mode mode is 3' in stops['safety']
    assert (driver.commands, driver.finger.goals) == ([], [])
    driver.switch('active')
    driver.program(True)
    driver.safety_mode(1)
    wait_for(lambda: len(driver.commands) > 3, LIMIT_S, 'motion')


def test_a_command_to_which_nobody_listens_is_named(
    node: PolicyNode, start: Callable[..., ArmDriver]
) -> None:
    driver = start()
    begin(node)
    heard = node._outputs.unheard
    wait_for(lambda: heard() == '', LIMIT_S, 'the controller')
    driver.unload()
    said = 'nobody listens to the command /forward_position_controller/commands: '

    def told() -> bool:
        level, message, _ = node._report()
        return level == WARN and message.startswith(said)

    wait_for(told, LIMIT_S, 'the warning')


def test_a_robot_of_which_nobody_tells_that_it_may_move_is_not_moved(
    node: PolicyNode, start: Callable[..., ArmDriver]
) -> None:
    driver = start(tells_status=False)
    begin(node)
    wait_for(lambda: len(node._loop.obstacles.stops) == 2, LIMIT_S, 'the stops')
    time.sleep(0.3)
    assert node._loop.obstacles.stops == {
        name: f'stop input {name!r} is not heard yet' for name in ('program', 'safety')
    }
    assert driver.commands == []
    driver.program(True)
    driver.safety_mode(1)
    wait_for(lambda: len(driver.commands) > 3, LIMIT_S, 'motion')


def test_a_controller_that_is_deactivated_is_a_hold_which_cancels_the_goal_under_way(
    node: PolicyNode, start: Callable[..., ArmDriver], call: Caller
) -> None:
    driver = start()
    driver.finger.speed = 0.01
    begin(node)
    wait_for(lambda: len(driver.finger.goals) > 1, LIMIT_S, 'goals')
    assert driver.finger.cancelled == 0
    driver.switch('inactive')
    wait_for(lambda: driver.finger.cancelled == 1, LIMIT_S, 'the cancellation')
    wait_for(lambda: 'state.label is inactive' in node._fault_reason, LIMIT_S, 'the fault')
    assert not call(Trigger, '/policy_node/start_episode').success
    goals = len(driver.finger.goals)
    time.sleep(0.3)
    assert (len(driver.finger.goals), driver.finger.cancelled) == (goals, 1)
