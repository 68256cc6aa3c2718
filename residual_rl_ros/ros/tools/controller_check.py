# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ask the controllers of a robot, before it moves, what they take, and whether they are active."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.robot.action_spec import EFFORTS, POSITIONS, VELOCITIES
from residual_rl_ros.robot.command import TRAJECTORY, Command
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.topics import FLOAT_ARRAY, JOINT_STATE
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.common.node_host import NodeHost

ANSWER_LIMIT_S = 1.0
"""How long an answer of a controller is waited for [s]."""
LIST_CONTROLLERS = 'controller_manager_msgs/srv/ListControllers'
ACTIVE = 'active'
UNITS = {'position': POSITIONS, 'velocity': VELOCITIES, 'effort': EFFORTS}
"""Units of the actions by the command interface of a controller."""
PLURALS = {'position': 'positions', 'velocity': 'velocities', 'effort': 'efforts'}


def check_controllers(tool: NodeHost, robot: RobotConfig, report: InspectionReport) -> None:
    """Add what does not fit the controllers that listen to the commands.

    Args:
        tool: a node that has been listening for a while.
        robot: the description.
        report: facts and problems go there.
    """
    states = _controller_states(tool, report)
    for command in robot.commands:
        name = tool.node.resolve_topic_name(command.topic)
        takers = _takers(tool.node, command, name)
        for taker in takers:
            if states.get(taker, ACTIVE) != ACTIVE:
                report.problems.append(
                    f'command {command.name!r} ({name}): {taker} is {states[taker]}, and does '
                    'nothing with it: ros2 control switch_controllers --activate '
                    f'{taker.rpartition("/")[2]}'
                )
            if not command.is_action:
                _check_controller(command, taker, f'command ({name}): {taker}', tool, robot, report)


def _takers(node: Node, command: Command, name: str) -> list[str]:
    """Return the full names of the nodes that take a command."""
    infos = (
        node.get_publishers_info_by_topic(f'{name}/_action/status')
        if command.is_action
        else node.get_subscriptions_info_by_topic(name)
    )
    return [f'{info.node_namespace.rstrip("/")}/{info.node_name}' for info in infos]


def _controller_states(tool: NodeHost, report: InspectionReport) -> dict[str, str]:
    """Return what all controller managers say of their controllers, by the full name of each."""
    states: dict[str, str] = {}
    for name, types in tool.node.get_service_names_and_types():
        if LIST_CONTROLLERS not in types:
            continue
        manager, _, _ = name.rpartition('/')
        try:
            kind = message_class(LIST_CONTROLLERS)
        except ConfigError as error:
            report.remarks.append(f'{manager} is not asked for its controllers: {error}')
            continue
        answer = _ask(tool, kind, name, kind.Request())
        if answer is None:
            report.remarks.append(f'{manager} does not tell its controllers')
            continue
        namespace, _, _ = manager.rpartition('/')
        states |= {f'{namespace}/{each.name}': each.state for each in answer.controller}
    return states


def _check_controller(
    command: Command,
    name: str,
    where: str,
    tool: NodeHost,
    robot: RobotConfig,
    report: InspectionReport,
) -> None:
    """Add what does not fit a controller that listens to a command."""
    joints = _parameter(tool, name, 'joints')
    if not isinstance(joints, list) or not joints:
        return
    indices = command.indices or range(robot.action.size)
    report.facts[f'controller {name}'] = f'commands {", ".join(joints)}'
    if command.type == FLOAT_ARRAY:
        interface = _parameter(tool, name, 'interface_name')
        report.problems += _array_problems(robot, list(indices), where, joints, interface)
    elif command.type == JOINT_STATE and list(command.joints) != joints:
        report.problems.append(
            f'{where} has the joints {", ".join(joints)}, command.joints of the robot YAML is '
            f'{", ".join(command.joints)}: name the same in the same order, for not every '
            'controller looks at names'
        )
    elif command.type == TRAJECTORY:
        partial = _parameter(tool, name, 'allow_partial_joints_goal') is True
        report.problems += _trajectory_problems(command, where, joints, partial)


