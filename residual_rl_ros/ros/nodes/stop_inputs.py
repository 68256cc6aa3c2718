# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The topics that say when the robot must not move: protective stops, safety modes, forces."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node

from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.decoders import stop_reason
from residual_rl_ros.robot.topics import StopInput
from residual_rl_ros.ros.common import qos


def message_class(name: str, where: str) -> Any:
    """Return a message class by its ROS name, `package/msg/Name`.

    Args:
        name: the ROS name.
        where: the key it stands in, for the error.

    Raises:
        ConfigError: no installed package has it.
    """
    package, _, rest = name.partition('/msg/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), rest)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f'{where} is {name!r}, expected package/msg/Name of an installed package: {error}'
        ) from error


class StopInputs:
    """Tells a loop what the stop inputs of a robot say.

    Args:
        node: the policy node.
        inputs: of the robot.
        loop: what holds.
        now: returns the ROS time [s].

    Raises:
        ConfigError: an input's message type is not installed, or has no such field.
    """

    def __init__(
        self,
        node: Node,
        inputs: tuple[StopInput, ...],
        loop: RealTimeLoop,
        now: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._now = now
        self._watched = [stop for stop in inputs if stop.max_age_s]
        self._heard: dict[str, float] = {}
        for stop in inputs:
            kind = message_class(stop.type, f'robot.stop_inputs.{stop.name}.type')
            stop_reason(stop, kind())
            # Drivers latch what changes seldom and stream the rest: one subscription for each,
            # since a latched one does not connect to a stream.
            for profile in (qos.LATCHED, qos.SENSOR):
                node.create_subscription(kind, stop.topic, partial(self._hear, stop), profile)

    def _hear(self, stop: StopInput, message: Any) -> None:
        self._heard[stop.name] = self._now()
        self._loop.set_stop(stop.name, stop_reason(stop, message))

    def watch(self) -> None:
        """Hold where an input has fallen silent; to be called before each control step."""
        for stop in self._watched:
            age = self._now() - self._heard.get(stop.name, -float('inf'))
            if not 0.0 <= age <= stop.max_age_s:
                silent = f'{age:.2f} s old' if stop.name in self._heard else 'not heard yet'
                self._loop.set_stop(stop.name, f'stop input {stop.name!r} is {silent}')
