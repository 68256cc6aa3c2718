# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""In a parallel run, what shares a robot or asserts times goes to one worker."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


def test_what_belongs_together_is_a_group_and_everything_else_is_alone(
    pytestconfig: pytest.Config,
) -> None:
    pytest.importorskip('xdist', reason='needs pytest-xdist')
    stub = SimpleNamespace(rootpath=pytestconfig.rootpath, getvalue=lambda name: ['popen'])
    scheduler = pytestconfig.hook.pytest_xdist_make_scheduler(config=stub, log=None)
    for module in ('faults/test_slow_policy.py', 'ros/nodes/test_ready_robots.py'):
        assert scheduler._split_scope(f'test/{module}::test_it[a::b]') == 'real_time'
    shared, single = 'test/training/test_resume.py::test_a', 'test/robot/test_command.py::test_b'
    assert scheduler._split_scope(shared).endswith('test/training/test_resume.py')
    assert scheduler._split_scope(single) == single
