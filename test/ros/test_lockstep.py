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
from processes import wait_for
from safetensors.torch import load_file
from std_msgs.msg import UInt8MultiArray

from residual_rl_ros.demo import quick
from residual_rl_ros.finetune import FinetuneConfig, load_finetune, training_seed
from residual_rl_ros.learner.checkpoint import ALGORITHM, STATE, load_checkpoint
from residual_rl_ros.learner.in_process import InProcessRun
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.residual.actor import ResidualActor
from residual_rl_ros.residual.architecture import ActorArchitecture
from residual_rl_ros.residual.weights import WeightsHeader, encode_weights
from residual_rl_ros.ros import qos
from residual_rl_ros.ros.bringup import Bringup, ros_environment
from residual_rl_ros.ros.messages import byte_array
from residual_rl_ros.ros.monitor import Monitor
from residual_rl_ros.ros.topology import NodeSpec, finetune_topology
from residual_rl_ros.sim.hosting import connect, make_environment

pytestmark = pytest.mark.ros

SEED = 7
RUN_LIMIT_S = 90.0


def quick_config(task: str = 'peg_insert', **overrides: object) -> FinetuneConfig:
    config = quick(load_finetune(task))
    return replace(config, overrides={**config.overrides, **overrides})


def topology(config: FinetuneConfig, output: Path, **policy: object) -> list[NodeSpec]:
    """Return the three processes, with extra parameters of the policy node."""
    base, _, robot_file = config.load()
    nodes = finetune_topology(config, robot_file, base.path, output, SEED, config.control_steps)
    return [
        replace(node, parameters={**node.parameters, **policy})
        if node.executable == 'policy_node'
        else node
        for node in nodes
    ]


@pytest.mark.parametrize('task', ['peg_insert', 'push_to_goal_camera'])
def test_a_run_over_dds_learns_bit_for_bit_what_a_run_in_one_process_learns(
    task: str, domain_id: int, tmp_path: Path
) -> None:
    config = quick_config(task)
    with Bringup(
        topology(config, tmp_path), tmp_path / 'logs', ros_environment(domain_id)
    ) as bringup:
        wait_for(lambda: bringup.ended('mujoco_sim_node'), RUN_LIMIT_S, 'end of the run')
        bringup.check()
    over_dds = load_checkpoint(tmp_path / 'checkpoints' / 'latest')

    torch.set_num_threads(1)
    policy, robot, _ = config.load()
    controller = config.controller_config(SEED, explore=True, scheduled=True).build(
        policy, robot.action
    )
    alone = Learner(config.learner_config(), controller.layout, SEED)
    environment = connect(make_environment(config.task), robot)
    InProcessRun(environment, controller, alone, training_seed(SEED)).run(config.control_steps)
    assert over_dds.updates == alone.updates > 0
    assert over_dds.episodes.history == alone.episodes.history
    stored = load_file(tmp_path / 'checkpoints' / 'latest' / ALGORITHM)
    for name, value in alone.algorithm.state().items():
        assert torch.equal(stored[name], value), name


def test_a_resumed_learner_continues_in_a_new_epoch_and_as_another_one_it_is_refused(
    domain_id: int, tmp_path: Path
) -> None:
    config = replace(quick_config(), control_steps=700)
    environment = ros_environment(domain_id)
    learner, policy, simulator = topology(config, tmp_path)
    with Bringup([learner, policy, simulator], tmp_path / 'logs', environment) as bringup:
        wait_for(lambda: bringup.ended('mujoco_sim_node'), RUN_LIMIT_S, 'end of the run')
    first = load_checkpoint(tmp_path / 'checkpoints' / 'latest')

    wrong = {
        'already holds a checkpoint': {},
        'was trained with other numbers: algorithm is sac there, resfit': {
            'resume': True,
            'preset': 'resfit',
        },
        'was trained with other numbers: gamma is': {
            'resume': True,
            'preset': '',
            'overrides': {'gamma': 0.5},
        },
    }
    for index, (reason, parameters) in enumerate(wrong.items()):
        other = replace(learner, parameters={**learner.parameters, **parameters})
        logs = tmp_path / f'refused{index}'
        with Bringup([other], logs, environment) as bringup:
            wait_for(lambda: bringup.ended('learner_node'), 30.0, 'refusal')
            assert bringup.processes['learner_node'].returncode == 2
            assert reason in (logs / 'learner_node.log').read_text()

    own = {'resume': True, 'preset': '', 'overrides': {}}  # As `up` resumes: with its own numbers.
    resuming = replace(learner, parameters={**learner.parameters, **own})
    with Bringup([resuming, policy, simulator], tmp_path / 'logs2', environment) as bringup:
        wait_for(lambda: bringup.ended('mujoco_sim_node'), RUN_LIMIT_S, 'end of the second run')
        bringup.check()
    second = load_checkpoint(tmp_path / 'checkpoints' / 'latest')
    assert second.epoch == first.epoch + 1
    assert second.transitions > first.transitions
    assert second.updates > first.updates
    assert second.episodes.history[: len(first.episodes.history)] == first.episodes.history


