# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Inspect a robot description: contents, problems and remarks."""

from __future__ import annotations

import shutil

import numpy as np
import numpy.typing as npt
from rosbags.interfaces import Nodetype

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.control.home import way_home
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.control.self_collision import SelfCollision
from residual_rl_ros.control.takeover_controls import TakeoverConfig
from residual_rl_ros.errors import BasePolicyError, ConfigError, ResourceError
from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.robot.action_spec import VELOCITIES, ActionSpec
from residual_rl_ros.robot.camera import Camera
from residual_rl_ros.robot.command import Command
from residual_rl_ros.robot.decoders import FIELD_ROOTS
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.preparation_spec import HomeSpec
from residual_rl_ros.robot.topics import (
    AT_ONCE,
    CHANNEL_TYPES,
    FLOAT_ARRAY,
    JOINT_STATE,
    JOY,
    LASER_SCAN,
    TF,
    Channel,
)
from residual_rl_ros.transitions.cdr import typestore

MANY_TURNS = 4.0 * np.pi
"""A joint that may turn further than this is limited in degrees, as a rule [rad]."""
FAR_M = 10.0
"""No point of an arm is so far away from its base: such a box is in millimetres, as a rule [m]."""
OLD_S = 1.0
"""Older measurements are no measure of a robot that moves [s]."""


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
        **_commands(robot),
        **_actions(action, rate),
        **_stop_inputs(robot),
    }
    _check_body(report, robot)
    report.facts |= _between_episodes(robot)
    if robot.reset is not None and robot.reset.command and not shutil.which(robot.reset.command[0]):
        report.problems.append(
            f'robot.reset.command {robot.reset.command[0]!r} is no program: correct the path, or '
            'make the file executable (chmod +x)'
        )
    for channel in robot.channels:
        report.facts[f'channel {channel.name}'] = _channel(channel)
        if channel.max_age_s < 1.0 / rate:
            report.remarks.append(
                f'channel {channel.name!r}: max_age_s {channel.max_age_s:g} is less than a control '
                f'period ({1.0 / rate:g} s); a topic at the control rate would often be stale'
            )
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
    report.remarks += _action_remarks(robot)
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
            _compare_ranges(report, robot, np.array(metadata.action_min), metadata.action_max)
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


def _channel(channel: Channel) -> str:
    """Return what a channel observes, as a fact of the report."""
    when = 'at once' if channel.takes_effect == AT_ONCE else 'from the next episode on'
    age = f'at most {channel.max_age_s:g} s old by its {channel.stamped_by}'
    fact = (
        f'{channel.topic} ({channel.type}), {len(channel.observation_names)} values, '
        f'{f"given once, changes count {when}" if channel.latched else age}'
    )
    if channel.type == TF:
        return f'{fact}, {channel.source_frame} in {channel.target_frame}'
    if (depth := channel.preprocessing.depth) is not None:
        fact += f', distances from {depth.nearest:g} to {depth.farthest:g} m as grey levels'
    if channel.camera_info_topic:
        fact += f', undistorted by {channel.camera_info_topic}'
    return f'{fact}, in {channel.frame_id}' if channel.frame_id else fact


def _between_episodes(robot: RobotConfig) -> dict[str, str]:
    """Return where the robot begins, and how its scene is reset, as far as it says."""
    facts, home, reset = {}, robot.home, robot.reset
    if home is not None:
        goes = zip(robot.action.names, home.goal.tolist(), strict=True)
        there = ', '.join(f'{name} {to:.4g}' for name, to in goes if not np.isnan(to))
        facts['home'] = f'{home.when}: {there}'
    if reset is not None:
        how = reset.service or ' '.join(reset.command) or 'by itself'
        facts['reset'] = f'{how}, then {reset.settle_s:g} s to settle'
    return facts


def _commands(robot: RobotConfig) -> dict[str, str]:
    """Return a fact for each command."""
    if len(robot.commands) == 1:
        return {'command': _command(robot.commands[0], robot)}
    return {f'command {each.name}': _command(each, robot) for each in robot.commands}


def _command(command: Command, robot: RobotConfig) -> str:
    """Return where a command goes, and of several which actions it carries."""
    rate = f' at {robot.control_rate_hz / command.every:g} Hz' if command.every > 1 else ''
    carried = f': {", ".join(robot.action.names[i] for i in command.indices)}'
    return f'{command.topic} ({command.type}){rate}{carried if command.indices else ""}'


