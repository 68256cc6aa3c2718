# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A node in a context of its own, for tools that look at a robot from outside."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

SelfT = TypeVar('SelfT', bound='PrivateNode')


class PrivateNode:
    """A context manager that leaves the domain at its end.

    Args:
        name: node name.
        domain_id: ROS domain; None takes `ROS_DOMAIN_ID`.
        namespace: ROS namespace.
    """

    def __init__(self, name: str, domain_id: int | None = None, namespace: str = '') -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node(name, context=self.context, namespace=namespace)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def __enter__(self: SelfT) -> SelfT:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the domain."""
        self.executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self.context.try_shutdown()
