# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Chunks of a base policy that runs in another node."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory

from residual_rl_ros.base_policy.received_policy import ReceivedPolicy, ReceivedQueue
from residual_rl_ros.errors import CommandError
from residual_rl_ros.ros.common import qos

CHUNKS = 'base_policy/chunk'


class ChunkInput:
    """Hands the chunks of a topic to the queue.

    Args:
        node: the policy node.
        policy: what is known of the base policy.
        queue: what hands out its actions.
        warn: is told what is wrong with a message.
    """

    def __init__(
        self,
        node: Node,
        policy: ReceivedPolicy,
        queue: ReceivedQueue,
        warn: Callable[[str], None],
    ) -> None:
        self._policy, self._queue, self._warn = policy, queue, warn
        node.create_subscription(JointTrajectory, CHUNKS, self._hear, qos.COMMAND)

    def _hear(self, message: JointTrajectory) -> None:
        try:
            stamp, actions = self._policy.decode(message)
        except CommandError as error:
            self._queue.refuse('malformed')
            self._warn(str(error))
            return
        self._queue.receive(stamp, actions)
