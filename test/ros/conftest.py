# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Real processes on a real middleware, each test in a domain of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from processes import node_processes

from residual_rl_ros.ros.domain import claim_domain


@pytest.fixture
def domain_id() -> Iterator[int]:
    """Hold a ROS domain that nobody else on this machine uses."""
    os.environ.pop('ROS_DOMAIN_ID', None)
    with claim_domain() as domain:
        yield domain


@pytest.fixture(autouse=True)
def _no_process_survives() -> Iterator[None]:
    """Fail a test that leaves a node process of this session behind."""
    before = node_processes()
    yield
    deadline = time.monotonic() + 5.0
    while node_processes() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not node_processes() - before
