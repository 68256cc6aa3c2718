# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A goal is given once: the robot waits for it, an episode keeps it, and no clock makes it old."""

from __future__ import annotations

import math

import numpy as np
import pytest
from base_policy_builders import LinearPolicy
from loop_builders import CHANNELS, Recorder, drive, feed, real_time
from robot_builders import make_metadata

from residual_rl_ros.control.feedback import MARK_SUCCESS
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.robot.topics import AT_ONCE, EPISODE, POSE, Channel


def loop_with_a_goal(takes_effect: str = EPISODE) -> tuple[RealTimeLoop, Recorder]:
    """Return a loop whose policy sees a goal beside what every loop here sees."""
    channels = (
        *CHANNELS,
        Channel(
            *('goal', 'goal_pose', POSE, ('position.x',), (), math.inf),
            latched=True,
            takes_effect=takes_effect,
        ),
    )
    names = tuple(name for channel in channels for name in channel.observation_names)
    loop, callbacks = real_time(LinearPolicy(make_metadata(observation_names=names)))
    loop.assembler = ObservationAssembler(channels)
    return loop, callbacks


def give(loop: RealTimeLoop, x: float) -> None:
    loop.push_observation('goal', 0.0, np.array([x]))


def goals(callbacks: Recorder) -> list[tuple[int, float]]:
    """Return episode and goal of each transition."""
    return [(each.episode, float(each.observation[3])) for each in callbacks.transitions]


def test_nothing_moves_before_the_first_goal_and_what_is_missing_is_named() -> None:
    loop, callbacks = loop_with_a_goal()
    loop.activate()
    now = drive(loop, 0.0, 3)
    assert callbacks.commands == []
    assert callbacks.warnings[0] == "channel 'goal': nothing received on goal_pose"
    give(loop, 7.0)
    drive(loop, now, 3)
    assert len(callbacks.commands) == 3


def test_a_goal_that_was_given_before_the_activation_counts_and_does_not_age() -> None:
    loop, callbacks = loop_with_a_goal()
    give(loop, 7.0)
    loop.activate()
    drive(loop, 5000.0, 4)
    assert set(goals(callbacks)) == {(0, 7.0)}
    assert not callbacks.warnings
    loop.tick(4000.0)  # The clock was set back; only what moves is forgotten.
    feed(loop, 4000.0)
    assert loop.assembler.assemble(4000.0)[3] == 7.0


@pytest.mark.parametrize(
    ('takes_effect', 'seen'),
    [(EPISODE, [(0, 7.0), (1, 8.0)]), (AT_ONCE, [(0, 7.0), (0, 8.0), (1, 8.0)])],
)
def test_a_new_goal_counts_from_the_next_episode_on_or_at_once(
    takes_effect: str, seen: list[tuple[int, float]]
) -> None:
    loop, callbacks = loop_with_a_goal(takes_effect)
    give(loop, 7.0)
    loop.activate()
    now = drive(loop, 0.0, 4)
    give(loop, 8.0)
    now = drive(loop, now, 4)
    loop.end_episode(MARK_SUCCESS, now)
    drive(loop, now, 5)
    assert list(dict.fromkeys(goals(callbacks))) == seen
    last = [each for each in callbacks.transitions if each.episode == 0][-1]
    assert last.next_observation[3] == (7.0 if takes_effect == EPISODE else 8.0)


def test_a_goal_that_is_no_number_is_refused_and_the_one_before_stays() -> None:
    loop, callbacks = loop_with_a_goal(AT_ONCE)
    give(loop, 7.0)
    give(loop, math.nan)
    loop.activate()
    drive(loop, 0.0, 3)
    assert 'goal.position.x is nan on goal_pose' in callbacks.warnings[0]
    assert set(goals(callbacks)) == {(0, 7.0)}