def test_a_killed_learner_leaves_the_policy_running(domain_id: int, tmp_path: Path) -> None:
    config = quick_config()
    nodes = topology(config, tmp_path, actor_timeout_s=1.0)
    with (
        Monitor(domain_id) as monitor,
        Bringup(nodes, tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        wait_for(lambda: monitor.number('learner_node', 'updates') > 0, RUN_LIMIT_S, 'first update')
        bringup.processes['learner_node'].send_signal(signal.SIGKILL)
        wait_for(lambda: bringup.ended('mujoco_sim_node'), RUN_LIMIT_S, 'end of the run')
        assert bringup.processes['mujoco_sim_node'].returncode == 0
        assert not bringup.ended('policy_node')
        assert 'going on with the one at hand' in (tmp_path / 'logs/policy_node.log').read_text()


def test_bad_weights_are_refused_and_counted_while_the_robot_moves(
    domain_id: int, tmp_path: Path
) -> None:
    config = replace(quick_config(), control_steps=0)
    _, policy, simulator = topology(config, tmp_path, wait_for_actor=False)
    base, robot, _ = config.load()
    sizes = len(robot.observation_names), config.decision_steps * robot.action.size

    def message(version: tuple[int, int], n: int = sizes[0], spoil: float | None = None) -> bytes:
        actor = ResidualActor(ActorArchitecture(n, sizes[1], (8,), False, sizes[1]))
        if spoil is not None:
            with torch.no_grad():
                actor.heads.bias[0] = spoil
        return encode_weights(actor.to_numpy(), WeightsHeader(*version))

    good = message((1, 5))
    altered = bytearray(message((1, 6)))
    altered[-1] ^= 1
    expected = {
        'accepted': 1,
        'refused_stale': 1,
        'refused_shape': 1,
        'refused_non_finite': 1,
        'refused_digest': 1,
        'refused_malformed': 1,
    }
    messages = [
        *(good, message((1, 4)), message((1, 7), n=sizes[0] + 1)),
        *(message((1, 8), spoil=float('nan')), bytes(altered), good[:1000]),
    ]
    assert base.metadata.action_names == robot.action.names
    with (
        Monitor(domain_id) as monitor,
        Bringup([policy, simulator], tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        wait_for(
            lambda: monitor.number('mujoco_sim_node', 'control_steps') > 0, RUN_LIMIT_S, 'start'
        )
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain_id)
        node = rclpy.create_node('weights', context=context)
        publisher = node.create_publisher(UInt8MultiArray, 'learner_node/actor', qos.LATCHED)
        wait_for(lambda: publisher.get_subscription_count() == 1, 20.0, 'connection')
        for number, payload in enumerate(messages, start=1):
            publisher.publish(byte_array(payload))
            wait_for(lambda n=number: received(monitor, expected) == n, 20.0, f'message {number}')
        counts = {key: monitor.number('policy_node', f'weights_{key}') for key in expected}
        assert counts == expected
        steps = monitor.number('mujoco_sim_node', 'control_steps')
        wait_for(
            lambda: monitor.number('mujoco_sim_node', 'control_steps') > steps, 10.0, 'progress'
        )
        bringup.check()
        node.destroy_node()
        context.try_shutdown()


def received(monitor: Monitor, expected: dict[str, int]) -> float:
    """Return how many weight messages the policy node has judged."""
    return sum(monitor.number('policy_node', f'weights_{key}') for key in expected)


def test_real_time_mode_runs_at_the_control_rate_and_learns(domain_id: int, tmp_path: Path) -> None:
    config = quick_config(warmup_transitions=20, publish_interval=10)
    base, _, robot_file = config.load()
    nodes = finetune_topology(
        config, robot_file, base.path, tmp_path, SEED, control_steps=240, lockstep=False
    )
    with (
        Monitor(domain_id) as monitor,
        Bringup(nodes, tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        wait_for(lambda: bringup.ended('mujoco_sim_node'), RUN_LIMIT_S, 'end of the run')
        bringup.check()
        wait_for(lambda: monitor.number('policy_node', 'sequence') > 1, 10.0, 'actor swap')
    state = json.loads((tmp_path / 'checkpoints' / 'latest' / STATE).read_text())['state']
    assert state['updates'] > 0
    assert len(state['history']) >= 3
