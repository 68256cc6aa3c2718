# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Listen to a robot before it moves: its topics and publishers, its URDF, its operator's pad."""

from __future__ import annotations

import difflib
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy
from sensor_msgs.msg import Joy
from std_msgs.msg import String

from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.control.takeover_controls import JOY, MESSAGES, TakeoverConfig
from residual_rl_ros.errors import CommandError, ConfigError, ResidualRLError
from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.robot.command import Command
from residual_rl_ros.robot.decoders import JointDecoder
from residual_rl_ros.robot.description import RobotConfig, with_own_limits
from residual_rl_ros.robot.message_decoder import MessageDecoder
from residual_rl_ros.robot.stop_inputs import StopInput
from residual_rl_ros.robot.topics import TF, Channel
from residual_rl_ros.robot.urdf import NAME, TOPIC, parse_urdf
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import ChannelReader, message_count
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.ros.nodes.services import listen_to_stop
from residual_rl_ros.ros.nodes.takeover_node import joy_values, twist_values
from residual_rl_ros.ros.tools.controller_check import check_controllers, measured_joints


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
    *,
    described: Mapping[str, Any] | None = None,
    takeover: TakeoverConfig | None = None,
) -> None:
    """Listen for a while and add what was found to a report.

    Args:
        robot: the description.
        report: facts, problems and remarks go there.
        seconds: how long to listen [s].
        namespace: namespace of the policy node, in which relative topics are.
        domain_id: ROS domain; None takes `ROS_DOMAIN_ID`.
        described: what the description was read from, to compare it with the URDF on the topic.
        takeover: what an operator's controls mean, if they are to be heard, too.
    """
    with NodeHost('check_robot', domain_id, namespace) as tool:
        node = tool.node
        received = [(channel, _listen(node, channel, report)) for channel in robot.channels]
        said = {stop.name: _hear(node, stop, report) for stop in robot.stop_inputs}
        urdfs, pad = _hear_urdf(node), None if takeover is None else _hear_pad(node, takeover)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            tool.executor.spin_once(timeout_sec=0.05)
        for channel, messages in received:
            _judge_channel(node, channel, messages, seconds, robot, report)
        for command in robot.commands:
            judge = _judge_server if command.is_action else _judge_command
            judge(node, command, report)
        _judge_operator(node, robot.takeover, report)
        check_controllers(tool, robot, report)
        for stop in robot.stop_inputs:
            _judge_stop_input(node, stop, said[stop.name], report)
        if described is not None:
            _judge_urdf(node, urdfs, robot, described, report)
        if takeover is not None and pad is not None:
            _judge_pad(node, takeover, pad, seconds, report)


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
        listen_to_stop(node, stop, said.append)
    except ResidualRLError as error:
        if str(error) not in report.problems:  # The file was asked, too.
            report.problems.append(str(error))
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


def _judge_operator(node: Node, command: Command, report: InspectionReport) -> None:
    """Add a problem if an operator commands in messages that the policy node does not hear."""
    topic = node.resolve_topic_name(command.topic)
    infos = node.get_publishers_info_by_topic(topic)
    others = sorted({info.topic_type for info in infos} - {command.type})
    if others:
        report.problems.append(
            f'operator ({topic}): published as {", ".join(others)}, expected {command.type}'
        )


def _judge_server(node: Node, command: Command, report: InspectionReport) -> None:
    """Add a problem if nobody serves a ROS action; a client has services of these names, too."""
    name = node.resolve_topic_name(command.topic)
    infos = node.get_publishers_info_by_topic(f'{name}/_action/feedback')
    types = {info.topic_type.removesuffix('_FeedbackMessage') for info in infos}
    if command.type not in types:
        served = ', '.join(sorted(types))
        report.problems.append(
            f'command {command.name!r} ({name}): no {command.type} server'
            + (f', but one of {served}: correct type in the robot YAML' if served else '')
        )