def _actions(action: ActionSpec, rate: float) -> dict[str, str]:
    """Return what the actions are, as a fact of the report."""
    if action.is_discrete:
        return {f'{action.size} discrete actions': ', '.join(action.names)}
    ranges = zip(action.names, action.lower, action.upper, action.max_step * rate, strict=True)
    return {
        f'{action.size} actions': '\n'.join(
            f'{name} in [{low:.4g}, {high:.4g}], at most {velocity:.4g} per second'
            for name, low, high, velocity in ranges
        )
    }


def _stop_inputs(robot: RobotConfig) -> dict[str, str]:
    """Return what each stop input holds at."""
    facts = {}
    for stop in robot.stop_inputs:
        at = [f'is {bad}' for bad in stop.bad]
        if np.isfinite(stop.limit):
            at.append(f'is beyond {stop.limit:g}')
        if stop.max_age_s:
            at.append(f'is older than {stop.max_age_s:g} s')
        if stop.required:
            at.append('has not come')
        field = f'{stop.topic} {stop.field}'
        facts[f'stop input {stop.name}'] = f'{stop.type}; holds while {field} {" or ".join(at)}'
    return facts


def _action_remarks(robot: RobotConfig) -> list[str]:
    """Return what the limits of the actions do not limit."""
    action = robot.action
    if action.is_discrete:
        if action.hold_action:
            return []
        return [
            'action.hold_action is missing: a hold repeats the last action; name the one at which '
            'the robot stays where it is'
        ]
    remarks = []
    if not action.measured_by:
        remarks.append(
            'action.measured_by is missing: the first command of an episode is not limited by '
            'where the robot is'
        )
    degrees = [
        name
        for name, unit, reach in zip(
            action.names, action.units, np.maximum(-action.lower, action.upper), strict=False
        )
        if unit == 'rad' and reach > MANY_TURNS
    ]
    if degrees:
        remarks.append(
            f'lower and upper of {", ".join(degrees)} allow more than two turns in rad: expected '
            'unless they are degrees, which the robot YAML does not know'
        )
    if action.workspace is not None:
        sides = np.concatenate([action.workspace.lower, action.workspace.upper])
        far = np.abs(sides[np.isfinite(sides)]).max(initial=0.0)
        if far > FAR_M:
            remarks.append(
                f'workspace reaches to {far:g} m: no arm does, and the robot YAML knows no '
                'millimetres'
            )
    reach = np.maximum(-action.lower, action.upper)
    units = action.units or ('1',) * action.size
    blind = [
        name
        for name, unit, limit, most in zip(
            action.names, units, action.following_limit, reach, strict=True
        )
        if action.measured_by and unit in VELOCITIES and limit >= most
    ]
    if blind:
        remarks.append(
            f'following_limit of {", ".join(blind)} is its largest velocity or more: a robot that '
            'stands still is never found not to follow'
        )
    measuring = {
        channel.name: channel.max_age_s
        for channel in robot.channels
        if {*channel.observation_names} & {*action.measured_by}
    }
    remarks += [
        f'observation.{name}.max_age_s is {age:g}: the robot moves on measurements that are so old '
        '[s]; 0.1 to 0.5 are usual'
        for name, age in measuring.items()
        if age > OLD_S
    ]
    # What gets goals moves to them at a speed of its own.
    own = {
        index
        for command in robot.commands
        if command.is_action
        for index in command.indices or range(action.size)
    }
    loose = np.flatnonzero(action.max_step >= action.upper - action.lower).tolist()
    unlimited = [action.names[index] for index in loose if index not in own]
    if unlimited:
        remarks.append(
            f'max_velocity of {", ".join(unlimited)} allows the whole range within one control '
            'step: it limits nothing'
        )
    return remarks


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


def _compare_ranges(
    report: InspectionReport,
    robot: RobotConfig,
    low: npt.NDArray[np.float64],
    high: tuple[float, ...],
) -> None:
    """Remark on limits that are far wider than what the base policy ever commanded."""
    action = robot.action
    span = np.array(high) - low
    wide = (span > 0.0) & (action.upper - action.lower > 20.0 * span)
    if wide.any():
        names = ', '.join(action.names[index] for index in np.flatnonzero(wide))
        report.remarks.append(
            f'the limits of {names} are more than 20 times what the base policy was trained on; '
            'tighter ones would catch a fault earlier'
        )
