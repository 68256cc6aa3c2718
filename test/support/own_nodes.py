# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Managed nodes in the process of a test, which know no other context than the default one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy

from residual_rl_ros.ros.common.managed_node import ManagedNode
from residual_rl_ros.ros.common.process import unlock_memory


@contextmanager
def own_nodes() -> Iterator[list[ManagedNode]]:
    """Give a list, and destroy the nodes that were put into it."""
    made: list[ManagedNode] = []
    try:
        yield made
    finally:
        for node in made:
            node.destroy_node()
        rclpy.try_shutdown()
        gc.unfreeze()
        unlock_memory()
