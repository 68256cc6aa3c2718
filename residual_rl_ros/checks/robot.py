# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Inspect a robot description: contents, problems and remarks."""

from __future__ import annotations

import shutil

import numpy as np
from rosbags.interfaces import Nodetype

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.checks.robot_facts import (
    action_facts,
    between_episodes,
    channel_fact,
    command_facts,
    stop_input_facts,
)
from residual_rl_ros.checks.robot_remarks import unusual, wider_than_trained
from residual_rl_ros.control.home import way_home
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.control.self_collision import SelfCollision
from residual_rl_ros.control.takeover_controls import TakeoverConfig
from residual_rl_ros.errors import BasePolicyError, ConfigError, ResourceError
from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.robot.camera import Camera
from residual_rl_ros.robot.decoders import FIELD_ROOTS
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.preparation_spec import HomeSpec
from residual_rl_ros.robot.topics import (
    CHANNEL_TYPES,
    FLOAT_ARRAY,
    JOINT_STATE,
    JOY,
    LASER_SCAN,
    TF,
    Channel,
)
from residual_rl_ros.transitions.cdr import typestore


def check_robot(
    robot: RobotConfig,
    title: str,
    base_policy: str | None = None,
    takeover: TakeoverConfig | None = None,
) -> InspectionReport:
    """Inspect a robot description, load its encoders and compare it with a base policy.

    Args:
        robot: the description.
        title: where it is from.
        base_policy: shipped base policy or ONNX file that will run on it.
        takeover: what an operator's controls mean; it fits the robot.
    """
    report = InspectionReport(title)
    action, rate = robot.action, robot.control_rate_hz
    report.facts |= {
        'robot': f'{robot.name}, {rate:g} Hz',
        **command_facts(robot),
        **action_facts(action, rate),
        **stop_input_facts(robot),
    }
    _check_body(report, robot)
    report.facts |= between_episodes(robot)
    if robot.reset is not None and robot.reset.command and not shutil.which(robot.reset.command[0]):
        report.problems.append(
            f'robot.reset.command {robot.reset.command[0]!r} is no program: correct the path, or '
            'make the file executable (chmod +x)'
        )
    for channel in robot.channels:
        report.facts[f'channel {channel.name}'] = channel_fact(channel)
        report.problems += [
            f'channel {channel.name!r}: {channel.type} has no number {field!r}'
            for field in missing_fields(channel)
        ]
        if channel.is_image:
            try:
                Camera(channel)
            except (ConfigError, ResourceError) as error:
                report.problems.append(str(error))
    hold = action.hold if isinstance(action.hold, str) else 'last or zero'
    report.facts['hold'] = f'by {action.hold_action or hold} command'
    if action.hold == 'zero':
        stop = np.abs([action.lower, action.upper]).max(0) / action.max_step / rate
        report.facts['hold'] += f', after at most {stop.max():.3g} s of slowing down'
    report.remarks += unusual(robot)
    operator = robot.takeover
    of_frame = f' in {operator.frame_id!r}' if operator.frame_id else ''
    report.facts['operator'] = f'{operator.topic} as {operator.type}{of_frame}'
    if takeover is not None:
        _check_takeover(report, robot, takeover)
    if base_policy is not None:
        try:
            policy = OnnxBasePolicy.find(base_policy, robot)
            metadata = policy.metadata
            report.facts['base policy'] = f'{base_policy} fits'
            report.remarks += policy.remarks
            if metadata.action_mode == 'delta' and action.hold == 'last':
                report.remarks.append(
                    'the base policy commands increments, and a hold would repeat the last one for '
                    'as long as it lasts: set action.units to m/step or rad/step and command.hold '
                    'to zero'
                )
            report.remarks += wider_than_trained(action, metadata.action_min, metadata.action_max)
        except (BasePolicyError, ResourceError) as error:
            report.problems.append(str(error))
    return report


def _check_body(report: InspectionReport, robot: RobotConfig) -> None:
    """Report what is known of the arm's body: URDF, workspace, distances of its links."""
    action, urdf = robot.action, robot.urdf
    if urdf is not None:
        gives = f'it gives {", ".join(robot.from_urdf)}' * bool(robot.from_urdf)
        joints = ', '.join(name or 'none' for name in urdf.joints)
        report.facts['robot_description'] = '; '.join(filter(None, (urdf.source, joints, gives)))
    if urdf is not None and not urdf.text:
        report.remarks.append(
            'robot_description is heard by policy_node alone, which then checks limits, workspace '
            'and self-collision: name a file to check them here'
        )
    if action.workspace is not None:
        boxes = zip(
            action.workspace.points, action.workspace.lower, action.workspace.upper, strict=True
        )
        report.facts['workspace'] = '\n'.join(
            f'{point} of {action.workspace.model or "robot_description"} [m]: '
            + ', '.join(
                f'{axis} in [{low:.4g}, {high:.4g}]'
                for axis, low, high in zip('xyz', lower, upper, strict=True)
            )
            for point, lower, upper in boxes
        )
    if urdf is not None and not urdf.text:
        return
    try:
        safety = SafetyFilter(action)
        if safety.self_collision is not None:
            _check_distances(report, safety.self_collision, robot)
        if robot.home is not None:
            _check_home(report, robot.home, safety)
            way_home(robot.home, safety, 1.0 / robot.control_rate_hz, robot.observation_names)
    except (ConfigError, ResourceError) as error:
        report.problems.append(str(error))


