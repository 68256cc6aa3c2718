# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Listen to a robot before it moves: its topics, publishers and controllers."""

from __future__ import annotations

import difflib
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.robot.action_spec import EFFORTS, POSITIONS
from residual_rl_ros.robot.command import TRAJECTORY, Command
from residual_rl_ros.robot.decoders import JointDecoder
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.message_decoder import MessageDecoder
from residual_rl_ros.robot.stop_inputs import StopInput, check_stop_input, stop_reason
from residual_rl_ros.robot.topics import FLOAT_ARRAY, JOINT_STATE, TF, Channel
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import ChannelReader, message_count
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.ros.nodes.services import stop_class

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
    measured = _measured_joints(robot, indices)
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


def _measured_joints(robot: RobotConfig, indices: list[int]) -> list[str]:
    """Return the joint that measures each of some actions, as far as one does."""
    joints = {
        f'{channel.name}.{field}.{joint}': joint
        for channel in robot.channels
        if channel.type == JOINT_STATE
        for field in channel.fields
        for joint in channel.joints
    }
    measured = robot.action.measured_by
    names = [measured[index] for index in indices] if measured else []
    return [joints[name] for name in names if name in joints]


@dataclass
class _Received:
    """Messages received on a channel."""

    ages: list[float] = field(default_factory=list)
    """Age of every usable message by its stamp, when it arrived [s]; 0 without a stamp."""
    unusable: int = 0
    reason: str = ''
    """Why the latest unusable message cannot be used."""
    decoder: MessageDecoder | None = None


def check_live(
    robot: RobotConfig,
    report: InspectionReport,
    seconds: float,
    namespace: str = '',
    domain_id: int | None = None,
) -> None:
    """Listen for a while and add what was found to a report.

    Args:
        robot: the description.
        report: facts, problems and remarks go there.
        seconds: how long to listen [s].
        namespace: namespace of the policy node, in which relative topics are.
        domain_id: ROS domain; None takes `ROS_DOMAIN_ID`.
    """
    with NodeHost('check_robot', domain_id, namespace) as tool:
        node = tool.node
        received = [(channel, _listen(node, channel, report)) for channel in robot.channels]
        said = {stop.name: _hear(node, stop, report) for stop in robot.stop_inputs}
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            tool.executor.spin_once(timeout_sec=0.05)
        for channel, messages in received:
            _judge_channel(node, channel, messages, seconds, robot, report)
        for command in robot.commands:
            judge = _judge_server if command.is_action else _judge_command
            judge(node, command, report)
        check_controllers(tool, robot, report)
        for stop in robot.stop_inputs:
            _judge_stop_input(node, stop, said[stop.name], report)


def _listen(node: Node, channel: Channel, report: InspectionReport) -> _Received:
    """Subscribe to a channel as the policy node does."""
    received = _Received()
    try:
        reader = ChannelReader(channel)
    except ResidualRLError as error:
        report.problems.append(str(error))
        return received

    received.decoder = decoder = reader.decoder

    def callback(message: Any, information: Mapping[str, Any], second: bool) -> None:
        now = node.get_clock().now().nanoseconds * 1e-9
        try:
            reading = decoder.read(message, lambda: now, message_count(information), second)
            if reading is None:
                return
            values = reading.values
            if values.size != len(channel.observation_names) or not np.isfinite(values).all():
                raise ValueError(f'has the values {values.tolist()}')
        except (ValueError, ResidualRLError) as error:
            received.unusable += 1
            received.reason = str(error)
        else:
            received.ages.append(now - reading.stamp if reading.stamped else 0.0)

    reader.subscribe(node, callback)
    return received


def _judge_channel(
    node: Node,
    channel: Channel,
    received: _Received,
    seconds: float,
    robot: RobotConfig,
    report: InspectionReport,
) -> None:
    topic = node.resolve_topic_name(channel.topic)
    publishers = node.get_publishers_info_by_topic(topic)
    where = f'channel {channel.name!r} ({topic})'
    if channel.latched and not (received.ages or received.unusable):
        report.remarks.append(
            f'{where}: nobody has given it, and the robot waits for it{_similar(node, topic)}'
        )
        return
    if absent := _absent_source(node, channel):
        report.problems.append(absent)
        return
    by = ', '.join(sorted(f'{info.node_namespace}/{info.node_name}' for info in publishers))
    if publishers[1:]:
        report.facts[f'publishers of {topic}'] = by.replace('//', '/')
    if received.unusable:
        shared = f' (published by {by.replace("//", "/")})' if publishers[1:] else ''
        report.problems.append(
            f'{where}: {received.unusable} unusable messages: {received.reason}{shared}'
        )
    decoder = received.decoder
    if decoder is not None and decoder.hint and not (received.ages or received.unusable):
        report.problems.append(f'{where}: in {seconds:g} s {decoder.hint}')
        return
    joints = decoder.joints if isinstance(decoder, JointDecoder) else None
    if joints is not None and joints.absent and joints.seen and not received.unusable:
        report.problems.append(
            f'{where}: joints {joints.absent} are in no message of {seconds:g} s, which had '
            f'{joints.seen}; correct joints in the robot YAML, or start their driver'
        )
    elif not received.ages and not received.unusable:
        report.problems.append(f'{where}: has a publisher, and no message in {seconds:g} s')
    if not received.ages:
        return
    rate = (len(received.ages) + received.unusable) / seconds
    oldest, youngest = max(received.ages), min(received.ages)
    report.facts[f'live {channel.name}'] = (
        f'{rate:.1f} Hz, age on arrival {1e3 * statistics.median(received.ages):.1f} ms median, '
        f'{1e3 * oldest:.1f} ms at most'
    )
    if oldest > channel.max_age_s:
        report.problems.append(
            f'{where}: a message was {oldest:.3f} s old on arrival, max_age_s is '
            f'{channel.max_age_s:g}; synchronise the clocks, raise it, or set stamped_by: receipt'
        )
    if youngest < -0.01:
        report.problems.append(
            f'{where}: stamps are {-youngest:.3f} s in the future; synchronise the clocks or set '
            'stamped_by: receipt'
        )
    if channel.latched:
        return
    if rate < 0.8 / channel.max_age_s:
        report.problems.append(
            f'{where}: {rate:.1f} Hz leaves gaps longer than max_age_s {channel.max_age_s:g}'
        )
    elif rate < 0.8 * robot.control_rate_hz:
        report.remarks.append(
            f'{where}: {rate:.1f} Hz is below the control rate of {robot.control_rate_hz:g} Hz; '
            'values will be used more than once'
        )


