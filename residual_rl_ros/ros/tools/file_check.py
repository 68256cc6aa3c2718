# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read a robot file as the nodes do, with ROS 2's own parser, and compare it with what tools read.

That parser knows no anchors, takes only numbers of one type in a list, and has other words for
booleans; and a section for one node may override what stands in the section for all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.context import Context
from rclpy.logging import LoggingSeverity, set_logger_level
from rclpy.node import Node

from residual_rl_ros.base_policy.onnx_policy import read_policy_model
from residual_rl_ros.errors import ConfigError, ResidualRLError
from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.resources import find_base_policy
from residual_rl_ros.robot.description import (
    RobotConfig,
    awaits_limits,
    read_description,
    with_own_limits,
)
from residual_rl_ros.robot.stop_inputs import StopInput, check_stop_input
from residual_rl_ros.ros.common.encoders import channel_classes
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.ros.common.node_parameters import PolicyParameters
from residual_rl_ros.ros.common.parameters import (
    every_parameter_valued,
    parser_complaint,
    read_parameters,
    read_tree,
)
from residual_rl_ros.ros.nodes.policy_setup import hear_urdf
from residual_rl_ros.ros.nodes.services import stop_class
from residual_rl_ros.schema import dotted

NODES = ('policy_node', 'reward_node', 'recorder_node')
"""Nodes that read the robot file."""
ALONE = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF', 'ROS_SECURITY_ENABLE': 'false'}
"""Environment of nodes that nobody hears."""


def check_file(
    path: Path, report: InspectionReport, namespace: str = '', base_policy: str | None = None
) -> None:
    """Add to a report why the nodes could not start with a robot file, or read something else.

    Args:
        path: YAML file, which the tools can read.
        report: problems and remarks go there.
        namespace: namespace of the nodes, by which sections of the file apply.
        base_policy: shipped base policy or ONNX file that will run, which the file may pin.
    """
    written = read_description(path)
    set_logger_level('rcl', LoggingSeverity.FATAL)  # Its errors are raised, too.
    with _alone():
        context = Context()
        try:
            rclpy.init(args=['--ros-args', '--params-file', str(path)], context=context)
            for name in NODES:
                found = _problems(name, namespace, context, path, written, base_policy)
                report.problems += [each for each in found if each not in report.problems]
        except RCLError as error:
            complaint = parser_complaint(error)
            if complaint is None:
                report.remarks.append(f'ROS 2 could not be asked to read {path}: {error}')
            else:
                report.problems.append(f'{path}: the nodes cannot read it: {complaint}')
        finally:
            context.try_shutdown()


def check_limits(path: Path, namespace: str = '', domain_id: int | None = None) -> None:
    """Refuse a robot file that leaves limits to the URDF on its topic, and say what they are there.

    No node takes them from the topic: whoever publishes would say how fast a robot may move, and no
    tool without the topic would know.

    Args:
        path: YAML file.
        namespace: namespace of the policy node.
        domain_id: ROS domain; None takes `ROS_DOMAIN_ID`.

    Raises:
        ConfigError: limits are missing; or nobody publishes the URDF, or the file does not fit it.
    """
    described = read_description(path)
    if not awaits_limits(described):
        return
    with NodeHost('check_robot', domain_id, namespace) as tool:
        heard = hear_urdf(tool.node)
    missing = RobotConfig.from_mapping(described, str(path), heard).from_urdf
    limits = with_own_limits(described, heard)['action']
    there = ', '.join(f'{key}: {limits[key]}' for key in missing)
    raise ConfigError(
        f'{path}: robot.action lacks {", ".join(missing)}; write what the URDF on the topic has, '
        f'for every tool to know: {there}'
    )


@contextmanager
def _alone() -> Iterator[None]:
    """Change the environment for a while."""
    before = {name: os.environ.get(name) for name in ALONE}
    os.environ.update(ALONE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _problems(
    name: str,
    namespace: str,
    context: Context,
    path: Path,
    written: Mapping[str, Any],
    base_policy: str | None,
) -> list[str]:
    """Return what a node has against the file."""
    try:
        with every_parameter_valued(name):
            node = Node(
                name,
                context=context,
                namespace=namespace,
                enable_rosout=False,
                start_parameter_services=False,
                automatically_declare_parameters_from_overrides=True,
            )
    except ConfigError as error:
        empty = [f'robot.{key}' for key, value in dotted(written) if value in (None, [], {})]
        return [f'{path}: {error} ({", ".join(empty) or "not below robot"})']
    try:
        if name == 'policy_node':
            parameters = read_parameters(node, PolicyParameters, ('robot',))
            if base_policy is not None:
                read_policy_model(find_base_policy(base_policy), parameters.base_policy_sha256)
        read = read_tree(node, 'robot')
        robot = RobotConfig.from_mapping(read, f'{path}, as {name} reads it')
        if unusable := _unusable(robot):
            return unusable
    except ResidualRLError as error:
        return [str(error)]
    finally:
        node.destroy_node()
    found, wanted = dict(dotted(read)), dict(dotted(written))
    return [
        f'{path}: {name} reads robot.{key} as {found.get(key, "absent")!r}, the tools as '
        f'{wanted.get(key, "absent")!r}; write it such that both agree'
        for key in sorted(found.keys() | wanted.keys())
        if not _same(found.get(key), wanted.get(key))
    ]


def _unusable(robot: RobotConfig) -> list[str]:
    """Return which message types are not installed, or lack a field."""
    checks: list[Callable[[], Any]] = [
        *(partial(_check_stop, stop) for stop in robot.stop_inputs),
        *(partial(channel_classes, channel) for channel in robot.channels),
        *(partial(message_class, command.type) for command in robot.commands),
    ]
    problems = []
    for check in checks:
        try:
            check()
        except ResidualRLError as error:
            problems.append(str(error))
    return problems


def _check_stop(stop: StopInput) -> None:
    """Refuse a stop input that the node would refuse.

    Raises:
        ConfigError: its message type is not installed, or has no such field.
    """
    check_stop_input(stop, stop_class(stop)())


def _same(one: Any, other: Any) -> bool:
    """Return whether two values mean the same; 1 and 1.0 do, true and 1 do not."""
    lists = [isinstance(each, Sequence) and not isinstance(each, str) for each in (one, other)]
    if all(lists):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    return bool(one == other)
