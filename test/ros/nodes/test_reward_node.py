# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A reward node judges the episodes of a running robot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders import write_classifier
from processes import wait_for

from residual_rl_ros.config.run import load_run
from residual_rl_ros.ros.bringup.demo import quick
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.topology import finetune_topology, reward_spec

pytestmark = pytest.mark.ros

LIMIT_S = 60.0


def test_a_lasting_success_ends_one_episode(domain_id: int, tmp_path: Path) -> None:
    config = quick(load_run('push_to_goal'))
    resolved = config.resolve()
    base, robot, robot_file = resolved.policy, resolved.robot, resolved.robot_file
    classifier = tmp_path / 'success.onnx'
    write_classifier(classifier, robot.observation_names, gain=0.0, bias=10.0)
    _, policy, simulator = finetune_topology(
        config, robot_file, base.path, tmp_path, 0, 0, lockstep=False
    )
    reward = reward_spec(robot_file, classifier, '', '')
    with (
        Monitor(domain_id) as monitor,
        Bringup([policy, simulator, reward], tmp_path / 'logs', ros_environment(domain_id)),
    ):
        wait_for(lambda: monitor.number('reward_node', 'asked') > 40, LIMIT_S, 'judgement')
        wait_for(lambda: monitor.number('policy_node', 'episode') >= 1, LIMIT_S, 'the end')
        assert monitor.number('reward_node', 'successes') == 1
        assert monitor.number('reward_node', 'answered') == 1


def test_a_node_with_nothing_to_ask_says_so(domain_id: int, tmp_path: Path) -> None:
    resolved = load_run('push_to_goal').resolve()
    robot_file = resolved.robot_file
    node = replace(reward_spec(robot_file, None, '', ''), parameters={})
    with Bringup([node], tmp_path, ros_environment(domain_id)) as bringup:
        wait_for(lambda: bringup.ended('reward_node'), LIMIT_S, 'refusal')
        assert bringup.processes['reward_node'].returncode == 2
    assert 'needs classifier or function' in (tmp_path / 'reward_node.log').read_text()
