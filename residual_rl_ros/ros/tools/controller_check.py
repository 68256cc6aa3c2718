# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compare the commands of a robot description with the controllers that will take them.

A controller of ros2_control is a node, whose parameters say which joints it commands in which
order. One that gets another number of values, or of joints, drops the command without an error.
"""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters

from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.robot.action_spec import EFFORTS, POSITIONS
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.topics import FLOAT_ARRAY, JOINT_STATE, TRAJECTORY
from residual_rl_ros.ros.common.managed_node import NodeHost

ANSWER_LIMIT_S = 1.0
"""How long an answer of a controller is waited for [s]."""
UNITS = {'position': POSITIONS, 'velocity': ('m/s', 'rad/s'), 'effort': EFFORTS}
"""Units of the actions by the command interface of a controller."""
PLURALS = {'position': 'positions', 'velocity': 'velocities', 'effort': 'efforts'}


def check_controllers(tool: NodeHost, robot: RobotConfig, report: InspectionReport) -> None:
    """Add what does not fit the controllers that listen to the commands.

    Args:
        tool: a node that has been listening for a while.
        robot: the description.
        report: facts and problems go there.
    """
    topic = tool.node.resolve_topic_name(robot.command.topic)
    for info in tool.node.get_subscriptions_info_by_topic(topic):
        name = f'{info.node_namespace.rstrip("/")}/{info.node_name}'
        joints = _parameter(tool, name, 'joints')
        if not isinstance(joints, list) or not joints:
            continue
        where = f'command ({topic}): {name}'
        report.facts[f'controller {name}'] = f'commands {", ".join(joints)}'
        if robot.command.type == FLOAT_ARRAY:
            interface = _parameter(tool, name, 'interface_name')
            report.problems += _array_problems(robot, where, joints, interface)
        elif robot.command.type == TRAJECTORY:
            partial = _parameter(tool, name, 'allow_partial_joints_goal') is True
            report.problems += _trajectory_problems(robot, where, joints, partial)


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


def _array_problems(robot: RobotConfig, where: str, joints: list[str], interface: Any) -> list[str]:
    """Return what is wrong with commands of plain numbers, which name no joint."""
    action = robot.action
    if len(joints) != action.size:
        return [
            f'{where} takes {len(joints)} values, for {", ".join(joints)}; the robot YAML has '
            f'{action.size} actions ({", ".join(action.names)})'
        ]
    problems = []
    measured = _measured_joints(robot)
    if sorted(measured) == sorted(joints) and measured != joints:
        problems.append(
            f'{where} takes the joints in the order {", ".join(joints)}; the actions are measured '
            f'by {", ".join(measured)}: bring action.names into its order'
        )
    units = UNITS.get(interface)
    if units is not None and action.units and not set(action.units) <= {*units, '1'}:
        problems.append(
            f'{where} takes {PLURALS[interface]}, the robot YAML has action.units '
            f'{list(action.units)}'
        )
    elif interface in ('velocity', 'effort') and action.hold == 'last':
        problems.append(
            f'{where} takes {PLURALS[interface]}, which a hold would repeat: set action.units to '
            f'{" or ".join(UNITS[interface])}'
        )
    return problems


def _trajectory_problems(
    robot: RobotConfig, where: str, joints: list[str], partial: bool
) -> list[str]:
    """Return what is wrong with commands that name their joints."""
    commanded = robot.command.joints
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


def _measured_joints(robot: RobotConfig) -> list[str]:
    """Return the joint that measures each action, as far as one does."""
    joints = {
        f'{channel.name}.{field}.{joint}': joint
        for channel in robot.channels
        if channel.type == JOINT_STATE
        for field in channel.fields
        for joint in channel.joints
    }
    return [joints[name] for name in robot.action.measured_by if name in joints]
