# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a recording says of its origin must be true of this package."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.learner.folder import as_bytes
from residual_rl_ros.robot.urdf import Urdf
from residual_rl_ros.training import provenance as provenance
from residual_rl_ros.training.identity import check_identity, differing, run_identity
from residual_rl_ros.training.options import TrainOptions


def test_a_repository_around_an_installation_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b']
    for command in (['init', '-q'], ['commit', '-q', '--allow-empty', '-m', 'theirs']):
        subprocess.run([*git, *command], check=True)
    packages = tmp_path / 'lib' / 'site-packages'
    packages.mkdir(parents=True)
    module = packages / 'residual_rl_ros' / 'training' / 'provenance.py'
    monkeypatch.setattr(provenance, '__file__', str(module))
    assert provenance.git_commit() is None
    (packages / 'package.xml').touch()
    assert provenance.git_commit() is not None


def test_a_checkout_names_its_commit() -> None:
    root = Path(__file__).resolve().parents[2]
    head = ['git', '-C', str(root), 'rev-parse', '--short=12', 'HEAD']
    found = subprocess.run(head, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip('these tests are in no repository')
    commit = provenance.git_commit()
    assert commit is not None
    assert found.stdout.strip() in commit


def test_a_robot_with_another_urdf_makes_another_run() -> None:
    config = load_run('push_to_goal')
    run, options = config.resolve(), TrainOptions(config, 0, Path('runs'))
    found = []
    for text in ('<robot/>', '<robot name="other"/>'):
        robot = replace(run.robot, urdf=Urdf('arm.urdf', text, ('a', 'b')))
        found.append(run_identity(replace(run, robot=robot), options)['urdf_sha256'])
    assert found[0] != found[1]
    assert 'urdf_sha256' not in run_identity(run, options)


def test_a_key_that_only_one_of_two_runs_says_sets_them_apart() -> None:
    stored = {'seed': 3, 'control_steps': 100, 'proposals': 8}
    assert differing(stored, dict(stored)) == []
    assert differing(stored, {'seed': 3, 'control_steps': 100}) == ['proposals']
    with pytest.raises(ResidualRLError, match='proposals is 8 there and not recorded here'):
        check_identity(Path('latest'), as_bytes(stored), {'seed': 3, 'control_steps': 100})
