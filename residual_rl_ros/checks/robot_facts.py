# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a robot description says, in words."""

from __future__ import annotations

import numpy as np

from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.command import Command
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.topics import AT_ONCE, TF, Channel


def channel_fact(channel: Channel) -> str:
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


def between_episodes(robot: RobotConfig) -> dict[str, str]:
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


def command_facts(robot: RobotConfig) -> dict[str, str]:
    """Return a fact for each command."""
    if len(robot.commands) == 1:
        return {'command': _command(robot.commands[0], robot)}
    return {f'command {each.name}': _command(each, robot) for each in robot.commands}


def _command(command: Command, robot: RobotConfig) -> str:
    """Return where a command goes, and of several which actions it carries."""
    rate = f' at {robot.control_rate_hz / command.every:g} Hz' if command.every > 1 else ''
    carried = f': {", ".join(robot.action.names[i] for i in command.indices)}'
    return f'{command.topic} ({command.type}){rate}{carried if command.indices else ""}'


def action_facts(action: ActionSpec, rate: float) -> dict[str, str]:
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


def stop_input_facts(robot: RobotConfig) -> dict[str, str]:
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
