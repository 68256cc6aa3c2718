# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Send a command several times in a control period, on the way from one step to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.clock import Clock

from residual_rl_ros.control.interpolation import KINDS, MotionLimits
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.command import Command
from residual_rl_ros.ros.common.command_writers import CommandWriter
from residual_rl_ros.ros.common.managed_node import ManagedNode

Array = npt.NDArray[np.float64]
LONGEST_STEP = 2.0
"""Control periods without a command after which the next one begins a motion anew: the robot may
have been moved."""


class CommandStream:
    """A command that is sent at the rate of its controller.

    Args:
        command: with more than one sample.
        writer: makes its messages.
        publisher: sends them.
        action: limits of the action vector.
        period_s: control period [s].
    """

    def __init__(
        self,
        command: Command,
        writer: CommandWriter,
        publisher: Any,
        action: ActionSpec,
        period_s: float,
    ) -> None:
        limits = MotionLimits(
            command.part_of(action.lower),
            command.part_of(action.upper),
            command.part_of(action.max_step) / period_s,
            np.array(command.max_acceleration),
            np.array(command.max_jerk),
        )
        self._command, self._writer, self._publisher = command, writer, publisher
        self._sample_s, self._longest_s = period_s / command.samples, LONGEST_STEP * period_s
        self._interpolator = KINDS[command.interpolation](limits, period_s, self._sample_s)
        self._aimed_at = -np.inf
        self._timer: Any = None
        self._now: Callable[[], float] = lambda: 0.0

    def aim(self, vector: Array, stamp: float) -> None:
        """Take in the command of a control step; before `start` and after `stop`, send it.

        Args:
            vector: action vector, shape (m,).
            stamp: time [s].
        """
        values = self._command.part_of(vector)
        if self._timer is None:
            self._publisher.publish(self._writer.message(values, stamp))
            return
        if 0.0 <= stamp - self._aimed_at <= self._longest_s:
            self._interpolator.aim(values, stamp)
        else:
            self._interpolator.jump(values, stamp)
        self._aimed_at = stamp

    def start(self, node: ManagedNode, clock: Clock, now: Callable[[], float]) -> None:
        """Begin to send samples."""
        self._now, self._aimed_at = now, -np.inf
        self._timer = node.create_timer(self._sample_s, self._send, clock=clock)

    def stop(self, node: ManagedNode) -> None:
        """End it."""
        if self._timer is not None:
            node.destroy_timer(self._timer)
            self._timer = None

    def _send(self) -> None:
        """Send where the motion is; nothing where nobody commands."""
        now = self._now()
        if 0.0 <= now - self._aimed_at <= self._longest_s:
            self._publisher.publish(self._writer.message(self._interpolator.sample(now), now))