def _absent_source(node: Node, channel: Channel) -> str:
    """Return which topic of a channel nobody publishes, or as another type; empty if none."""
    for source in channel.sources:
        topic = node.resolve_topic_name(source.topic)
        types = {info.topic_type for info in node.get_publishers_info_by_topic(topic)}
        where = f'channel {channel.name!r} ({topic})'
        if not types and (channel.type != TF or not source.latched):
            return f'{where}: nobody publishes it{_similar(node, topic)}'
        if types - {source.type}:
            return (
                f'{where}: published as {", ".join(sorted(types))}, the robot YAML says '
                f'{source.type}'
            )
    return ''


def _hear(node: Node, stop: StopInput, report: InspectionReport) -> list[str]:
    """Listen to a stop input as the policy node does; return what will hold why it stops."""
    said: list[str] = []
    try:
        kind = stop_class(stop)
        check_stop_input(stop, kind())
    except ResidualRLError as error:
        if str(error) not in report.problems:  # The file was asked, too.
            report.problems.append(str(error))
        return said
    for profile in (qos.LATCHED, qos.SENSOR):
        node.create_subscription(
            kind, stop.topic, lambda message: said.append(stop_reason(stop, message)), profile
        )
    return said


def _judge_stop_input(
    node: Node, stop: StopInput, said: list[str], report: InspectionReport
) -> None:
    topic = node.resolve_topic_name(stop.topic)
    types = {info.topic_type for info in node.get_publishers_info_by_topic(topic)}
    where = f'stop input {stop.name!r} ({topic})'
    if not types:
        report.problems.append(f'{where}: nobody publishes it{_similar(node, topic)}')
    elif types != {stop.type}:
        report.problems.append(
            f'{where}: published as {", ".join(sorted(types))}, the robot YAML says {stop.type}'
        )
    elif said and said[-1]:
        report.problems.append(f'{said[-1]}: the robot would hold')
    elif not said and (stop.required or stop.max_age_s):
        report.problems.append(f'{where}: has a publisher, and no message: the robot would hold')


def _judge_command(node: Node, command: Command, report: InspectionReport) -> None:
    topic = node.resolve_topic_name(command.topic)
    subscriptions = node.get_subscriptions_info_by_topic(topic)
    listeners = {info.topic_type for info in subscriptions}
    others = [info.node_name for info in node.get_publishers_info_by_topic(topic)]
    if not listeners:
        report.problems.append(f'command ({topic}): nobody listens{_similar(node, topic)}')
    elif listeners != {command.type}:
        report.problems.append(
            f'command ({topic}): expected as {", ".join(sorted(listeners))}, the robot YAML says '
            f'{command.type}'
        )
    for info in subscriptions:  # Channels are subscribed to such that every publisher fits.
        if info.qos_profile.durability is not DurabilityPolicy.VOLATILE:
            report.problems.append(
                f'command ({topic}): {info.node_name} subscribes with durability '
                f'{info.qos_profile.durability.name}, and is not connected: commands are VOLATILE'
            )
    if others:
        report.remarks.append(f'command ({topic}): published already, by {", ".join(others)}')


def _judge_server(node: Node, command: Command, report: InspectionReport) -> None:
    """Add a problem if nobody serves a ROS action."""
    name = node.resolve_topic_name(command.topic)
    services = dict(node.get_service_names_and_types())
    types = services.get(f'{name}/_action/send_goal', [])
    if f'{command.type}_SendGoal' not in types:
        served = ', '.join(each.removesuffix('_SendGoal') for each in types)
        report.problems.append(
            f'command {command.name!r} ({name}): no {command.type} server'
            + (f', but one of {served}: correct type in the robot YAML' if served else '')
        )


def _similar(node: Node, topic: str) -> str:
    """Return a hint at topics with similar names."""
    names = [name for name, _ in node.get_topic_names_and_types() if name != topic]
    close = difflib.get_close_matches(topic, names, n=3, cutoff=0.5)
    return f'; similar: {", ".join(close)}' if close else ''
