# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A recording gives the transforms and the goals that the robot saw, when it saw them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from base_policy_builders import LinearPolicy
from raw_bag_builders import DESCRIPTION, PERIOD, Live, check_equal, rebuild, transforms
from robot_builders import OBSERVATIONS, make_metadata

from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.topics import FLOAT_ARRAY, TF
from residual_rl_ros.transitions.cdr import labelled_array


def robot_with_a_goal() -> RobotConfig:
    """Return the robot of the recordings, which sees a tool by transforms, and a goal."""
    description: dict[str, Any] = copy.deepcopy(DESCRIPTION)
    observation = description['observation']
    observation['channels'] += ['hand', 'goal']
    observation['hand'] = {
        **{'type': 'tf', 'source_frame': 'hand', 'target_frame': 'camera'},
        **{'fields': ['position.x'], 'max_age_s': 0.2},
    }
    observation['goal'] = {'topic': 'goal', 'type': FLOAT_ARRAY, 'fields': ['x'], 'latched': True}
    return RobotConfig.from_mapping(description)


def policy() -> LinearPolicy:
    """Return a policy of that robot."""
    names = (*OBSERVATIONS, 'hand.position.x', 'goal.x')
    return LinearPolicy(make_metadata(observation_names=names))


def transform(stamp: float, child: str, parent: str, x: float) -> bytes:
    """Return a TFMessage of one transform."""
    return transforms((child, parent, stamp, (x, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)))


def test_rebuilt_transitions_have_the_transforms_and_goals_of_the_live_ones(
    tmp_path: Path,
) -> None:
    robot = robot_with_a_goal()
    live = Live.start(tmp_path / 'bag', policy=policy(), robot=robot)
    mount = transform(90.0, 'camera', 'base', 1.0)
    live.observe('hand', '/tf_static', TF, round(99.9e9), mount, second=True)
    live.observe('goal', '/cell/goal', FLOAT_ARRAY, round(99.9e9), labelled_array([7.0]))
    for tick in range(40):
        now = 100.0 + PERIOD * tick
        if tick == 20:
            live.feedback(tick - 1, 1.0, 1.0, 0.0, 1.0)
        hand = transform(now - 0.03, 'hand', 'base', 0.01 * tick)
        live.observe('hand', '/tf', TF, round((now - 0.008) * 1e9), hand)
        if tick == 11:
            goal = labelled_array([8.0])
            live.observe('goal', '/cell/goal', FLOAT_ARRAY, round((now - 0.007) * 1e9), goal)
        live.step(tick)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag', policy=policy(), robot=robot)
    assert problems == []
    check_equal(made[:-1], live.made)
    seen = {(row.episode, float(row.observation[4])) for row in made}
    assert seen == {(0, 7.0), (1, 8.0)}  # The goal of an episode stays what it was.
    hands = np.array([row.observation[3] for row in made])
    assert hands[0] == -1.0
    assert (np.diff(hands) > 0.0).all()
