# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Each robot that is ready plays episodes before a fake of its driver, gripper included."""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from fake_drivers import ArmDriver
from processes import wait_for
from ready_robots import (
    LIMIT_S,
    ROBOTS,
    begin,
    driver_of,
    play,
    policy_node,
    policy_spec,
    write_base,
)
from ros_fixtures import Caller, with_package

from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import ros_environment

pytestmark = pytest.mark.ros


def run_episodes(
    name: str,
    folder: Path,
    domain_id: int,
    call: Caller,
    patch: pytest.MonkeyPatch,
    episodes: int,
) -> None:
    with policy_node(name, folder, domain_id, patch) as node:
        driver = driver_of(name, domain_id)
        try:
            begin(node)
            assert node.active, node.failure
            play(driver, call, episodes)
        finally:
            driver.close()
        assert node._fault_reason == ''
        assert node._loop.episode == episodes - 1
        assert node._loop.counts['transitions'] > 2 * episodes
        if isinstance(driver, ArmDriver):
            robot = node.robot.action
            goals = [position for position, _ in driver.finger.goals]
            assert len(goals) >= episodes
            assert min(goals) >= robot.lower[-1]
            assert max(goals) <= robot.upper[-1]
            report = node._outputs.report()
            assert report['gripper_goals'] == len(goals)
            assert (report['gripper_goals_refused'], report['gripper_goals_unsent']) == (0, 0)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize('name', ROBOTS)
def test_up_plays_twenty_episodes_and_learns(
    name: str, domain_id: int, tmp_path: Path, call: Caller
) -> None:
    robot, _ = load_robot(name)
    for kind in (*(c.type for c in robot.commands), *(s.type for s in robot.stop_inputs)):
        package = kind.partition('/')[0]
        if find_spec(package) is None:
            pytest.skip(f'{package} is not installed: only a ROS 2 installation has it')
    base = tmp_path / 'base.onnx'
    write_base(base, robot)
    command = [sys.executable, '-m', 'residual_rl_ros.cli.main', 'up', name, '--base', str(base)]
    command += ['--out', str(tmp_path / 'run'), '--decision-steps', '4', '--prefetch-steps', '4']
    driver = driver_of(name, domain_id)
    environment = ros_environment(domain_id)
    with (
        Monitor(domain_id) as monitor,
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as up,
    ):
        try:
            for node in ('policy_node', 'learner_node'):
                wait_for(lambda node=node: monitor.status(node) is not None, 60.0, node)
            play(driver, call, 20)
            wait_for(
                lambda: monitor.number('learner_node', 'episodes') == 20, 20.0, 'every episode'
            )
            if isinstance(driver, ArmDriver):
                goals = driver.finger.goals
                assert len(goals) >= 20
                wait_for(
                    lambda: monitor.number('policy_node', 'gripper_goals') == len(goals),
                    *(5.0, 'the count of goals'),
                )
                assert monitor.values('policy_node')['gripper_goals_refused'] == '0'
        finally:
            up.send_signal(signal.SIGINT)
            _, shown = up.communicate(timeout=60.0)
            driver.close()
    assert up.returncode == 130, shown


@pytest.mark.slow
@with_package('control_msgs')
@with_package('ur_dashboard_msgs')
def test_a_process_that_is_told_to_stop_cancels_the_goal_of_its_gripper(
    domain_id: int, tmp_path: Path
) -> None:
    spec = policy_spec('ur5e_robotiq', tmp_path, auto_start=True)
    command = [sys.executable, '-m', 'residual_rl_ros.ros.nodes.policy_node']
    driver = ArmDriver(domain_id, 'ur5e_robotiq')
    driver.finger.speed = 0.05
    with subprocess.Popen(
        [*command, *spec.ros_arguments()], env=ros_environment(domain_id)
    ) as process:
        try:
            wait_for(lambda: driver.finger.position > 0.02, LIMIT_S, 'motion')
            before = driver.finger.cancelled
            process.terminate()
            assert process.wait(timeout=10.0) == 0
            wait_for(lambda: driver.finger.cancelled > before, 1.0, 'the cancellation')
        finally:
            process.kill()
            driver.close()


def test_a_ur5e_with_its_gripper_and_two_cameras_plays_episodes(
    domain_id: int, tmp_path: Path, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_episodes('ur5e_robotiq_cameras', tmp_path, domain_id, call, monkeypatch, 2)


def test_a_trajectory_controller_is_told_the_way_on_and_in_a_hold_to_rest(
    domain_id: int, tmp_path: Path, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = load_robot('so101')[1].read_text()
    kind = '          type: trajectory_msgs/msg/JointTrajectory\n'
    robot = tmp_path / 'so101.yaml'
    robot.write_text(text.replace(kind, f'{kind}          horizon_steps: 8\n'))
    with policy_node(str(robot), tmp_path, domain_id, monkeypatch) as node:
        driver = ArmDriver(domain_id, 'so101')
        try:
            begin(node)
            play(driver, call, 1)
        finally:
            driver.close()
        assert node._fault_reason == ''
    *moving, hold = driver.messages
    sizes = [len(message.points) for message in moving]
    assert max(sizes) == 8
    # Of a chunk of 16, 12 are executed. A hold, where the driver was late, has one.
    assert min(size for size in sizes if size > 1) >= 5
    assert any(moving[len(moving) // 2].points[0].velocities)
    for message in driver.messages:
        assert not any(message.points[-1].velocities)
    assert len(hold.points) == 1
    assert not any(hold.points[0].velocities)


@pytest.mark.slow
@pytest.mark.parametrize('name', ROBOTS)
def test_every_robot_that_is_ready_plays_twenty_episodes(
    name: str, domain_id: int, tmp_path: Path, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_episodes(name, tmp_path, domain_id, call, monkeypatch, 20)
