# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`residual-rl up` runs what was learned beside a robot, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from actor_builders import write_peg_actor
from command_line import run_command
from processes import wait_for

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.config.run import load_run
from residual_rl_ros.ros.bringup import up as bringup
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology

pytestmark = pytest.mark.ros

LIMIT_S = 60.0


def test_a_learned_residual_runs_without_a_learner(domain_id: int, tmp_path: Path) -> None:
    config = load_run('peg_insert')
    resolved = config.resolve()
    base, robot_file = resolved.policy, resolved.robot_file
    write_peg_actor(tmp_path / 'actor.safetensors')
    environment = ros_environment(domain_id)
    simulator = finetune_topology(config, robot_file, base.path, tmp_path, 0, 0, lockstep=False)[-1]
    command = [sys.executable, '-m', 'residual_rl_ros.cli.main', 'up', 'peg_insert']
    command += ['--base', 'peg_insert', '--out', str(tmp_path), '--no-learner', '--auto-start']
    command += ['--record', str(tmp_path / 'bag')]
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
            up.send_signal(signal.SIGHUP)  # Its terminal closes, and then its shell says so too.
            up.send_signal(signal.SIGHUP)
            _, shown = up.communicate(timeout=40.0)
        finally:
            up.kill()
    assert up.returncode == 130
    assert 'every process has ended' in shown
    # Without a terminal it says what happens, a line for each thing.
    told = [line for line in shown.splitlines() if ' policy_node: ' in line]
    assert any('active True' in line and 'residual_on True' in line for line in told)
    assert any('recorder_node: messages' in line for line in shown.splitlines())
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
    assert 'is unreadable' in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def in_a_thread(count: int, context: object, initializer: object) -> ThreadPoolExecutor:
    """Return what runs a check at once: torch is here already."""
    return ThreadPoolExecutor(count)


def test_numbers_of_the_preset_reach_the_learner_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []
    monkeypatch.setattr(bringup, 'run_up', lambda nodes, logs, console: started.extend(nodes))
    monkeypatch.setattr(bringup, 'ProcessPoolExecutor', in_a_thread)
    command = ['up', 'peg_insert', '--base', 'peg_insert', '--out', str(tmp_path)]
    command += ['--set', 'gamma=0.9', '--set', 'actor_hidden_sizes=[8, 8]']
    assert run_command(*command, monkeypatch=monkeypatch) == 0
    learner = started[0]
    assert learner.executable == 'learner_node'
    assert learner.parameters['overrides'] == {'gamma': 0.9, 'actor_hidden_sizes': [8, 8]}
    capsys.readouterr()
    assert run_command(*command, '--no-learner', monkeypatch=monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: --set is a number of the learner')


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        ('--preset dwan', "unknown preset 'dwan'"),
        ('--set warmup_transition=1500', 'did you mean warmup_transitions?'),
        ('--preset q_remix', 'proposals is 1: set it to 8'),
        ('--scale 0.1 --scale 0.2', 'residual_scale has 2 values, expected 1 or 7'),
        ('--scale 0.1 --scale 0.2 --no-learner', 'residual_scale has 2 values, expected 1 or 7'),
        ('--base push_to_goal', 'observation names differ'),
        ('--preset rlpd --demonstrations nowhere', "demonstrations 'nowhere' do not exist"),
        ('--preset best_of_n --demonstrations nowhere', 'samples no demonstrations'),
        ('--classifier nowhere.onnx', "'nowhere.onnx' does not exist"),
        ('--reward os:getcwd', "reward function 'os:getcwd' failed with TypeError"),
        ('--namespace a-b', "namespace 'a-b' is not one of ROS: expected letters, digits and _"),
    ],
)
def test_what_a_node_would_refuse_is_refused_before_any_is_started(
    options: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bringup, 'run_up', None)
    if options != '--set warmup_transition=1500':  # One passes through a process, as users' do.
        monkeypatch.setattr(bringup, 'ProcessPoolExecutor', in_a_thread)
    write_peg_actor(tmp_path / 'actor.safetensors')
    command = ['up', 'peg_insert', '--base', 'peg_insert', '--out', str(tmp_path)]
    assert run_command(*command, *options.split(), monkeypatch=monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert reason in line


@pytest.mark.parametrize(('options', 'warned'), [('', True), ('--proposals 8', False)])
def test_a_residual_of_more_than_half_of_the_trained_range_is_told(
    options: str,
    warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bringup, 'run_up', lambda nodes, logs, console: None)
    write_peg_actor(tmp_path / 'actor.safetensors')
    command = ['up', 'peg_insert', '--base', 'peg_insert', '--out', str(tmp_path), '--no-learner']
    given = ('--scale', '2', *options.split())
    assert run_command(*command, *given, monkeypatch=monkeypatch) == 0
    assert ('warning: residual_scale is [2.0]' in capsys.readouterr().err) is warned
