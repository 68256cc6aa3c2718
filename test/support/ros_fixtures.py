# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of tests that start real processes on a real middleware."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import rclpy
from processes import OWNER, node_processes

from residual_rl_ros.ros.bringup.domains import claim_domain
from residual_rl_ros.ros.bringup.node_spec import NodeSpec


class Caller:
    """Calls services of one ROS domain."""

    def __init__(self, domain_id: int) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node('operator', context=self._context)
        self._executor = rclpy.executors.SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def __call__(self, kind: Any, name: str, **fields: Any) -> Any:
        client = self._node.create_client(kind, name)
        assert client.wait_for_service(timeout_sec=40.0), name
        future = client.call_async(kind.Request(**fields))
        self._executor.spin_until_future_complete(future, timeout_sec=40.0)
        assert future.done(), name
        return future.result()

    def close(self) -> None:
        self._node.destroy_node()
        self._context.try_shutdown()


def with_package(name: str) -> pytest.MarkDecorator:
    """Mark tests that need real messages or actions, which pip does not have."""
    reason = f'{name} is not installed: only a ROS 2 installation has it'
    return pytest.mark.skipif(find_spec(name) is None, reason=reason)


DIAGNOSTICS_PERIOD_S = 0.1
"""A test that waits for what a node reports waits a tenth of a second instead of one."""


@pytest.fixture(scope='session')
def worker_domain() -> Iterator[int]:
    """Hold a ROS domain that nobody else on this machine uses; listening for others takes time."""
    os.environ[OWNER] = str(os.getpid())
    os.environ.pop('ROS_DOMAIN_ID', None)
    with claim_domain() as domain:
        yield domain


@pytest.fixture
def domain_id(worker_domain: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the domain of this process: tests use it in turn, and none leaves a node in it."""
    report_often(monkeypatch)
    return worker_domain


def report_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nodes that are started from now on publish their diagnostics often."""
    monkeypatch.setattr(NodeSpec, 'ros_arguments', _ros_arguments)


_plain_ros_arguments = NodeSpec.ros_arguments


def _ros_arguments(node: NodeSpec) -> list[str]:
    quick = {'diagnostics_period_s': DIAGNOSTICS_PERIOD_S, **node.parameters}
    return _plain_ros_arguments(replace(node, parameters=quick))


@pytest.fixture(autouse=True)
def no_process_survives() -> Iterator[None]:
    """Fail a test that leaves a node process behind."""
    os.environ[OWNER] = str(os.getpid())
    before = node_processes()
    yield
    deadline = time.monotonic() + 5.0
    while node_processes() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not node_processes() - before


@pytest.fixture
def call(domain_id: int) -> Iterator[Caller]:
    caller = Caller(domain_id)
    yield caller
    caller.close()
