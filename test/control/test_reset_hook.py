# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A program that resets the scene dies with what asked for it, and says why it failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from processes import wait_for

from residual_rl_ros.control.reset_hook import KEPT, CommandHook


def outcome_of(*arguments: str) -> str:
    hook = CommandHook((sys.executable, '-c', *arguments))
    hook.begin()
    while (outcome := hook.outcome()) is None:
        time.sleep(0.01)
    return outcome


def test_a_program_resets_the_scene_or_says_why_not() -> None:
    assert outcome_of('pass') == ''
    said = outcome_of('import sys; print("tray is full", file=sys.stderr); sys.exit(3)')
    assert said == 'ended with code 3: tray is full'
    missing = CommandHook(('no-such-program',))
    missing.begin()
    assert missing.outcome() == 'No such file or directory'


LONG = ('sh', '-c', 'sleep 60 & echo $! > "$0.new"; mv "$0.new" "$0"; wait')
"""A program that tells, in the file that it is given, what it has started."""


def started_by_it(told: Path) -> Path:
    """Return the process that the program `LONG` has started."""
    wait_for(told.exists, 30.0, 'the start of a child')
    child = Path('/proc') / told.read_text().strip()
    assert child.name.isdecimal()
    assert _runs(child)
    return child


def test_a_program_that_is_given_up_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    told = tmp_path / 'child'
    hook = CommandHook((*LONG, str(told)))
    hook.begin()
    child = started_by_it(told)
    assert hook.outcome() is None
    process = hook._process
    assert process is not None
    hook.cancel()
    assert process.returncode == -9
    wait_for(lambda: not _runs(child), 10.0, 'the end of the child')


def test_a_program_does_not_outlive_a_process_that_is_killed(tmp_path: Path) -> None:
    told = tmp_path / 'child'
    begin = (
        'import sys; from residual_rl_ros.control.reset_hook import CommandHook; '
        'hook = CommandHook(tuple(sys.argv[1:])); hook.begin(); sys.stdin.read()'
    )
    with subprocess.Popen(
        [sys.executable, '-c', begin, *LONG, str(told)], stdin=subprocess.PIPE
    ) as node:
        try:
            child = started_by_it(told)
        finally:
            node.kill()
    wait_for(lambda: not _runs(child), 10.0, 'the end of the child')


def test_what_a_program_leaves_running_goes_on_when_it_has_ended(tmp_path: Path) -> None:
    told = tmp_path / 'child'
    leave = LONG[-1].replace('sleep 60', 'exec sleep 60 > /dev/null').removesuffix('; wait')
    hook = CommandHook(('sh', '-c', leave, str(told)))
    hook.begin()
    child = started_by_it(told)
    wait_for(lambda: hook.outcome() == '', 10.0, 'the end of the program')
    assert _runs(child)
    os.kill(int(child.name), signal.SIGKILL)


def _runs(process: Path) -> bool:
    """Return whether a process runs; one that has ended may still be listed, as a zombie."""
    try:
        return process.joinpath('stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_of_what_a_program_prints_only_the_last_is_kept() -> None:
    hook = CommandHook(('yes', 'x' * 100))
    hook.begin()
    for _ in range(100):
        assert hook.outcome() is None
    assert len(hook._printed) <= KEPT
    assert hook.cancel() == ''
    print_and_fail = 'print("x" * 500_000); print("jammed"); raise SystemExit(1)'
    assert outcome_of(print_and_fail) == 'ended with code 1: jammed'
