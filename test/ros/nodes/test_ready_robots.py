# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Each robot that is ready plays episodes before a fake of its driver, gripper included."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_drivers import ArmDriver
from ready_robots import MOTION, ROBOTS, begin, driver_of, play, policy_node
from ros_fixtures import Caller

pytestmark = pytest.mark.ros


def run_episodes(
    name: str,
    folder: Path,
    domain_id: int,
    call: Caller,
    patch: pytest.MonkeyPatch,
    episodes: int,
    seconds: float,
) -> None:
    with policy_node(name, folder, domain_id, patch) as node:
        driver = driver_of(name, domain_id)
        try:
            begin(node)
            assert node.active, node.failure
            moved = play(driver, call, episodes, seconds)
        finally:
            driver.close()
        assert node._fault_reason == ''
        assert node._loop.episode == episodes - 1
        assert min(moved) > 0.5 * MOTION, moved
        assert node._loop.counts['transitions'] > 2 * episodes
        if isinstance(driver, ArmDriver):
            robot = node.robot.action
            goals = [position for position, _ in driver.finger.goals]
            assert len(goals) >= 2 * episodes
            assert min(goals) >= robot.lower[-1]
            assert max(goals) <= robot.upper[-1]
            report = node._outputs.report()
            assert report['gripper_goals'] == len(goals)
            assert (report['gripper_goals_refused'], report['gripper_goals_unsent']) == (0, 0)


def test_a_ur5e_with_its_gripper_plays_episodes(
    domain_id: int, tmp_path: Path, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_episodes('ur5e_robotiq', tmp_path, domain_id, call, monkeypatch, 2, 1.2)


@pytest.mark.slow
@pytest.mark.parametrize('name', ROBOTS)
def test_every_robot_that_is_ready_plays_twenty_episodes(
    name: str, domain_id: int, tmp_path: Path, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_episodes(name, tmp_path, domain_id, call, monkeypatch, 20, 2.0)
