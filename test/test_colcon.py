# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`colcon build` installs the package where ROS looks for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from residual_rl_ros.resources import resource_path

SOURCE = resource_path('package.xml').parent
COLCON = Path(sys.executable).with_name('colcon')


def colcon(workspace: Path, *arguments: str) -> str:
    """Return what colcon prints in a workspace."""
    assert COLCON.exists(), 'colcon-ros is missing; requirements/dev.txt has it'
    path = f'{COLCON.parent}{os.pathsep}{os.environ["PATH"]}'
    result = subprocess.run(
        [str(COLCON), *arguments],
        cwd=workspace,
        env={**os.environ, 'PATH': path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope='module')
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a copy of the source tree and return the workspace."""
    workspace = tmp_path_factory.mktemp('workspace')
    skipped = shutil.ignore_patterns('.*', 'runs', '__pycache__', '*.egg-info', 'build', 'install')
    shutil.copytree(SOURCE, workspace / 'src' / 'residual_rl_ros', ignore=skipped)
    colcon(workspace, 'build')
    return workspace


@pytest.fixture(scope='module')
def prefix(workspace: Path) -> Path:
    """Return the prefix of the package."""
    return workspace / 'install' / 'residual_rl_ros'


def test_the_ament_index_knows_the_package(prefix: Path) -> None:
    index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    assert (index / 'residual_rl_ros').is_file()
    assert (prefix / 'share' / 'residual_rl_ros' / 'package.xml').is_file()


@pytest.mark.parametrize('folder', ['launch', 'config', 'models', 'sim'])
def test_every_shared_file_is_installed(prefix: Path, folder: str) -> None:
    share = prefix / 'share' / 'residual_rl_ros'
    sources = {
        path.relative_to(SOURCE)
        for path in (SOURCE / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }
    assert sources
    for path in sources:
        assert (share / path).read_bytes() == (SOURCE / path).read_bytes()


def test_ros2_run_finds_every_executable(prefix: Path) -> None:
    executables = {path.name for path in (prefix / 'lib' / 'residual_rl_ros').iterdir()}
    nodes = {'policy_node', 'learner_node', 'mujoco_sim_node', 'reward_node'}
    assert executables >= {*nodes, 'residual-rl'}


def test_executables_run_in_the_environment_that_built_them(prefix: Path) -> None:
    first = (prefix / 'lib' / 'residual_rl_ros' / 'policy_node').read_text().splitlines()[0]
    assert first == f'#!{sys.executable}'


def test_colcon_test_runs_tests(workspace: Path) -> None:
    # Without a selection it runs all of them, those with ROS too.
    selected = ('test/test_numerics.py', 'test/test_resources.py')
    colcon(workspace, 'test', '--return-code-on-test-failure', '--pytest-args', *selected)
    summary = colcon(workspace, 'test-result', '--all')
    counted = re.search(r'Summary: (\d+) tests, 0 errors, 0 failures, 0 skipped', summary)
    assert counted, summary
    assert int(counted[1]) > 10


def test_the_installed_package_finds_its_files_through_the_prefix(prefix: Path) -> None:
    packages = next((prefix / 'lib').glob('python*')) / 'site-packages'
    code = 'from residual_rl_ros.resources import resource_path; print(resource_path("models"))'
    found = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': str(packages), 'AMENT_PREFIX_PATH': str(prefix)},
        cwd=prefix,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert Path(found.stdout.strip()) == prefix / 'share' / 'residual_rl_ros' / 'models'
