# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`residual-rl customise` changes both nodes of a running robot, or neither, and says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from processes import wait_for
from rich.console import Console

from residual_rl_ros.config.run import RunConfig, load_run
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.residual_policy.q_remix import QRemixPolicy
from residual_rl_ros.rewards.composition import AddOns
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.tools import customise as tool
from residual_rl_ros.transitions.transition import Source

pytestmark = pytest.mark.ros

LIMIT_S = 90.0
SHELF = AddOns.from_options(
    ['keep_out_box:point=[tool.position.z],lower=[0.045],upper=[1.0],margin=0.01']
)
UNKNOWN = AddOns.from_options(['keep_out_box:point=[nowhere],lower=[0.0],upper=[1.0]'])


def run_of_operators(**overrides: object) -> RunConfig:
    config = load_run('push_to_goal_operators')
    small = {
        'warmup_transitions': 30,
        'hidden_sizes': [8],
        'batch_size': 8,
        'offline_updates': 5,
        'reward': 'total',
        'guard_share': 0.0,
    }
    return replace(config, customisable=True, control_steps=0, overrides={**small, **overrides})


def topology(config: RunConfig, output: Path) -> tuple[NodeSpec, ...]:
    resolved = config.resolve()
    return finetune_topology(config, resolved.robot_file, resolved.policy.path, output, 5, 0)


def ask(add_ons: AddOns | None, weight: float | None, policy_only: bool = False) -> None:
    tool.customise('', False, policy_only, add_ons, weight, Console(quiet=True))


def test_a_running_robot_is_customised_switched_off_and_asked_for_what_it_cannot(
    domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain_id))
    monkeypatch.setattr(tool, 'DISCOVERY_LIMIT_S', 20.0)
    nodes = topology(run_of_operators(), tmp_path)
    with (
        Monitor(domain_id) as monitor,
        Bringup(nodes, tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        wait_for(lambda: monitor.number('learner_node', 'updates') > 0, LIMIT_S, 'learning')
        ask(SHELF, None)
        wait_for(lambda: monitor.number('policy_node', 'epoch') == 2, LIMIT_S, 'a new critic')
        for node in ('policy_node', 'learner_node'):
            wait_for(
                lambda node=node: 'keep_out_box' in str(monitor.values(node)['add_on']),
                LIMIT_S,
                'the add-on',
            )
        with pytest.raises(ResidualRLError, match='the robot has no observation'):
            ask(UNKNOWN, None)
        assert 'keep_out_box' in str(monitor.values('policy_node')['add_on'])

        ask(None, 0.0)
        wait_for(lambda: monitor.number('policy_node', 'add_on_weight') == 0.0, LIMIT_S, 'off')
        episode = monitor.number('policy_node', 'episode')
        wait_for(
            lambda: monitor.number('policy_node', 'episode') > episode + 1, LIMIT_S, 'episodes'
        )
        bringup.check()
    learner = load_checkpoint(tmp_path / 'checkpoints' / 'latest')
    assert isinstance(learner.rule.robot_policy(), QRemixPolicy)
    assert 'keep_out_box' in learner.add_on.asked[0]
    shares = learner.rule.memory.composition()
    assert shares[Source.RESIDUAL] > 0.0
    assert not learner.episodes.history[-1].residual, 'the base alone'


def test_a_node_that_is_not_there_is_said_and_the_other_keeps_what_it_had(
    domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain_id))
    monkeypatch.setattr(tool, 'DISCOVERY_LIMIT_S', 0.2)
    with pytest.raises(ResidualRLError, match='/policy_node is not there'):
        ask(SHELF, None)
