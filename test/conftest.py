# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures; pytest also puts this folder on the path, for `builders` and the like."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Before NumPy is loaded: processors of different makes sum in the same order.
os.environ['OPENBLAS_CORETYPE'] = 'Haswell'

import torch
from builders import make_layout
from hypothesis import settings
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
    *('test_robot_faults', 'test_topic_faults', 'test_survived_faults', 'test_clock_faults'),
    *('test_real_time_bag_parity', 'test_control_bench', 'test_parent_faults', 'test_slow_policy'),
)
"""Modules of such tests; elsewhere a test has the mark `xdist_group('real_time')`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that share something to one worker, and begin with the longest group.

    With `--dist loadgroup --no-loadscope-reorder` a worker that has nothing to do takes the next
    group in this order; a test without a group is one of its own.
    """
    for item in items:
        if item.get_closest_marker('xdist_group') is None:
            group = _group(item)
            if group:
                item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_turn)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say what was not tested, and why, below all that pytest itself says."""
    reporter = config.pluginmanager.get_plugin('terminalreporter')
    if reporter is None or hasattr(config, 'workerinput'):
        return
    if line := untested(reporter.stats.get('skipped', ())):
        reporter.write_line(line, yellow=True)


def _turn(item: pytest.Item) -> tuple[int, bool]:
    """Return whose turn it is: tests that wait for a robot go beside tests that compute.

    Groups go first within a turn: one that began last would be waited for alone.
    """
    group = item.get_closest_marker('xdist_group')
    if group == pytest.mark.xdist_group(ALONE).mark:
        return 0, False
    return 2 if item.get_closest_marker('ros') else 1, group is None


def _group(item: pytest.Item) -> str:
    name = item.path.stem
    if name in REAL_TIME:
        return ALONE
    assert isinstance(item, pytest.Function)
    shared = item._fixtureinfo.name2fixturedefs.values()
    return name if any(found[-1].scope == 'module' for found in shared) else ''


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
