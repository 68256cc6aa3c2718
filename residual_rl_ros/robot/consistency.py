# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the sections of a robot YAML must not say of each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from residual_rl_ros.robot.action_spec import EFFORTS, POSITIONS, VELOCITIES, ActionSpec
from residual_rl_ros.robot.command import Command
from residual_rl_ros.robot.stop_inputs import StopInput
from residual_rl_ros.robot.topics import JOINT_STATE, Channel
from residual_rl_ros.robot.urdf import Urdf

TAKEOVER, TAKEOVER_ACTIVE = 'takeover/command', 'takeover/active'
"""Topics of an operator's commands, and of whether he commands."""
FOREIGN = (TAKEOVER, TAKEOVER_ACTIVE, '/clock', '/tf', '/tf_static', '/diagnostics', '/rosout')
"""Topics that others publish."""
QUANTITIES = {
    **dict.fromkeys(POSITIONS, 'position'),
    **dict.fromkeys(VELOCITIES, 'velocity'),
    **dict.fromkeys(EFFORTS, 'effort'),
}
"""Field of a JointState that measures an action, by the action's unit."""
LONGEST_TOPIC = 200
"""The middleware takes 247 letters, of which a namespace needs some."""


def contradictions(
    action: ActionSpec,
    commands: Sequence[Command],
    channels: Sequence[Channel],
    stops: Sequence[StopInput],
    urdf: Urdf | None,
) -> Iterator[str]:
    """Yield what cannot be true of a robot, each with what to change."""
    yield from _of_measurements(action, commands, channels)
    joints = _commanded_joints(action, commands)
    if action.workspace is not None:
        yield from _of_order('robot.action.workspace.joints', action.workspace.joints, joints)
    if urdf is not None:
        yield from _of_order('robot.robot_description.joints', urdf.joints, joints)
    yield from _of_topics(commands, channels, stops)


def _commanded_joints(action: ActionSpec, commands: Sequence[Command]) -> list[str]:
    """Return the joint that each action commands, empty where its command names none."""
    joints = [''] * action.size
    for command in commands:
        for index, joint in zip(
            command.indices or range(action.size), command.joints, strict=False
        ):
            joints[index] = joint
    return joints


def _of_measurements(
    action: ActionSpec, commands: Sequence[Command], channels: Sequence[Channel]
) -> Iterator[str]:
    """Yield what `measured_by` names wrongly: every limit would count from a wrong number."""
    where = 'robot.action.measured_by'
    channel_of = {name: each for each in channels for name in each.observation_names}
    commanded = _commanded_joints(action, commands)
    for name, times in Counter(action.measured_by).items():
        if times > 1:
            yield f'{where} names {name!r} {times} times, expected one observation for each action'
    for index, name in enumerate(action.measured_by):
        channel = channel_of.get(name)
        if channel is None:
            yield f'{where} names {name!r}, which no channel provides'
        elif channel.latched:
            yield (
                f'{where} names {name!r}, of the latched channel {channel.name!r}, whose values '
                'are never too old: expected a channel with max_age_s'
            )
        elif channel.type == JOINT_STATE:
            yield from _of_joint_state(action, index, channel, commanded[index])


def _of_joint_state(
    action: ActionSpec, index: int, channel: Channel, commanded: str
) -> Iterator[str]:
    name = action.measured_by[index]
    field, _, joint = name.removeprefix(f'{channel.name}.').partition('.')
    where = f'robot.action.measured_by of {action.names[index]!r} is {name!r}'
    if action.units:
        unit = action.units[index]
        expected, because = QUANTITIES.get(unit, field), f'its unit is {unit}'
    else:
        expected, because = 'position', 'without robot.action.units it is one'
    if field != expected:
        yield f'{where}, a {field}, expected its {expected}: {because}'
    moved = commanded or action.names[index].partition('.')[0]
    if joint != moved and moved in channel.joints:
        says = 'command moves' if commanded else 'name says'
        yield f'{where}, but its {says} joint {moved!r}, which that channel has too'


def _of_order(where: str, joints: Sequence[str], commanded: Sequence[str]) -> Iterator[str]:
    """Yield which joints of a list are at the place of another one's action."""
    for joint, moved in zip(joints, commanded, strict=False):
        if joint and moved and joint != moved and moved in joints:
            yield (
                f'{where} has {joint!r} where the command moves {moved!r}: expected the order of '
                'the command'
            )


def _of_topics(
    commands: Sequence[Command], channels: Sequence[Channel], stops: Sequence[StopInput]
) -> Iterator[str]:
    """Yield topics that several read differently, or to which no command can go."""
    sources = [source for channel in channels for source in channel.sources]
    types = {source.topic: source.type for source in reversed(sources)}
    for source in sources:
        if source.type != types[source.topic]:
            yield (
                f'robot.observation reads {source.topic!r} as {types[source.topic]} and as '
                f'{source.type}, expected one type: correct topic or type'
            )
    for command in commands:
        where = f'robot.command: topic of {command.name!r} is {command.topic!r}'
        if command.topic in types:
            yield f'{where}, which measures the robot too: correct one of them'
        elif command.topic.startswith('~') or command.topic in FOREIGN:
            yield f"{where}, which is not the robot's: expected that of its controller"
    named = (
        *types,
        *(command.topic for command in commands),
        *(stop.topic for stop in stops),
    )
    for topic in named:
        if len(topic) > LONGEST_TOPIC:
            yield (
                f'topic {topic[:40]!r}... has {len(topic)} letters, expected at most '
                f'{LONGEST_TOPIC}'
            )
