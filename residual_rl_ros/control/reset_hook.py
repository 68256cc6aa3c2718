# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A program that resets the scene between two episodes."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import Protocol

SAID = 200
"""So many characters are told of what a program that failed has printed last."""
KEPT = 4096
"""So many bytes are kept of what a program prints."""
PIPE = 65536
"""So many bytes are read of it in a control step; a pipe holds no more."""
WATCHER = ('/bin/sh', '-c', 'read -r _ || kill -s KILL -- "-$0"')
"""Kills a process group when its input ends, as it does when this process dies, however it dies. A
signal of the kernel at that moment would reach the program alone, and not what it has started."""
KILL_LIMIT_S = 0.1
"""How long a control step may wait for a program that is killed [s]."""


class ResetHook(Protocol):
    """Resets a scene, while control goes on."""

    name: str
    """What it is, for messages."""

    def begin(self) -> None:
        """Begin, without waiting."""

    def outcome(self) -> str | None:
        """Return None while it goes on, empty when it is done, and else why it failed."""

    def cancel(self) -> str:
        """Give up; return why that is not possible, empty if it is."""


class CommandHook:
    """Resets a scene by a program, which dies with this process, as all that it has started.

    What it prints is read while somebody asks how it ended, and the last of it is kept: a program
    that prints faster waits.

    Args:
        command: the program, and its arguments.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        self.name = f'robot.reset.command {command[0]!r}'
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._printed = b''
        self._refused = ''

    def begin(self) -> None:
        """Start the program."""
        self._refused, self._printed = '', b''
        try:
            self._process = subprocess.Popen(
                self._command,
                bufsize=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._watcher = subprocess.Popen(
                (*WATCHER, str(self._process.pid)), stdin=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            self.cancel()
            self._refused = f'{error.strerror or error}'
            return
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def outcome(self) -> str | None:
        """Return how it ended; see `ResetHook`."""
        if self._process is None:
            return self._refused
        code = self._process.poll()
        assert self._process.stdout is not None
        self._printed = (self._printed + (self._process.stdout.read(PIPE) or b''))[-KEPT:]
        if code is None:
            return None
        self._close()
        return '' if code == 0 else f'ended with code {code}{self._last_line()}'

    def cancel(self) -> str:
        """Kill the program, with what it has started; see `ResetHook`."""
        if self._process is None:
            return ''
        process = self._process
        self._close()
        try:
            with suppress(ProcessLookupError):  # It has just ended.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(KILL_LIMIT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f'process {process.pid} could not be killed: {error}'
        return ''

    def _last_line(self) -> str:
        lines = self._printed.decode(errors='replace').split('\n')
        last = next((line.strip() for line in reversed(lines) if line.strip()), '')
        return f': {last[:SAID]}' if last else ''

    def _close(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            assert watcher.stdin is not None
            watcher.kill()  # First: the end of its input must mean nothing to it.
            watcher.wait()
            watcher.stdin.close()
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