def _hear_urdf(node: Node) -> list[str]:
    """Listen to what robot_state_publisher latches; return what will hold the URDFs."""
    heard: list[str] = []
    node.create_subscription(String, NAME, lambda message: heard.append(message.data), qos.LATCHED)
    return heard


def _judge_urdf(
    node: Node,
    heard: list[str],
    robot: RobotConfig,
    described: Mapping[str, Any],
    report: InspectionReport,
) -> None:
    """Compare the limits, joints and links of the description with those of the URDF on the topic.

    A description that names no URDF need not agree with one, but should know.
    """
    topic = node.resolve_topic_name(NAME)
    where = f'robot_description ({topic})'
    awaited = robot.urdf is not None and robot.urdf.source == TOPIC
    if not heard:
        if awaited and node.count_publishers(topic):
            report.problems.append(
                f'{where}: has a publisher, and no message: it must latch it (TRANSIENT_LOCAL)'
            )
        elif awaited:
            report.problems.append(
                f'{where}: nobody publishes it{_similar(node, topic)}: start robot_state_publisher'
            )
        return
    if robot.urdf is None and not (find_spec('pinocchio') and measured_joints(robot)):
        return
    there = with_own_limits({'robot_description': {'urdf': TOPIC}, **described})
    try:
        parse_urdf(heard[-1], topic)
        SafetyFilter(RobotConfig.from_mapping(there, where, heard[-1]).action)
    except ConfigError as error:
        found = report.problems if robot.urdf is not None else report.remarks
        found += [f'{where}: {problem}' for problem in error.problems or (str(error),)]
    else:
        report.facts['live robot_description'] = f'{topic} has the joints, and allows the limits'


@dataclass
class _Heard:
    """What was heard of an operator's pad."""

    messages: int = 0
    refused: str = ''
    """Why the latest message that cannot be used cannot."""


def _hear_pad(node: Node, takeover: TakeoverConfig) -> _Heard:
    """Listen to an operator's pad as the takeover node does."""
    heard, is_joy = _Heard(), takeover.keys.input == JOY
    read: Callable[[Any, TakeoverConfig], object] = joy_values if is_joy else twist_values

    def callback(message: Any) -> None:
        heard.messages += 1
        try:
            read(message, takeover)
        except CommandError as error:
            heard.refused = str(error)

    if takeover.topic:
        kind = Joy if is_joy else Twist
        node.create_subscription(kind, takeover.topic, callback, qos.SENSOR)
    return heard


def _judge_pad(
    node: Node, takeover: TakeoverConfig, heard: _Heard, seconds: float, report: InspectionReport
) -> None:
    """Add why an operator could not take over with his pad."""
    if not takeover.topic:
        return
    topic = node.resolve_topic_name(takeover.topic)
    where, wanted = f'takeover ({topic})', MESSAGES[takeover.keys.input]
    types = {info.topic_type for info in node.get_publishers_info_by_topic(topic)}
    rate, max_age_s = heard.messages / seconds, takeover.keys.max_age_s
    if not types:
        report.problems.append(
            f'{where}: nobody publishes it{_similar(node, topic)}: start the driver of the pad, or '
            f'correct topic in {takeover.source}'
        )
    elif types != {wanted}:
        report.problems.append(
            f'{where}: published as {", ".join(sorted(types))}, input {takeover.keys.input} is '
            f'{wanted}'
        )
    elif heard.refused:
        report.problems.append(f'{where}: {heard.refused}')
    elif rate < 0.8 / max_age_s:
        report.problems.append(
            f'{where}: {rate:.1f} Hz leaves gaps longer than max_age_s {max_age_s:g}: have its '
            f'driver repeat what does not change, or raise max_age_s in {takeover.source}'
        )
    else:
        report.facts['live takeover'] = f'{topic}, {rate:.1f} Hz, has every control'


def _similar(node: Node, topic: str) -> str:
    """Return a hint at topics with similar names."""
    names = [name for name, _ in node.get_topic_names_and_types() if name != topic]
    close = difflib.get_close_matches(topic, names, n=3, cutoff=0.5)
    return f'; similar: {", ".join(close)}' if close else ''
