# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Command lines that several test modules call."""

from __future__ import annotations

import sys

import pytest

from residual_rl_ros.cli.main import main


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the exit code of a command for bags."""
    return run_command('bag', *arguments, monkeypatch=monkeypatch)


def run_command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the exit code of a command line."""
    monkeypatch.setattr('sys.argv', ['residual-rl', *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def run_process(*arguments: str) -> None:
    """Run a command line in a process that was made for it."""
    sys.argv = ['residual-rl', *arguments]
    main()
