# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which topics a recording consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from residual_rl_ros.bags.recorder import RecordedTopic
from residual_rl_ros.bags.transitions.reader import LAYOUT, TEXT, TRANSITIONS
from residual_rl_ros.robot.description import FLOAT_ARRAY, RobotConfig

FLAG = 'std_msgs/msg/Bool'
FEEDBACK = 'step_feedback'
TAKEOVER_COMMAND, TAKEOVER_ACTIVE = 'takeover/command', 'takeover/active'


def absolute(topics: Iterable[RecordedTopic], resolve: Callable[[str], str]) -> list[RecordedTopic]:
    """Return topics under their absolute names, each once: what is observed may be the command.

    Args:
        topics: relative to the robot's namespace, or absolute.
        resolve: returns the absolute name of a topic.
    """
    by_name = {}
    for topic in topics:
        name = resolve(topic.name)
        by_name[name] = replace(topic, name=name)
    return list(by_name.values())


def transition_topics() -> tuple[RecordedTopic, ...]:
    """Return the topics that make a training set, relative to the robot's namespace."""
    return (
        RecordedTopic(LAYOUT, TEXT, latched=True),
        RecordedTopic(TRANSITIONS, FLOAT_ARRAY),
    )


def raw_topics(robot: RobotConfig) -> tuple[RecordedTopic, ...]:
    """Return what transitions can be rebuilt from: observations, commands, feedback, takeovers."""
    command = robot.command
    channels = {channel.topic: channel.type for channel in robot.channels}
    return (
        *(RecordedTopic(topic, kind, reliable=False) for topic, kind in channels.items()),
        RecordedTopic(command.topic, command.type),
        RecordedTopic(FEEDBACK, FLOAT_ARRAY),
        RecordedTopic(TAKEOVER_COMMAND, command.type),
        RecordedTopic(TAKEOVER_ACTIVE, FLAG),
    )
