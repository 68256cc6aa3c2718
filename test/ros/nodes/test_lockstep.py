# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whole runs through three real processes: what they learn, and what they survive."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import rclpy
import torch
from learner_builders import SMALL
from processes import wait_for
from safetensors.torch import load_file

from residual_rl_ros.config.run import RunConfig, load_run, training_seed
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.learner.checkpoint import ALGORITHM, STATE, load_checkpoint
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.ros.bringup.demo import QUICK, quick
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.nodes.learner_node import LearnerNode
from residual_rl_ros.tasks.hosting import connect, make_environment
from residual_rl_ros.training.in_process import InProcessRun

pytestmark = pytest.mark.ros

SEED = 7
RUN_LIMIT_S = 90.0
SOON = {'warmup_transitions': 40, 'publish_interval': 10}
"""A run of few steps has updates and publications, too."""
SOONER = {'warmup_transitions': 20, 'publish_interval': 5}


FAILING = {
    'warmup_transitions': 20,
    'warmup_episodes': 1,
    'anchor_updates': 20,
    'publish_interval': 3,
    'random_exploration_share': 1.0,
}
"""A base policy that failed is followed by a random episode within a hundred decisions."""


def small_config(task: str = 'peg_insert', **overrides: object) -> RunConfig:
    config = quick(load_run(task))
    return replace(config, overrides={**config.overrides, **SMALL, **overrides})


def topology(config: RunConfig, output: Path, **policy: object) -> list[NodeSpec]:
    """Return the three processes, with extra parameters of the policy node."""
    resolved = config.resolve()
    base, robot_file = resolved.policy, resolved.robot_file
    nodes = finetune_topology(config, robot_file, base.path, output, SEED, config.control_steps)
    return [
        replace(node, parameters={**node.parameters, **policy})
        if node.executable == 'policy_node'
        else node
        for node in nodes
    ]


@pytest.mark.parametrize(
    'config',
    [
        # Networks as users have them.
        replace(
            quick(load_run('peg_insert')),
            preset='self_scaling',
            overrides={**QUICK, **FAILING},
            control_steps=400,
        ),
        replace(small_config('push_to_goal_camera', **SOON), control_steps=240),
        replace(small_config('pick_place_camera', **SOONER), control_steps=120),
    ],
    ids=['peg_insert', 'push_to_goal_camera', 'pick_place_camera'],
)
def test_a_run_over_dds_learns_bit_for_bit_what_a_run_in_one_process_learns(
    config: RunConfig, domain_id: int, tmp_path: Path
) -> None:
    with Bringup(
        topology(config, tmp_path), tmp_path / 'logs', ros_environment(domain_id)
    ) as bringup:
        wait_for(lambda: bringup.ended('mujoco_sim_node'), RUN_LIMIT_S, 'end of the run')
        bringup.check()
    over_dds = load_checkpoint(tmp_path / 'checkpoints' / 'latest')

    torch.set_num_threads(1)
    may_be_random = config.preset == 'self_scaling'
    resolved = config.resolve()
    policy, robot = resolved.policy, resolved.robot
    controller = config.controller_config(SEED, explore=True, scheduled=True).build(
        policy, robot.action
    )
    alone = Learner(config.learner_config(), controller.layout, SEED)
    environment = connect(make_environment(config.task), robot)
    InProcessRun(environment, controller, alone, training_seed(SEED)).run(config.control_steps)
    assert over_dds.updates.online == alone.updates.online > 0
    assert over_dds.episodes.history == alone.episodes.history
    assert any(episode.random for episode in alone.episodes.history) == may_be_random
    stored = load_file(tmp_path / 'checkpoints' / 'latest' / ALGORITHM)
    for name, value in alone.rule.state_dict().items():
        assert torch.equal(stored[name], value), name


