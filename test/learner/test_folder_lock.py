# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Two learners in one folder would leave a mixture of both."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from learner_builders import small_config
from transition_builders import make_layout, random_transitions

from residual_rl_ros.errors import CheckpointError
from residual_rl_ros.learner.checkpoint import CheckpointFolder, load_checkpoint
from residual_rl_ros.learner.folder import LOCK, FolderLock
from residual_rl_ros.learner.learner import Learner

LAYOUT = make_layout()


def test_a_second_learner_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    with closing(FolderLock(tmp_path)):
        holder = f'process {os.getpid()} on '
        with pytest.raises(CheckpointError, match=f'belongs to another learner .*{holder}'):
            FolderLock(tmp_path)
    FolderLock(tmp_path).close()


def test_a_learner_that_is_killed_leaves_its_folder_to_the_next(tmp_path: Path) -> None:
    script = (
        'import sys; from pathlib import Path\n'
        'from residual_rl_ros.learner.folder import FolderLock\n'
        'lock = FolderLock(Path(sys.argv[1])); print("locked", flush=True); sys.stdin.read()'
    )
    command = [sys.executable, '-c', script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b'locked\n'
        with pytest.raises(CheckpointError, match=f'process {process.pid} on'):
            FolderLock(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
        FolderLock(tmp_path).close()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / 'precious'
    target.write_text('kept')
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / LOCK).symlink_to(target)
    with pytest.raises(CheckpointError, match=r'cannot be written: .*choose another folder'):
        FolderLock(tmp_path / 'run')
    assert target.read_text() == 'kept'


def test_a_lock_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK)
    with pytest.raises(CheckpointError, match='is no file; remove it'):
        FolderLock(tmp_path)


def small_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=free))


def test_a_disk_that_is_too_small_is_said_before_and_at_every_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = Learner(small_config(), LAYOUT, seed=0)
    with closing(CheckpointFolder(tmp_path)) as folder:
        assert folder.lack_of_space(learner) == ''
        learner.ingest(random_transitions(LAYOUT, 1)[0])
        folder.save(learner)
        small_disk(monkeypatch, 10_000)
        assert 'will need up to' in folder.lack_of_space(learner)
        learner.ingest(random_transitions(LAYOUT, 2)[1])
        with pytest.raises(CheckpointError, match=r'bytes are needed, 10000 free; free space or'):
            folder.save(learner)
        assert load_checkpoint(folder.latest).transitions == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ['latest', LOCK]