def _ask(tool: NodeHost, kind: Any, name: str, request: Any) -> Any:
    """Return the answer of a service, None if there is none in time."""
    client = tool.node.create_client(kind, name)
    try:
        if not client.wait_for_service(timeout_sec=ANSWER_LIMIT_S):
            return None
        future = client.call_async(request)
        tool.executor.spin_until_future_complete(future, timeout_sec=ANSWER_LIMIT_S)
        return future.result() if future.done() else None
    finally:
        tool.node.destroy_client(client)


def _parameter(tool: NodeHost, node: str, name: str) -> Any:
    """Return a parameter of another node, None if there is none or no answer."""
    request = GetParameters.Request(names=[name])
    answer = _ask(tool, GetParameters, f'{node}/get_parameters', request)
    if answer is None or len(answer.values) != 1:
        return None
    (found,) = answer.values
    fields = {
        ParameterType.PARAMETER_STRING_ARRAY: 'string_array_value',
        ParameterType.PARAMETER_STRING: 'string_value',
        ParameterType.PARAMETER_BOOL: 'bool_value',
    }
    field = fields.get(found.type)
    value: Any = None if field is None else getattr(found, field)
    return list(value) if field == 'string_array_value' else value


def _array_problems(
    robot: RobotConfig, indices: list[int], where: str, joints: list[str], interface: Any
) -> list[str]:
    """Return what is wrong with commands of plain numbers, which name no joint."""
    action = robot.action
    if len(joints) != len(indices):
        names = ', '.join(action.names[index] for index in indices)
        return [
            f'{where} takes {len(joints)} values, for {", ".join(joints)}; the robot YAML has '
            f'{len(indices)} actions ({names})'
        ]
    problems = []
    measured = measured_joints(robot, indices)
    own = [action.units[index] for index in indices] if action.units else []
    if sorted(measured) == sorted(joints) and measured != joints:
        problems.append(
            f'{where} takes the joints in the order {", ".join(joints)}; the actions are measured '
            f'by {", ".join(measured)}: bring action.names into its order'
        )
    units = UNITS.get(interface)
    if units is not None and own and not set(own) <= {*units, '1'}:
        problems.append(
            f'{where} takes {PLURALS[interface]}, the robot YAML has action.units {own}'
        )
    elif interface in ('velocity', 'effort') and not action.goes_to_zero[indices].all():
        problems.append(
            f'{where} takes {PLURALS[interface]}, which a hold would repeat: set action.units to '
            f'{" or ".join(UNITS[interface])}'
        )
    return problems


def _trajectory_problems(
    command: Command, where: str, joints: list[str], partial: bool
) -> list[str]:
    """Return what is wrong with commands that name their joints."""
    commanded = command.joints
    unknown = [joint for joint in commanded if joint not in joints]
    missing = [joint for joint in joints if joint not in commanded]
    if unknown:
        return [
            f'{where} has no joint {", ".join(unknown)}, it has {", ".join(joints)}; correct '
            'command.joints in the robot YAML'
        ]
    if missing and not partial:
        return [
            f'{where} refuses trajectories without {", ".join(missing)}: add them to '
            'command.joints, or set its parameter allow_partial_joints_goal'
        ]
    return []


def measured_joints(robot: RobotConfig, indices: list[int] | None = None) -> list[str]:
    """Return the joint that measures each of some actions, as far as one does.

    Args:
        robot: the description.
        indices: of the actions; None: all.
    """
    joints = {
        f'{channel.name}.{field}.{joint}': joint
        for channel in robot.channels
        if channel.type == JOINT_STATE
        for field in channel.fields
        for joint in channel.joints
    }
    measured = robot.action.measured_by
    names = measured if indices is None or not measured else [measured[index] for index in indices]
    return [joints[name] for name in names if name in joints]
