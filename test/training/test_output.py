# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An output folder holds one run, and a run that never was does not block it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from residual_rl_ros.errors import OutputError
from residual_rl_ros.training.run_folder import prepare_output, write_text


@pytest.mark.parametrize('left', ['checkpoints/latest', 'checkpoints/latest.old', 'summary.json'])
def test_a_folder_with_a_run_is_refused(tmp_path: Path, left: str) -> None:
    (tmp_path / left).mkdir(parents=True)
    with pytest.raises(OutputError, match=r'already holds a run; go on .* --resume'):
        prepare_output(tmp_path)


def test_a_run_killed_during_its_first_save_can_be_started_again(tmp_path: Path) -> None:
    """There is nothing to resume either: the folder would be lost for ever."""
    (tmp_path / 'checkpoints' / 'latest.new').mkdir(parents=True)
    prepare_output(tmp_path)


def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'new' / 'summary.json'
    write_text(path, 'whole')

    write = Path.write_bytes

    def full(file: Path, content: bytes) -> int:
        write(file, content[:3])
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(OutputError, match=r"summary\.json' cannot be written: No space left"):
        write_text(path, 'another')
    assert path.read_text() == 'whole'
