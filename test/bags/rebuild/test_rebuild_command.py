# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`bag rebuild` leaves a whole transition bag or none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from base_policy_builders import write_onnx_policy
from command_line import run
from raw_bag_builders import DESCRIPTION, ROBOT, record_commands
from robot_builders import make_metadata

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.summary import summarise
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.training.train_from_bags import BASE_POLICY


def rebuild_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, namespace: str = 'cell'
) -> int:
    """Run `bag rebuild` on `folder/raw` into `folder/made`; return its exit code."""
    metadata = make_metadata(observation_names=ROBOT.observation_names)
    write_onnx_policy(folder / 'base.onnx', metadata)
    robot = yaml.safe_dump({'/**': {'ros__parameters': {'robot': DESCRIPTION}}})
    (folder / 'robot.yaml').write_text(robot)
    return run(
        *('rebuild', str(folder / 'raw'), '--out', str(folder / 'made')),
        *('--robot', str(folder / 'robot.yaml'), '--base', str(folder / 'base.onnx')),
        *('--namespace', namespace, '--decision-steps', '2', *arguments),
        monkeypatch=monkeypatch,
    )


def test_the_numbers_of_the_node_can_be_given_to_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_commands(tmp_path / 'raw', list(range(30)))
    numbers = ('--prefetch-steps', '1', '--chunk-blend-steps', '2', '--episode-limit', '0.59')
    assert rebuild_command(tmp_path, monkeypatch, *numbers) == 0
    (summary,) = summarise(Bag(tmp_path / 'made')).robots
    assert summary.to_json()['decisions_per_episode'][2] == 6  # 12 steps of 0.05 s in pairs.
    identity = OnnxBasePolicy(tmp_path / 'base.onnx').sha256
    assert Bag(tmp_path / 'made').recorded_values(BASE_POLICY) == {identity}


def test_a_failed_rebuild_leaves_nothing_in_the_way_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record_commands(tmp_path / 'raw', list(range(30)))
    assert rebuild_command(tmp_path, monkeypatch, namespace='cel') == 2
    assert 'give --namespace' in capsys.readouterr().err
    assert not (tmp_path / 'made').exists()
    assert rebuild_command(tmp_path, monkeypatch) == 0


def test_the_command_leaves_a_transition_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record_commands(tmp_path / 'raw', list(range(30)))
    (tmp_path / 'marks.yaml').write_text('- {stamp: 100.76, outcome: success}')
    code = rebuild_command(tmp_path, monkeypatch, '--marks', str(tmp_path / 'marks.yaml'))
    assert code == 0
    assert '/cell/joint_states: 30 messages, 20.0 Hz' in capsys.readouterr().err
    (summary,) = summarise(Bag(tmp_path / 'made')).robots
    assert summary.robot == 'cell'
    assert summary.transitions == 14
    assert summary.outcomes() == {'success': 1, 'unlabelled': 1}
    assert summary.missing == 0
