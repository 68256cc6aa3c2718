# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A ROS domain is one run's, and its lock is nobody else's file."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run_command

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.ros.bringup import domains
from residual_rl_ros.ros.bringup.domains import LAST_DOMAIN, claim_domain

pytestmark = pytest.mark.ros


@pytest.fixture
def empty_domains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have no other node in any domain, and return the folder of the locks."""
    monkeypatch.setattr(domains, '_nodes_in', lambda domain_id: [])
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.delenv('ROS_DOMAIN_ID', raising=False)
    return tmp_path


def lock(folder: Path, domain_id: int) -> Path:
    return folder / f'residual_rl_ros_domain_{domain_id}.lock'


def test_the_lock_of_a_domain_is_this_users_alone_and_is_let_go(empty_domains: Path) -> None:
    for _ in range(2):
        with claim_domain(7) as domain_id:
            assert domain_id == 7
            assert lock(empty_domains, 7).stat().st_mode & 0o777 == 0o600
            with pytest.raises(ResidualRLError, match='occupied by another run'), claim_domain(7):
                pass


def to_a_file(path: Path) -> None:
    victim = path.with_name('victim')
    victim.write_text('precious')
    path.symlink_to(victim)


def to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name('created'))


@pytest.mark.parametrize('place', [to_a_file, to_nothing, os.mkfifo, Path.mkdir])
def test_a_lock_that_somebody_has_prepared_is_refused_and_followed_nowhere(
    empty_domains: Path, place: Callable[[Path], None]
) -> None:
    place(lock(empty_domains, 7))
    with (
        pytest.raises(ResidualRLError, match='is not a lock file of this user'),
        claim_domain(7),
    ):
        pass
    assert not (empty_domains / 'created').exists()
    if place is to_a_file:
        assert (empty_domains / 'victim').read_text() == 'precious'


def test_a_free_domain_is_never_that_of_the_shell(
    empty_domains: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be a robot in it."""
    monkeypatch.setenv('ROS_DOMAIN_ID', '42')
    held = []
    for domain_id in range(1, LAST_DOMAIN + 1):
        if domain_id not in (42, 77):
            held.append(os.open(lock(empty_domains, domain_id), os.O_RDWR | os.O_CREAT))
            fcntl.flock(held[-1], fcntl.LOCK_EX)
    try:
        with claim_domain() as domain_id:
            assert domain_id == 77
    finally:
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.parametrize('text', ['abc', '-1', '233', '1.5', ' 7', '0x10', '9' * 30, '\uff17'])
def test_a_domain_that_is_no_number_is_one_line(
    empty_domains: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', text)
    with pytest.raises(ResidualRLError, match='expected a number from 0 to 232'), claim_domain():
        pass


@pytest.mark.parametrize(
    'command',
    [
        ['up', 'peg_insert', '--base', 'peg_insert'],
        ['operator'],
        ['check-robot', 'peg_insert', '--live', '--seconds', '0.1'],
        ['bag', 'play', 'test/data/transitions_bag'],
        ['bench', 'control', '--seconds', '5'],
    ],
)
def test_every_command_says_in_one_line_that_the_domain_is_no_number(
    empty_domains: Path,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', 'abc')
    out = ['--out', str(empty_domains / 'run')] if command[0] == 'up' else []
    assert run_command(*command, *out, monkeypatch=monkeypatch) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1] == "error: ROS_DOMAIN_ID is 'abc', expected a number from 0 to 232"
    assert 'Traceback' not in ''.join(errors)


def test_a_node_says_so_too() -> None:
    ended = subprocess.run(
        [sys.executable, '-m', 'residual_rl_ros.ros.nodes.recorder_node'],
        env={**os.environ, 'ROS_DOMAIN_ID': 'abc'},
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == "error: ROS_DOMAIN_ID is 'abc', expected a number from 0 to 232\n"
