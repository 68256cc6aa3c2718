# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures; pytest also puts this folder on the path, for `builders` and the like."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before NumPy is loaded: processors of different makes sum in the same order.
os.environ['OPENBLAS_CORETYPE'] = 'Haswell'

import torch
from hypothesis import settings
from transition_builders import make_layout
from untested import untested

from residual_rl_ros.transitions.layout import TransitionLayout

# Wall-clock deadlines fail on a busy machine and say nothing about the code.
settings.register_profile('default', deadline=None, max_examples=50)
settings.register_profile('thorough', deadline=None, max_examples=1000)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'default'))

# The networks of the tests are tiny: threads would only wait for each other. What a test starts
# keeps what it compiles, as hundreds of processes compile the same.
torch.set_num_threads(1)
os.environ['OMP_NUM_THREADS'] = '1'
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)

ALONE = 'real_time'
"""Tests that assert times run one after the other: two of them want more cores than there are."""
REAL_TIME = (
    'test_robot_faults',
    'test_topic_faults',
    'test_survived_faults',
    'test_clock_faults',
    'test_real_time_bag_parity',
    'test_control_bench',
    'test_parent_faults',
    'test_slow_policy',
    'test_ready_robots',
    'test_ready_refusals',
    'test_ready_live_check',
    'test_operator',
    'test_page',
    'test_hostile_weights',
)
"""Modules of such tests."""
YIELDING = 5
"""Niceness of workers that run other tests, and of what these start."""
WAITING_END = 0.8
"""Place of the last test that waits for a robot, as a share of the tests that compute."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests into the order in which workers take them, group by group."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(_group(item.path) or item.nodeid, []).append(item)
    items[:] = [item for group in _in_turn(groups) for item in group]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the tests of a group to one worker; a worker that has nothing to do takes the next.

    The mark `xdist_group` has no effect from pytest 9.2 on (pytest-xdist #1386).
    """
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(config.rootpath / nodeid.partition('::')[0]) or nodeid

    return Groups(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let tests that assert times, of one worker, have the processors first."""
    others = hasattr(item.config, 'workerinput') and _group(item.path) != ALONE
    if others and os.nice(0) == 0:
        os.nice(YIELDING)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say what was not tested, and why, below all that pytest itself says."""
    reporter = config.pluginmanager.get_plugin('terminalreporter')
    if reporter is None or hasattr(config, 'workerinput'):
        return
    if line := untested(reporter.stats.get('skipped', ())):
        reporter.write_line(line, yellow=True)


@functools.cache
def _group(module: Path) -> str:
    """Return the group of a module's tests; empty if each of them is one of its own."""
    if module.stem in REAL_TIME:
        return ALONE
    # What lives as long as the module is made once for a worker.
    return str(module) if "scope='module'" in module.read_text(encoding='utf-8') else ''


def _in_turn(groups: dict[str, list[pytest.Item]]) -> list[list[pytest.Item]]:
    """Return groups in the order in which workers take them.

    The tests that assert times are one long group, which begins first. Then tests that wait for
    robots come among tests that compute, so that there is always both. What comes last is short:
    it would be waited for with idle processors.
    """
    alone = groups.pop(ALONE, [])
    longest_first = sorted(groups.values(), key=len, reverse=True)
    placed: list[tuple[float, list[pytest.Item]]] = []
    for waits, end in ((True, WAITING_END), (False, 1.0)):
        kind = [group for group in longest_first if _waits(group) is waits]
        placed += [(end * place / len(kind), group) for place, group in enumerate(kind)]
    return [alone, *(group for _, group in sorted(placed, key=lambda each: each[0]))]


def _waits(group: list[pytest.Item]) -> bool:
    return any(item.get_closest_marker('ros') for item in group)


@pytest.fixture
def layout() -> TransitionLayout:
    """Return a layout with n = 3, m = 2 and k = 2."""
    return make_layout()


@pytest.fixture(autouse=True, scope='session')
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests cache out of the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield
