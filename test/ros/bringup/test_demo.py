# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo as a user meets it: what it leaves behind, how it is interrupted, how it refuses."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest
import rclpy
from command_line import run_command
from PIL import Image
from processes import node_processes, wait_for
from rich.console import Console

from residual_rl_ros.config.run import load_run
from residual_rl_ros.evaluation.episode import Episode
from residual_rl_ros.evaluation.sequential import SuccessTest
from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.ros.bringup import demo as demonstration
from residual_rl_ros.ros.bringup import domains
from residual_rl_ros.ros.bringup.demo import ending, follow_learner

pytestmark = pytest.mark.ros

LIMIT_S = 150.0


def demo(*arguments: str) -> list[str]:
    """Return the command line of a demo in a process of its own."""
    return [sys.executable, '-m', 'residual_rl_ros.cli.main', 'demo', *arguments]


def test_a_quick_demo_leaves_everything_it_promises(tmp_path: Path) -> None:
    out = tmp_path / 'run'
    result = subprocess.run(
        demo('--quick', '--json', '--task', 'push_to_goal', '--steps', '600', '--out', str(out)),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary == json.loads((out / 'summary.json').read_text())
    assert summary['task'] == 'push_to_goal'
    assert summary['base']['episodes'] == summary['final']['episodes'] == 10
    assert summary['updates'] > 0
    assert summary['episodes'] > 0
    assert summary['round_trips_per_s']['whole_run'] > 0.0
    assert summary['round_trips_per_s']['warmup'] != 0.0
    assert 'namespace /sim of ROS domain' in result.stderr
    assert summary['versions']['torch']
    assert not summary['interrupted']
    assert summary['ended_by'] == 'budget'
    assert 'ended with its budget' not in result.stderr
    assert all(line.endswith('┘') for line in result.stderr.splitlines() if '┘' in line)
    assert load_checkpoint(out / 'checkpoints' / 'latest').updates.online == summary['updates']
    assert list((out / 'tensorboard').glob('events.*'))
    with Image.open(out / 'learning_curve.png') as image:
        assert min(image.size) > 300


def test_the_demo_ends_when_its_training_episodes_are_evidence_and_says_so() -> None:
    evidence = SuccessTest()
    follow_learner(evidence, {})
    for count in range(20, 101, 20):
        status = {'residual_episodes': str(count), 'residual_outcomes': '1' * min(count, 50)}
        follow_learner(evidence, status)
    assert evidence.decided
    said = ending(evidence, 8000.0, 20_000)
    assert 'ended after 8000 of at most 20000 control steps' in said
    assert 'evidence that success is above 90%' in said
    said = ending(SuccessTest(), 20_040.0, 20_000)
    assert 'ended with its budget of 20000 control steps' in said


@pytest.mark.parametrize('quick', [False, True])
def test_the_demo_says_its_result_before_why_it_ended_and_of_a_quick_one_no_more(
    quick: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = [Episode(seed, True, 1, 1.0) for seed in range(2)]
    for name, made in (
        ('_finetune', ({}, 'ended with its budget')),
        ('_evaluate', played),
        ('_draw_repair', None),
        ('read_actor', b''),
        ('describe_learning', {'episodes': 0}),
    ):
        monkeypatch.setattr(demonstration, name, lambda *told, made=made: made)
    run = load_run('peg_insert').resolve()
    console = Console(file=io.StringIO(), width=200)
    options = demonstration.DemoOptions(run.config, 0, tmp_path, 2, quick=quick)
    demonstration._run(options, run, 0, 0.0, console)
    *_, result, last = ['', *console.file.getvalue().splitlines()]
    assert (result if not quick else last).startswith('base + residual: 100%')
    assert ('ended with its budget' in last) is not quick


def test_ctrl_c_ends_every_process_and_keeps_a_usable_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / 'run'
    before = node_processes()
    process = subprocess.Popen(
        demo('--quick', '--steps', '100000', '--out', str(out)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        log = out / 'tensorboard'
        wait_for(lambda: any(file.stat().st_size > 1000 for file in log.glob('*')), 90.0, 'update')
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=90.0)
    finally:
        process.kill()
    assert process.returncode == 130
    assert 'interrupted; every process has ended; checkpoint kept' in ' '.join(error.split())
    assert not node_processes() - before
    assert load_checkpoint(out / 'checkpoints' / 'latest').updates.online > 0
    assert json.loads((out / 'summary.json').read_text())['interrupted']


class Refused(Protocol):
    """Checks that a demo is refused."""

    def __call__(self, *arguments: str, because: Sequence[str]) -> None: ...


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return a function that checks for exit code 2 and one line that names the thing."""

    def check(*arguments: str, because: Sequence[str]) -> None:
        assert run_command('demo', *arguments, monkeypatch=monkeypatch) == 2
        shown = capsys.readouterr().err
        errors = [line for line in shown.splitlines() if line.startswith('error: ')]
        assert len(errors) == 1, shown
        assert 'Traceback' not in shown
        for word in because:
            assert word in errors[0]

    return check


def test_an_unknown_task_is_refused_in_one_line(refused: Refused) -> None:
    refused('--task', 'peg_inzert', because=["unknown task 'peg_inzert'", 'peg_insert'])


def test_a_missing_model_is_refused_in_one_line(refused: Refused, tmp_path: Path) -> None:
    path = finetune_file(tmp_path, base_policy='/nowhere/policy.onnx')
    refused('--task', str(path), because=["'/nowhere/policy.onnx' does not exist"])


def test_a_wrong_joint_name_is_refused_by_name(refused: Refused, tmp_path: Path) -> None:
    robot = tmp_path / 'robot.yaml'
    shipped = Path('config/robots/peg_insert.yaml').read_text()
    robot.write_text(shipped.replace('joint7', 'joint8'))
    path = finetune_file(tmp_path, robot=str(robot))
    refused('--task', str(path), because=['joint7', 'robot YAML'])


def test_a_base_policy_of_another_observation_size_is_refused(
    refused: Refused, tmp_path: Path
) -> None:
    path = finetune_file(tmp_path, base_policy='push_to_goal')
    refused('--task', str(path), because=['observation names differ'])


@pytest.mark.parametrize(
    ('key', 'value', 'word'),
    [
        ('task', 'peg_inzert', "unknown task 'peg_inzert'"),
        ('task', 'push_to_goal', 'block.position'),
        ('residual_scale', '[0.1, 0.1]', 'residual_scale has 2 values'),
        ('prefetch_steps', '8', 'prefetch_steps 8'),
        ('decision_steps', '0', 'decision_steps'),
        ('control_steps', '0', 'control_steps is 0'),
        ('overrides', '{utd: fast}', "utd is 'fast'"),
    ],
)
def test_a_wrong_value_in_the_configuration_is_refused_in_one_line(
    refused: Refused, tmp_path: Path, key: str, value: str, word: str
) -> None:
    refused('--task', str(finetune_file(tmp_path, **{key: value})), because=[word])


def test_a_domain_that_is_no_number_is_refused(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', '9999')
    refused('--out', str(tmp_path / 'run'), because=["'9999', expected a number from 0 to 232"])
    monkeypatch.delenv('ROS_DOMAIN_ID')
    expected = ["--domain is '999', expected a number from 0 to 232"]
    refused('--domain', '999', '--out', str(tmp_path / 'run'), because=expected)


def test_an_unwritable_output_folder_is_refused(refused: Refused) -> None:
    refused('--out', '/proc/nowhere', because=["'/proc/nowhere' cannot be written", '--out'])


def test_an_output_folder_with_a_run_in_it_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / 'summary.json').write_text('{}')
    refused('--out', str(tmp_path), because=['already holds a run'])


def test_an_occupied_domain_is_refused(refused: Refused, domain_id: int, tmp_path: Path) -> None:
    expected = [f'ROS domain {domain_id} is occupied', 'another run', 'choose a free number']
    started = time.monotonic()
    domain = str(domain_id)
    refused('--quick', '--domain', domain, '--out', str(tmp_path / 'run'), because=expected)
    assert time.monotonic() - started < 60.0


def test_a_domain_with_the_node_of_another_is_refused(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is not of this package holds no lock; it is discovered."""
    with domains.claim_domain() as other:
        pass  # It was free, of tests beside this one too.
    monkeypatch.setattr(domains, 'DISCOVERY_S', 60.0)  # What listens ends when it has found one.
    context = rclpy.Context()
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    rclpy.init(context=context, domain_id=other)
    node = rclpy.create_node('somebody', context=context)
    try:
        expected = [f'ROS domain {other} is occupied by nodes somebody']
        out = str(tmp_path / 'run')
        refused('--quick', '--domain', str(other), '--out', out, because=expected)
    finally:
        node.destroy_node()
        context.try_shutdown()


def finetune_file(folder: Path, **changes: str) -> Path:
    """Write the shipped configuration of `peg_insert` with changes."""
    lines = Path('config/finetune/peg_insert.yaml').read_text().splitlines()
    for key, value in changes.items():
        lines = [f'{key}: {value}' if line.startswith(f'{key}:') else line for line in lines]
    path = folder / 'finetune.yaml'
    path.write_text('\n'.join(lines))
    return path
