# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is unusual in a robot description, and usable all the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from residual_rl_ros.robot.action_spec import VELOCITIES, ActionSpec
from residual_rl_ros.robot.description import RobotConfig

MANY_TURNS = 4.0 * np.pi
"""A joint that may turn further than this is limited in degrees, as a rule [rad]."""
FAR_M = 10.0
"""No point of an arm is so far away from its base: such a box is in millimetres, as a rule [m]."""
OLD_S = 1.0
"""Older measurements are no measure of a robot that moves [s]."""


def unusual(robot: RobotConfig) -> Iterator[str]:
    """Yield limits that do not limit, and measurements that may be too old or are often stale."""
    action = robot.action
    yield from _short_periods(robot)
    if action.is_discrete:
        if not action.hold_action:
            yield (
                'action.hold_action is missing: a hold repeats the last action; name the one at '
                'which the robot stays where it is'
            )
        return
    if not action.measured_by:
        yield (
            'action.measured_by is missing: the first command of an episode is not limited by '
            'where the robot is'
        )
    yield from _other_units(action)
    yield from _never_following(action)
    yield from _old_measurements(robot)
    yield from _unlimited(robot)


def _other_units(action: ActionSpec) -> Iterator[str]:
    """Yield numbers that are degrees or millimetres, as a rule."""
    reach = np.maximum(-action.lower, action.upper)
    degrees = [
        name
        for name, unit, most in zip(action.names, action.units, reach, strict=False)
        if unit == 'rad' and most > MANY_TURNS
    ]
    if degrees:
        yield (
            f'lower and upper of {", ".join(degrees)} allow more than two turns in rad: expected '
            'unless they are degrees, which the robot YAML does not know'
        )
    if action.workspace is None:
        return
    sides = np.concatenate([action.workspace.lower, action.workspace.upper])
    far = np.abs(sides[np.isfinite(sides)]).max(initial=0.0)
    if far > FAR_M:
        yield (
            f'workspace reaches to {far:g} m: no arm does, and the robot YAML knows no millimetres'
        )


def _never_following(action: ActionSpec) -> Iterator[str]:
    """Yield velocities of which no following error is found."""
    units = action.units or ('1',) * action.size
    reach = np.maximum(-action.lower, action.upper)
    limits = zip(action.names, units, action.following_limit, reach, strict=True)
    blind = [
        name
        for name, unit, limit, most in limits
        if action.measured_by and unit in VELOCITIES and limit >= most
    ]
    if blind:
        yield (
            f'following_limit of {", ".join(blind)} is its largest velocity or more: a robot that '
            'stands still is never found not to follow'
        )


def _short_periods(robot: RobotConfig) -> Iterator[str]:
    """Yield channels that would often be stale."""
    period = 1.0 / robot.control_rate_hz
    for channel in robot.channels:
        if channel.max_age_s < period:
            yield (
                f'channel {channel.name!r}: max_age_s {channel.max_age_s:g} is less than a control '
                f'period ({period:g} s); a topic at the control rate would often be stale'
            )


def _old_measurements(robot: RobotConfig) -> Iterator[str]:
    """Yield channels that measure the robot, and may be too old for it."""
    measured = {*robot.action.measured_by}
    for channel in robot.channels:
        if channel.max_age_s > OLD_S and measured & {*channel.observation_names}:
            yield (
                f'observation.{channel.name}.max_age_s is {channel.max_age_s:g}: the robot moves '
                'on measurements that are so old [s]; 0.1 to 0.5 are usual'
            )


def _unlimited(robot: RobotConfig) -> Iterator[str]:
    """Yield actions whose velocity is not limited, but for goals: those have one of their own."""
    action = robot.action
    own = {
        index
        for command in robot.commands
        if command.is_action
        for index in command.indices or range(action.size)
    }
    loose = np.flatnonzero(action.max_step >= action.upper - action.lower).tolist()
    unlimited = [action.names[index] for index in loose if index not in own]
    if unlimited:
        yield (
            f'max_velocity of {", ".join(unlimited)} allows the whole range within one control '
            'step: it limits nothing'
        )


def wider_than_trained(
    action: ActionSpec, low: npt.ArrayLike, high: npt.ArrayLike
) -> Iterator[str]:
    """Yield limits that are far wider than what the base policy ever commanded.

    Args:
        action: the actions.
        low: smallest trained action, shape (m,).
        high: largest trained action, shape (m,).
    """
    span = np.subtract(high, low)
    wide = (span > 0.0) & (action.upper - action.lower > 20.0 * span)
    if wide.any():
        names = ', '.join(action.names[index] for index in np.flatnonzero(wide))
        yield (
            f'the limits of {names} are more than 20 times what the base policy was trained on; '
            'tighter ones would catch a fault earlier'
        )
