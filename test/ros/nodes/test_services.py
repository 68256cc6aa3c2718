# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an operator asks of a running learner is done, also while it is paused."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import rclpy
from learner_builders import SMALL
from processes import wait_for
from ros_fixtures import Caller
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import SetBool, Trigger
from transition_builders import make_layout, random_transitions

from residual_rl_ros.config.run import load_run
from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.ros.bringup.demo import quick
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import float_array
from residual_rl_ros.ros.nodes.learner_node import SIGN_OF_LIFE_S

pytestmark = pytest.mark.ros

LIMIT_S = 60.0
ACTOR_TIMEOUT_S = SIGN_OF_LIFE_S + 1.0


def test_a_long_pre_training_answers_and_the_policy_waits_for_it(
    domain_id: int, tmp_path: Path, call: Caller
) -> None:
    config = quick(load_run('peg_insert'))
    overrides = {**config.overrides, **SMALL, 'critic_only_updates': 100_000_000}
    config = replace(config, preset='resfit', overrides=overrides, control_steps=0)
    resolved = config.resolve()
    base, robot_file = resolved.policy, resolved.robot_file
    nodes = [
        replace(node, parameters={**node.parameters, 'actor_timeout_s': ACTOR_TIMEOUT_S})
        if node.executable == 'policy_node'
        else node
        for node in finetune_topology(config, robot_file, base.path, tmp_path, 1, 0)
    ]
    environment, logs = ros_environment(domain_id), tmp_path / 'logs'
    with (
        Monitor(domain_id) as monitor,
        ExitStack() as stack,
    ):
        # The policy must not give up before there is a learner.
        learner = stack.enter_context(Bringup(nodes[:1], logs, environment))
        wait_for(lambda: monitor.values('learner_node') != {}, LIMIT_S, 'a learner')
        bringup = stack.enter_context(Bringup(nodes[1:], logs, environment))
        done = 'pretraining_updates'
        wait_for(lambda: monitor.number('learner_node', done) > 0, LIMIT_S, 'pre-training')
        begun = monitor.number('learner_node', done)
        assert call(Trigger, 'learner_node/save').success
        time.sleep(ACTOR_TIMEOUT_S + 0.5)  # Without a sign of life the policy would give up.
        assert monitor.number('learner_node', done) > begun
        assert monitor.values('learner_node')['phase'] == 'warmup'
        learner.check()
        bringup.check()
    # A hundred million updates would take hours. It was asked to stop, and not killed.
    assert learner.processes['learner_node'].returncode == 0
    log = (tmp_path / 'logs' / 'policy_node.log').read_text()
    assert 'going on with the one at hand' not in log
    assert load_checkpoint(tmp_path / 'checkpoints' / 'latest').updates.pretraining > begun


def test_pause_save_and_rollback(domain_id: int, tmp_path: Path, call: Caller) -> None:
    config = quick(load_run('peg_insert'))
    overrides = {**config.overrides, **SMALL, 'warmup_transitions': 20}
    config = replace(config, overrides=overrides, control_steps=0)
    resolved = config.resolve()
    base, robot_file = resolved.policy, resolved.robot_file
    nodes = finetune_topology(config, robot_file, base.path, tmp_path, 1, 0)
    with (
        Monitor(domain_id) as monitor,
        Bringup(nodes, tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        wait_for(lambda: monitor.number('learner_node', 'updates') > 50, LIMIT_S, 'learning')

        assert call(SetBool, 'learner_node/pause', data=True).success
        saved = call(Trigger, 'learner_node/save')
        assert saved.success, saved.message
        stored = load_checkpoint(tmp_path / 'checkpoints' / 'latest')
        assert stored.updates.online > 50
        assert call(SetBool, 'learner_node/pause', data=False).success

        rolled = call(Trigger, 'learner_node/rollback')
        assert rolled.success, rolled.message
        wait_for(lambda: monitor.number('policy_node', 'epoch') == 2, LIMIT_S, 'the new epoch')
        updates = monitor.number('learner_node', 'updates')
        wait_for(lambda: monitor.number('learner_node', 'updates') > updates, LIMIT_S, 'progress')
        assert monitor.number('learner_node', 'rollbacks') == 1
        bringup.check()


def test_transitions_that_overtake_their_layout_are_kept(domain_id: int, tmp_path: Path) -> None:
    layout = make_layout()
    learner = NodeSpec('learner_node', True, (), {'output_dir': str(tmp_path)})
    with (
        Monitor(domain_id) as monitor,
        Bringup([learner], tmp_path / 'logs', ros_environment(domain_id)),
    ):
        wait_for(lambda: monitor.values('learner_node') != {}, LIMIT_S, 'start')
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain_id)
        node = rclpy.create_node('early', context=context)
        transitions = node.create_publisher(
            Float64MultiArray, 'policy_node/transitions', qos.TRANSITIONS
        )
        wait_for(lambda: transitions.get_subscription_count() == 1, LIMIT_S, 'connection')
        for transition in random_transitions(layout, 20):
            transitions.publish(float_array(layout.encode(transition), layout.label))
        wait_for(lambda: monitor.number('learner_node', 'queue') == 0, LIMIT_S, 'reading')
        time.sleep(0.5)  # Two periods of the diagnostics and more.
        assert monitor.number('learner_node', 'malformed') == 0
        latched = node.create_publisher(String, 'policy_node/transition_layout', qos.LATCHED)
        latched.publish(String(data=layout.to_yaml()))
        wait_for(lambda: monitor.number('learner_node', 'transitions') == 20, LIMIT_S, 'learner')
        assert monitor.number('learner_node', 'malformed') == 0
        assert 'MB when full' in (tmp_path / 'logs' / 'learner_node.log').read_text()
        node.destroy_node()
        context.try_shutdown()
