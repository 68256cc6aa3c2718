# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The robots of a page: what is known of each, what commands it, and its cameras."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.dashboard.telemetry import Camera, Telemetry
from residual_rl_ros.ros.dashboard.view import RobotView
from residual_rl_ros.ros.tools.operator import Operator, watched_nodes


class Commands(Protocol):
    """What carries out keys; `tools.operator.Operator` is one. None of its methods waits."""

    def press(self, letter: str) -> None:
        """Send what a key asks for."""

    def look(self) -> None:
        """Look at the calls in progress."""

    def outcome(self, letter: str) -> str:
        """Return what came of a key, empty while that is open."""

    def outcomes(self) -> list[str]:
        """Return what came of the latest keys."""

    def alarm(self) -> str:
        """Return what must be shouted, empty for nothing."""


@dataclass(frozen=True)
class Robot:
    """A robot on the page."""

    name: str
    view: RobotView
    commands: Commands
    cameras: tuple[Camera, ...] = ()


def connect(
    stack: ExitStack,
    namespaces: Sequence[str],
    fleet: bool,
    config: RobotConfig | None,
    domain_id: int,
) -> list[Robot]:
    """Join the domain of the robots, until the stack closes.

    Args:
        stack: takes what is to be closed.
        namespaces: of the robots.
        fleet: one learner, in no namespace, is shared.
        config: description of the robots, for their cameras; None shows none.
        domain_id: ROS domain.

    Raises:
        ConfigError: the message type of a camera is not installed.
    """
    monitor = stack.enter_context(Monitor(domain_id))
    views = [RobotView(monitor, *watched_nodes(name, fleet)) for name in namespaces]
    telemetry = Telemetry(views, domain_id)
    channels = [] if config is None else [item for item in config.channels if item.is_image]
    robots = []
    for name, view in zip(namespaces, views, strict=True):
        operator = stack.enter_context(Operator(monitor, name, fleet, domain_id))
        cameras = tuple(telemetry.camera(channel, name) for channel in channels)
        robots.append(Robot(name.strip('/') or 'robot', view, operator, cameras))
    stack.enter_context(telemetry)
    return robots
