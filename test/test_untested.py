# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The last line of a run says what was not tested, and why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from untested import untested


def report(node: str, reason: str) -> Any:
    return SimpleNamespace(nodeid=node, longrepr=('path', 1, f'Skipped: {reason}'))


def test_modules_and_tests_are_named_once_with_their_reason() -> None:
    launch = report('test/ros/test_launch.py', 'needs launch')
    tests = [report(f'test/test_rules.py::test_{name}', 'needs a GPU') for name in 'ab']
    assert untested([launch, *tests, launch]) == (
        'NOT TESTED HERE: needs a GPU (2 in test_rules.py); needs launch (all of '
        'ros/test_launch.py)'
    )
    assert untested([]) == ''


def test_it_is_the_last_line_of_a_run(tmp_path: Path) -> None:
    conftest = Path(__file__).with_name('conftest.py')
    hook = conftest.read_text(encoding='utf-8').partition('def pytest_unconfigure')
    # The hook alone: the rest of the file would load torch.
    body = hook[1] + hook[2].partition('\n\n\n')[0]
    head = 'from __future__ import annotations\nimport pytest\nfrom untested import untested\n'
    (tmp_path / 'conftest.py').write_text(f'{head}{body}\n')
    (tmp_path / 'test_one.py').write_text(
        "import pytest\ndef test_it(): pytest.skip('no robot here')\n"
    )
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', '-q', str(tmp_path)],
        cwd=tmp_path,
        env={'PYTHONPATH': str(conftest.parent / 'support'), 'PATH': ''},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    last = done.stdout.strip().splitlines()[-1]
    assert last == 'NOT TESTED HERE: no robot here (1 in test_one.py)'
