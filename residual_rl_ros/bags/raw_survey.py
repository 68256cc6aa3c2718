# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A first look at a raw bag: is all there that transitions are made of, from one run and clock."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from residual_rl_ros.bags.problems import BagError
from residual_rl_ros.bags.raw_messages import RawMessages, Received, Role
from residual_rl_ros.message_values import (
    CommandError,
    CommandReader,
    MessageReader,
    stamp_of,
    to_nanoseconds,
)
from residual_rl_ros.robot import RobotConfig

Array = npt.NDArray[np.float64]

LARGEST_OFFSET_S = 60.0
"""Real time: commands whose stamps are further from their receipt are of another clock [s]."""


def survey(messages: RawMessages, robot: RobotConfig, lockstep: bool) -> dict[int, Array]:
    """Read all messages once and report what is wrong with them.

    Args:
        messages: of the robot.
        robot: robot description of the recording.
        lockstep: commands answer the stamps of observations, and are recorded after these.

    Returns:
        In lockstep all commands by the nanosecond of the stamp that they answer, else none.

    Raises:
        BagError: a channel or the command was not recorded, or the commands are of several runs or
            of another clock.
    """
    readers = {channel.name: MessageReader(channel) for channel in robot.channels}
    command_reader = CommandReader(robot.command, robot.action.size)
    seen: dict[str, float] = {}
    commands: dict[int, Array] = {}
    offset = math.inf
    for received in messages.all():
        channel = received.reading.channel
        if channel is not None:
            if channel.name not in seen:
                readers[channel.name].check(received.message)
            latest = seen.get(channel.name, -math.inf)
            seen[channel.name] = _stamp_after(received, latest, lockstep)
        elif received.reading.role is Role.COMMAND:
            try:
                values = command_reader.values(received.message)
            except CommandError as error:
                raw = received.raw
                messages.bag.problems.add(
                    raw.path, str(error), topic=raw.topic.name, place=raw.place, kind='command'
                )
                continue
            offset = min(offset, abs(received.stamp - received.time))
            if lockstep:
                commands[to_nanoseconds(received.stamp)] = values
    missing = [messages.topic(c.topic) for c in robot.channels if c.name not in seen]
    if offset == math.inf:
        missing.append(messages.topic(robot.command.topic))
    if missing:
        raise BagError(
            f'{messages.bag.path} has no usable message on {", ".join(missing)}; record every '
            'channel and the command, and give --namespace'
        )
    if offset > LARGEST_OFFSET_S and not lockstep:
        raise BagError(
            f'{messages.bag.path}: commands are stamped {offset:.0f} s or more from when they '
            "were recorded: the node had another clock (use_sim_time) than the recorder's; "
            'record with ros2 bag record --use-sim-time, or give --lockstep for a simulator '
            'that waits'
        )
    return commands


def _stamp_after(received: Received, latest: float, lockstep: bool) -> float:
    """Return the stamp of an observation, the latest if it has none [s].

    Raises:
        BagError: a lockstep simulator was restarted: commands of one run would answer the
            observations of another.
    """
    stamp = stamp_of(received.message)
    if stamp is None:
        return latest
    if stamp < latest and lockstep:
        raw = received.raw
        raise BagError(
            f'{raw.path}: {raw.topic.name}: {raw.place}: stamps go back from {latest:.3f} s to '
            f'{stamp:.3f} s: several runs of a simulator; record each into a bag of its own'
        )
    return stamp
