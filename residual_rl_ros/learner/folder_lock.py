# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One learner at a time writes a folder."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

from residual_rl_ros.errors import CheckpointError, shown

LOCK = 'learner.lock'
"""The file stays in the folder; it is locked while a learner lives, however that ends."""


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
