# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`residual-rl up` runs what was learned beside a robot, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from builders import make_actor
from processes import wait_for

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.config.run import load_run
from residual_rl_ros.residual_policy.robot_policy import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.topology import finetune_topology

pytestmark = pytest.mark.ros

LIMIT_S = 60.0


def write_actor(path: Path) -> None:
    """Write an actor for the peg task with one control step per decision."""
    config = load_run('peg_insert')
    resolved = config.resolve()
    policy, robot = resolved.policy, resolved.robot
    layout = config.controller_config(0, False, False).build(policy, robot.action).layout
    actor = make_actor(layout, seed=1)
    path.write_bytes(encode_weights(actor.to_numpy(), WeightsHeader(4, 7, Exploration())))


def test_a_learned_residual_runs_without_a_learner(domain_id: int, tmp_path: Path) -> None:
    config = load_run('peg_insert')
    resolved = config.resolve()
    base, robot_file = resolved.policy, resolved.robot_file
    write_actor(tmp_path / 'actor.safetensors')
    environment = ros_environment(domain_id)
    simulator = finetune_topology(config, robot_file, base.path, tmp_path, 0, 0, lockstep=False)[-1]
    command = [sys.executable, '-m', 'residual_rl_ros.cli.main', 'up', 'peg_insert']
    command += ['--base', 'peg_insert', '--out', str(tmp_path), '--no-learner', '--auto-start']
    command += ['--decision-steps', str(config.decision_steps), '--record', str(tmp_path / 'bag')]
    command += [f'--scale={scale}' for scale in config.residual_scale]
    with (
        Monitor(domain_id) as monitor,
        Bringup([simulator], tmp_path / 'sim', environment),
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as up,
    ):
        try:
            wait_for(
                lambda: monitor.number('policy_node', 'transitions') > 10, LIMIT_S, 'transitions'
            )
            values = monitor.values('policy_node')
            assert (values['epoch'], values['sequence']) == ('4', '7')
            assert values['residual_on'] == 'True'
            recorded = 'recorder_node', 'messages'
            # Long enough for `up`, which listens for itself, to have heard the diagnostics too.
            wait_for(lambda: monitor.number(*recorded) > 500, LIMIT_S, 'recording')
            up.send_signal(signal.SIGINT)
            _, shown = up.communicate(timeout=40.0)
        finally:
            up.kill()
    assert up.returncode == 130
    assert 'residual_on True' in ' '.join(shown.split())
    assert 'every process has ended' in shown
    bag = Bag(tmp_path / 'bag')
    types = {message.topic.type for message in bag.messages()}
    assert list(bag.problems) == []
    assert {'sensor_msgs/msg/JointState', 'std_msgs/msg/Float64MultiArray'} < types
    assert len(bag.custom_data['base_policy_sha256']) == 64
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert 'exists already; choose a new one' in again.stderr


def test_an_actor_that_does_not_fit_is_refused_before_anything_moves(
    domain_id: int, tmp_path: Path
) -> None:
    (tmp_path / 'actor.safetensors').write_bytes(b'garbage')
    command = [sys.executable, '-m', 'residual_rl_ros.cli.main', 'up', 'peg_insert', '--base']
    finished = subprocess.run(
        [*command, 'peg_insert', '--out', str(tmp_path), '--no-learner'],
        env=ros_environment(domain_id),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert finished.returncode == 2
    assert 'error: policy_node ended with code 2' in finished.stderr
