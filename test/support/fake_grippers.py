# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A gripper behind an action of control_msgs: real ROS where the package is, else a stand-in.

The interface is that of the public definitions: a goal of GripperCommand has `command.position` and
`command.max_effort`, one of ParallelGripperCommand a JointState. A gripper controller takes every
goal, ends the one before, and stops where it is when a goal is cancelled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import rclpy.action
from rclpy.action import CancelResponse, GoalResponse
from rclpy.node import Node

from residual_rl_ros.robot.command import GRIPPER
from residual_rl_ros.ros.common.message_types import message_class

REAL = find_spec('control_msgs') is not None
"""Whether goals travel over ROS."""


class Finger:
    """One joint that moves to the position of the latest goal.

    Args:
        position: where it begins.
        speed: how fast it moves [1/s].
    """

    def __init__(self, position: float, speed: float) -> None:
        self.position = self._target = position
        self.speed = speed
        self.lowest, self.highest = -float('inf'), float('inf')
        """What is between the fingers lets them move no further."""
        self.goals: list[tuple[float, float]] = []
        """Position and effort of each goal."""
        self.cancelled = 0
        self.accepts = True
        """Whether goals are accepted."""
        self._end: Callable[[str], None] | None = None
        self._is_cancelled: Callable[[], bool] = bool

    def accept(
        self,
        position: float,
        effort: float,
        end: Callable[[str], None],
        is_cancelled: Callable[[], bool],
    ) -> None:
        """Begin to move; `end` is told `succeed`, `abort` or `canceled`."""
        self._finish('abort')
        self.goals.append((position, effort))
        self._target, self._end, self._is_cancelled = position, end, is_cancelled

    def step(self, seconds: float) -> None:
        """Let time pass."""
        if self._end is not None and self._is_cancelled():
            self.cancelled += 1
            self._target = self.position
            self._finish('canceled')
        reach = self.speed * seconds
        wanted = min(max(self._target, self.position - reach), self.position + reach)
        before, self.position = self.position, min(max(wanted, self.lowest), self.highest)
        if self.position in (before, self._target):
            self._finish('succeed')

    def _finish(self, how: str) -> None:
        end, self._end = self._end, None
        if end is not None:
            end(how)


SERVERS: dict[str, Finger] = {}
"""Grippers by the name of their action, for the stand-in."""


class _Handle:
    """A goal that the stand-in has accepted."""

    accepted = True

    def __init__(self) -> None:
        self.cancelled = False

    def cancel_goal_async(self) -> Any:
        self.cancelled = True
        return _answered(None)


def _answered(result: Any) -> Any:
    """Return a future that is done."""
    future: rclpy.Future = rclpy.Future()
    future.set_result(result)
    return future


class StandInClient:
    """What `rclpy.action.ActionClient` is, without ROS."""

    def __init__(self, node: Node, kind: Any, name: str) -> None:
        del kind
        self._name = node.resolve_topic_name(name)

    def server_is_ready(self) -> bool:
        return self._name in SERVERS

    def wait_for_server(self, timeout_sec: float) -> bool:
        del timeout_sec
        return self.server_is_ready()

    def send_goal_async(self, goal: Any) -> Any:
        handle, command = _Handle(), goal.command
        SERVERS[self._name].accept(
            command.position, command.max_effort, lambda how: None, lambda: handle.cancelled
        )
        return _answered(handle)

    def destroy(self) -> None:
        pass


class GripperCommand:
    """What the action of this name has."""

    class Goal:
        """A goal."""

        def __init__(self) -> None:
            self.command = SimpleNamespace(position=0.0, max_effort=0.0)


def stand_in(patch: pytest.MonkeyPatch, name: str, *types: type) -> None:
    """Have a module of messages or actions, such as `control_msgs.action`, hold some types."""
    package = name.partition('.')[0]
    patch.setitem(sys.modules, package, ModuleType(package))
    module = ModuleType(name)
    for each in types:
        setattr(module, each.__name__, each)
    patch.setitem(sys.modules, name, module)
    message_class.cache_clear()


def connect(patch: pytest.MonkeyPatch) -> None:
    """Let clients of this process find the grippers of this process, where ROS cannot."""
    if not REAL:
        stand_in(patch, 'control_msgs.action', GripperCommand)
        patch.setattr(rclpy.action, 'ActionClient', StandInClient)


def serve(node: Node, name: str, finger: Finger, action: str = GRIPPER) -> Callable[[], Any]:
    """Serve a gripper's action, of one of `ACTION_TYPES`; return what ends that."""
    if not REAL:
        resolved = node.resolve_topic_name(name)
        SERVERS[resolved] = finger
        return partial(SERVERS.pop, resolved, None)
    kind = message_class(action)

    def accepted(handle: Any) -> None:
        def end(how: str) -> None:
            def execute(goal: Any) -> Any:
                getattr(goal, how)()
                return kind.Result(reached_goal=how == 'succeed')

            handle.execute(execute)

        finger.accept(*wanted(handle.request.command), end, lambda: handle.is_cancel_requested)

    def asked(goal: Any) -> Any:
        return GoalResponse.ACCEPT if finger.accepts else GoalResponse.REJECT

    server = rclpy.action.ActionServer(
        node,
        kind,
        name,
        lambda handle: None,
        goal_callback=asked,
        handle_accepted_callback=accepted,
        cancel_callback=lambda handle: CancelResponse.ACCEPT,
    )
    return server.destroy


def wanted(command: Any) -> tuple[float, float]:
    """Return position and effort that a goal asks for; 0 N where it names none."""
    if not hasattr(command, 'effort'):
        return command.position, command.max_effort
    (position,) = command.position
    return position, (*command.effort, 0.0)[0]
