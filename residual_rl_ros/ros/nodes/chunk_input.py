# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Chunks of a base policy that runs in another node."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory

from residual_rl_ros.base_policy.received_policy import ReceivedPolicy, ReceivedQueue
from residual_rl_ros.errors import CommandError
from residual_rl_ros.robot.joint_states import SourceWatch
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import message_count

CHUNKS = 'base_policy/chunk'
CHUNKS_MISSED = 3.0
"""A publisher that has let so many chunks be missed may have been started anew."""


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
        chunk_s = policy.metadata.exec_steps / policy.metadata.rate_hz
        self._source = SourceWatch(CHUNKS_MISSED * chunk_s, time.monotonic)
        node.create_subscription(JointTrajectory, CHUNKS, self._hear, qos.COMMAND)

    def _hear(self, message: JointTrajectory, information: Mapping[str, Any]) -> None:
        count = message_count(information)
        if count is not None and self._source.disagrees(count):
            self._queue.refuse('two_publishers')
            self._warn(
                f'two publishers on {CHUNKS} take turns: none of their chunks is used; stop one of '
                f'them: ros2 topic info --verbose {CHUNKS}'
            )
            return
        try:
            stamp, actions = self._policy.decode(message)
        except CommandError as error:
            self._queue.refuse('malformed')
            self._warn(str(error))
            return
        self._queue.receive(stamp, actions)
