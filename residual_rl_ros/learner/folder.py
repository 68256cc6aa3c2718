# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The folder of a checkpoint: one learner at a time writes it, and a manifest tells it whole."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import CheckpointError, FormatError, shown
from residual_rl_ros.files.digest import file_sha256
from residual_rl_ros.files.json_text import read_json
from residual_rl_ros.transitions.seal import SEAL

LOCK = 'learner.lock'
"""The file stays in the folder; it is locked while a learner lives, however that ends."""
IDENTITY = 'identity'
"""In the run state of a checkpoint: of which run it is, as UTF-8 JSON, shape (bytes,)."""


def as_bytes(values: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """Return JSON values as a run state keeps them, shape (bytes,)."""
    return np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)


class FolderLock:
    """Keeps other learners out of a folder, until `close` or the end of the process.

    Args:
        folder: the folder, which is made if there is none.

    Raises:
        CheckpointError: another learner has it, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        try:
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            raise CheckpointError(
                f'{str(path)!r} cannot be written: {error.strerror}; choose another folder'
            ) from error
        try:
            self._take(path)
        except CheckpointError:
            self.close()
            raise

    def _take(self, path: Path) -> None:
        descriptor = self._descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CheckpointError(f'{str(path)!r} is no file; remove it')
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f'process {os.getpid()} on {socket.gethostname()}'.encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors='replace')
            raise CheckpointError(
                f'{str(path.parent)!r} belongs to another learner ({shown(holder)}); stop that, or '
                'choose another folder'
            ) from error
        except OSError as error:
            raise CheckpointError(f'cannot lock {str(path)!r}: {error.strerror}') from error

    def close(self) -> None:
        """Let other learners have the folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


MANIFEST = 'manifest.json'
"""SHA-256 of every other file by its name."""
APART = (MANIFEST, MANIFEST + SEAL)


def write_manifest(directory: Path) -> None:
    """Note the digest of every file of a checkpoint.

    Raises:
        OSError: it cannot be written.
    """
    names = sorted(path.name for path in directory.iterdir() if path.name not in APART)
    digests = {name: file_sha256(directory / name) for name in names}
    (directory / MANIFEST).write_text(json.dumps(digests, indent=1) + '\n', encoding='utf-8')


def _listed(directory: Path) -> dict[str, str]:
    """Return the digests that a checkpoint should have, by file name.

    Raises:
        OSError, ValueError: there are none to read.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise ValueError(f'{MANIFEST} is missing: it was removed, or an earlier version wrote this')
    try:
        digests = read_json(path)
    except FormatError as error:
        raise ValueError(f'{MANIFEST} is altered: {error}') from error
    if not isinstance(digests, dict) or not all(Path(name).name == name for name in digests):
        raise ValueError(f'{MANIFEST} is altered: expected digests by file name')
    return digests


def check_files(directory: Path, *names: str) -> dict[str, str]:
    """Refuse files that are not those which were saved; return the digests of all.

    Args:
        directory: the checkpoint.
        *names: files; none means all.

    Raises:
        OSError, ValueError: names the first that is missing or altered.
    """
    listed = _listed(directory)
    for name in names or listed:
        if name not in listed:
            raise ValueError(f'{name} is not in {MANIFEST}')
        if not (directory / name).is_file():
            raise ValueError(f'{name!r}, which is in {MANIFEST}, is missing')
        found = file_sha256(directory / name)
        if found != listed[name]:
            raise ValueError(
                f'{name} is altered: its sha256 is {found}, {MANIFEST} says {listed[name]}'
            )
    return listed
