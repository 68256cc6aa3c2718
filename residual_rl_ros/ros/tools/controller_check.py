# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ask the controllers of a robot, before it moves, which joints they take, and in which order."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters

from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.robot.action_spec import EFFORTS, POSITIONS, VELOCITIES
from residual_rl_ros.robot.command import TRAJECTORY, Command
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.topics import FLOAT_ARRAY, JOINT_STATE
from residual_rl_ros.ros.common.node_host import NodeHost

ANSWER_LIMIT_S = 1.0
"""How long an answer of a controller is waited for [s]."""
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
    for command in robot.commands:
        if not command.is_action:
            _check_controllers_of(command, tool, robot, report)


def _check_controllers_of(
    command: Command, tool: NodeHost, robot: RobotConfig, report: InspectionReport
) -> None:
    """Add what does not fit the controllers that listen to one command."""
    indices = command.indices or range(robot.action.size)
    topic = tool.node.resolve_topic_name(command.topic)
    for info in tool.node.get_subscriptions_info_by_topic(topic):
        name = f'{info.node_namespace.rstrip("/")}/{info.node_name}'
        joints = _parameter(tool, name, 'joints')
        if not isinstance(joints, list) or not joints:
            continue
        where = f'command ({topic}): {name}'
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


def _parameter(tool: NodeHost, node: str, name: str) -> Any:
    """Return a parameter of another node, None if there is none or no answer."""
    client = tool.node.create_client(GetParameters, f'{node}/get_parameters')
    try:
        if not client.wait_for_service(timeout_sec=ANSWER_LIMIT_S):
            return None
        future = client.call_async(GetParameters.Request(names=[name]))
        tool.executor.spin_until_future_complete(future, timeout_sec=ANSWER_LIMIT_S)
        values = future.result().values if future.done() else []
    finally:
        tool.node.destroy_client(client)
    if len(values) != 1:
        return None
    fields = {
        ParameterType.PARAMETER_STRING_ARRAY: 'string_array_value',
        ParameterType.PARAMETER_STRING: 'string_value',
        ParameterType.PARAMETER_BOOL: 'bool_value',
    }
    field = fields.get(values[0].type)
    value: Any = None if field is None else getattr(values[0], field)
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
