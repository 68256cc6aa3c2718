# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo as a user meets it: what it leaves behind, how it is interrupted, how it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from processes import node_processes, wait_for

from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.ros.bringup.monitor import claim_domain

pytestmark = pytest.mark.ros

LIMIT_S = 150.0


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `residual-rl demo` to its end."""
    return subprocess.run(
        [sys.executable, '-m', 'residual_rl_ros.cli.main', 'demo', *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={**os.environ, **environment},
    )


def test_a_quick_demo_leaves_everything_it_promises(tmp_path: Path) -> None:
    out = tmp_path / 'run'
    result = demo('--quick', '--json', '--task', 'push_to_goal', '--out', str(out))
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary == json.loads((out / 'summary.json').read_text())
    assert summary['task'] == 'push_to_goal'
    assert summary['base']['episodes'] == summary['final']['episodes'] == 10
    assert summary['updates'] > 0
    assert summary['episodes'] > 0
    assert summary['round_trips_per_s']['whole_run'] > 0.0
    assert summary['round_trips_per_s']['warmup'] != 0.0
    assert summary['versions']['torch']
    assert not summary['interrupted']
    assert load_checkpoint(out / 'checkpoints' / 'latest').updates == summary['updates']
    assert list((out / 'tensorboard').glob('events.*'))
    with Image.open(out / 'learning_curve.png') as picture:
        assert min(picture.size) > 300


def test_ctrl_c_ends_every_process_and_keeps_a_usable_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / 'run'
    before = node_processes()
    process = subprocess.Popen(
        [
            *(sys.executable, '-m', 'residual_rl_ros.cli.main', 'demo'),
            *('--quick', '--steps', '100000', '--out', str(out)),
        ],
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
    assert load_checkpoint(out / 'checkpoints' / 'latest').updates > 0
    assert json.loads((out / 'summary.json').read_text())['interrupted']


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check for exit code 2 and one line that names the thing, and no traceback."""
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1
    assert 'Traceback' not in result.stderr
    for word in words:
        assert word in errors[0]


def test_an_unknown_task_is_refused_in_one_line() -> None:
    assert_refused(demo('--task', 'peg_inzert'), "unknown task 'peg_inzert'", 'peg_insert')


def test_a_missing_model_is_refused_in_one_line(tmp_path: Path) -> None:
    path = finetune_file(tmp_path, base_policy='/nowhere/policy.onnx')
    assert_refused(demo('--task', str(path)), "'/nowhere/policy.onnx' does not exist")


def test_a_wrong_joint_name_is_refused_by_name(tmp_path: Path) -> None:
    robot = tmp_path / 'robot.yaml'
    shipped = Path('config/robots/peg_insert.yaml').read_text()
    robot.write_text(shipped.replace('joint7', 'joint8'))
    path = finetune_file(tmp_path, robot=str(robot))
    assert_refused(demo('--task', str(path)), 'joint7', 'robot YAML')


def test_a_base_policy_of_another_observation_size_is_refused(tmp_path: Path) -> None:
    path = finetune_file(tmp_path, base_policy='push_to_goal')
    assert_refused(demo('--task', str(path)), 'observation names differ')


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
    tmp_path: Path, key: str, value: str, word: str
) -> None:
    assert_refused(demo('--task', str(finetune_file(tmp_path, **{key: value}))), word)


def test_a_domain_that_is_no_number_is_refused(tmp_path: Path) -> None:
    result = demo('--out', str(tmp_path / 'run'), ROS_DOMAIN_ID='9999')
    assert_refused(result, "'9999', expected a number from 0 to 232")


def test_an_unwritable_output_folder_is_refused() -> None:
    assert_refused(demo('--out', '/proc/nowhere'), "'/proc/nowhere' cannot be written", '--out')


def test_an_output_folder_with_a_run_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'summary.json').write_text('{}')
    assert_refused(demo('--out', str(tmp_path)), 'already holds a run')


def test_an_occupied_domain_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('ROS_DOMAIN_ID', raising=False)
    with claim_domain() as domain:
        started = time.monotonic()
        result = demo('--quick', '--out', str(tmp_path / 'run'), ROS_DOMAIN_ID=str(domain))
    assert_refused(result, f'ROS domain {domain} is occupied', 'ROS_DOMAIN_ID')
    assert time.monotonic() - started < 60.0


def finetune_file(folder: Path, **changes: str) -> Path:
    """Write the shipped configuration of `peg_insert` with changes."""
    lines = Path('config/finetune/peg_insert.yaml').read_text().splitlines()
    for key, value in changes.items():
        lines = [f'{key}: {value}' if line.startswith(f'{key}:') else line for line in lines]
    path = folder / 'finetune.yaml'
    path.write_text('\n'.join(lines))
    return path