def _check_distances(report: InspectionReport, body: SelfCollision, robot: RobotConfig) -> None:
    """Report which links are watched, and which are too near at home or, without one, at 0."""
    distance, home = body.spec.distance, robot.home
    report.facts['self-collision'] = f'{distance:g} m between {len(set(body.pairs))} pairs of links'
    where = 'where all joints are at 0' if home is None else 'at home'
    for one, other, far in body.near(body.rest if home is None else home.pose(robot.action)):
        report.remarks.append(
            f'{one} and {other} are {far:.3g} m apart {where}, less than '
            f'{distance:g}: from there they may only part; if they are never to meet, add '
            f"'{one} {other}' to robot.action.self_collision.ignore"
        )


def _check_home(report: InspectionReport, home: HomeSpec, safety: SafetyFilter) -> None:
    """Remark on a home that joints without one may bring out of a limit, or that means nothing."""
    action = safety.action
    led = ~np.isnan(home.goal)
    wide = led & ~action.goes_to_zero & (home.tolerance > action.upper - action.lower)
    if wide.any():
        names = ', '.join(action.names[index] for index in np.flatnonzero(wide))
        report.remarks.append(
            f'robot.home.tolerance of {names} is larger than its range: it is at home anywhere'
        )
    staying = np.flatnonzero(~led & action.moves_arm).tolist()
    problem = safety.body_problem(home.pose(action)) if staying else ''
    if problem:
        names = ', '.join(action.names[index] for index in staying)
        report.remarks.append(
            f'robot.home.positions {problem}, with {names} in the middle of the range: give a '
            'home to each joint'
        )


def _check_takeover(report: InspectionReport, robot: RobotConfig, takeover: TakeoverConfig) -> None:
    """Report what an operator's controls do, and remark on what they cannot do."""
    keys = takeover.keys
    moved = {axis.action: ' and '.join(axis.controls) for axis in keys.axes}
    buttons = keys.buttons.by_name()
    report.facts['takeover'] = '\n'.join(
        (
            f'{keys.input} {takeover.topic}'.rstrip() + f', deadman {keys.deadman}',
            *(f'{action} by {controls}' for action, controls in moved.items()),
            ', '.join(f'{name} {control}' for name, control in buttons.items()) or 'no button',
        )
    )
    still = [name for name in robot.action.names if name not in moved]
    if still:
        report.remarks.append(
            f'{takeover.source}: nothing moves {", ".join(still)}: an operator leaves it as it is'
        )
    if 'hold' not in buttons:
        report.remarks.append(f'{takeover.source}: buttons.hold is missing: he cannot hold')
    elif 'release' not in buttons:
        report.remarks.append(
            f'{takeover.source}: buttons.release is missing: he can hold, and not go on'
        )
    if 'go_home' in buttons and robot.home is None:
        report.remarks.append(
            f'{takeover.source}: buttons.go_home is refused: the robot has no robot.home'
        )


def missing_fields(channel: Channel) -> list[str]:
    """Return the fields of a channel that its message type does not have, or not as a number."""
    named = (JOINT_STATE, FLOAT_ARRAY, JOY, LASER_SCAN, TF)
    if channel.type in named or channel.type not in CHANNEL_TYPES or channel.is_image:
        return []  # Their fields are checked otherwise, or have the names that they are given.
    root = FIELD_ROOTS.get(channel.type, '')
    return [field for field in channel.fields if not _is_number(channel.type, root + field)]


def _is_number(kind: str, path: str) -> bool:
    """Return whether a dotted path leads to a number in a ROS message type."""
    part, _, rest = path.partition('.')
    fields = typestore().fielddefs[kind][1]
    for name, (node, detail) in fields:
        if name != part:
            continue
        if node is Nodetype.NAME:
            return bool(rest) and _is_number(str(detail), rest)
        return node is Nodetype.BASE and not rest and detail[0] not in ('string', 'wstring')
    return False