def test_a_resumed_learner_continues_in_a_new_epoch_and_as_another_one_it_is_refused(
    domain_id: int, tmp_path: Path
) -> None:
    config = replace(small_config(**SOON), control_steps=240)
    environment = ros_environment(domain_id)
    learner, policy, simulator = topology(config, tmp_path)
    with Bringup([learner, policy, simulator], tmp_path / 'logs', environment) as bringup:
        wait_for(lambda: bringup.ended('mujoco_sim_node'), RUN_LIMIT_S, 'end of the run')
    first = load_checkpoint(tmp_path / 'checkpoints' / 'latest')

    assert 'already holds a checkpoint' in refusal(learner, domain_id)
    numbers = 'was trained with other numbers: '
    for reason, parameters in (
        (f'{numbers}algorithm is sac there, td3', {'preset': 'resfit'}),
        (f'{numbers}gamma is', {'preset': '', 'overrides': {'gamma': 0.5}}),
    ):
        parameters = {**learner.parameters, 'resume': True, **parameters}
        assert reason in refusal(replace(learner, parameters=parameters), domain_id)

    own = {'resume': True, 'preset': '', 'overrides': {}}  # As `up` resumes: with its own numbers.
    resuming = replace(learner, parameters={**learner.parameters, **own})
    with Bringup([resuming, policy, simulator], tmp_path / 'logs2', environment) as bringup:
        wait_for(lambda: bringup.ended('mujoco_sim_node'), RUN_LIMIT_S, 'end of the second run')
        bringup.check()
    second = load_checkpoint(tmp_path / 'checkpoints' / 'latest')
    assert second.epoch == first.epoch + 1
    assert second.transitions > first.transitions
    assert second.updates.online > first.updates.online
    assert second.episodes.history[: len(first.episodes.history)] == first.episodes.history


def refusal(spec: NodeSpec, domain_id: int) -> str:
    """Return why a learner node in this process cannot be configured."""
    rclpy.init(args=spec.ros_arguments(), domain_id=domain_id)
    node = LearnerNode()
    try:
        node.trigger_configure()
        assert isinstance(node.failure, ResidualRLError)
        return str(node.failure)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def test_a_killed_learner_leaves_the_policy_running(domain_id: int, tmp_path: Path) -> None:
    config = replace(small_config(**SOON), control_steps=0)  # It goes on until it is stopped.
    learner, policy, simulator = topology(config, tmp_path, actor_timeout_s=2.0)
    environment = ros_environment(domain_id)
    with (
        Monitor(domain_id) as monitor,
        Bringup([learner], tmp_path / 'learner', environment) as learning,
    ):
        # Whoever waits for an actor must not give up before there is a learner.
        wait_for(lambda: monitor.values('learner_node') != {}, RUN_LIMIT_S, 'a learner')
        with Bringup([policy, simulator], tmp_path / 'logs', environment) as bringup:
            updates = ('learner_node', 'updates')
            wait_for(lambda: monitor.number(*updates) > 0, RUN_LIMIT_S, 'first update')
            learning.processes['learner_node'].send_signal(signal.SIGKILL)
            log = tmp_path / 'logs' / 'policy_node.log'
            gave_up = 'going on with the one at hand'
            wait_for(lambda: gave_up in log.read_text(), RUN_LIMIT_S, 'the end of patience')
            steps = ('mujoco_sim_node', 'control_steps')
            known = monitor.number(*steps)
            wait_for(lambda: monitor.number(*steps) > known + 500, RUN_LIMIT_S, 'control')
            bringup.check()
            assert not bringup.ended('mujoco_sim_node')


def test_real_time_mode_runs_at_the_control_rate_and_learns(domain_id: int, tmp_path: Path) -> None:
    config = small_config(warmup_transitions=20, publish_interval=10)
    resolved = config.resolve()
    base, robot_file = resolved.policy, resolved.robot_file
    nodes = finetune_topology(
        config, robot_file, base.path, tmp_path, SEED, control_steps=0, lockstep=False
    )
    with (
        Monitor(domain_id) as monitor,
        Bringup(nodes, tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        wait_for(lambda: monitor.number('policy_node', 'sequence') > 1, RUN_LIMIT_S, 'actor swap')
        wait_for(lambda: monitor.number('learner_node', 'episodes') >= 2, RUN_LIMIT_S, 'episodes')
        rate = monitor.number('mujoco_sim_node', 'mean_steps_per_s')
        assert 0.0 < rate < 1.1 * resolved.robot.control_rate_hz
        bringup.check()
    state = json.loads((tmp_path / 'checkpoints' / 'latest' / STATE).read_text())['state']
    assert state['updates'] > 0
    assert len(state['history']) >= 2
