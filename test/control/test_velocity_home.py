# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A joint that is commanded in velocity goes home by its measured position, and comes to rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from base_policy_builders import LinearPolicy
from loop_builders import PERIOD, real_time

from residual_rl_ros.control.feedback import MARK_SUCCESS
from residual_rl_ros.control.home import VelocityHome
from residual_rl_ros.control.preparation import Preparation
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.preparation_spec import HomeSpec

SPEED, SLEW, SHARE, TOLERANCE = 1.0, 0.1, 0.5, 0.02
ACTION = ActionSpec(
    names=('a.velocity', 'b.velocity'),
    lower=np.full(2, -SPEED),
    upper=np.full(2, SPEED),
    max_step=np.full(2, SLEW),
    measured_by=('arm.position.a', 'arm.position.b'),  # The names of this loop; velocities here.
    units=('rad/s', 'rad/s'),
    following_limit=np.full(2, 0.4),
)
HOME = HomeSpec(
    when='between_episodes',
    goal=np.array([0.3, np.nan]),
    max_step=np.full(2, SHARE * SPEED * PERIOD),
    tolerance=np.full(2, TOLERANCE),
    acceleration_s=0.5,
    timeout_s=1.0,
    measured_by=('tool.z', ''),
)


class Joint:
    """A joint that turns as fast as it is told, later, its loop, and the time."""

    def __init__(self, lag: int = 1, position: float = -0.5, **changes: Any) -> None:
        policy = LinearPolicy()
        policy.weights[:] = 0.0
        self.loop, self.said = real_time(
            policy, action=ACTION, **{'auto_start': False, 'hold_limit_s': 0.5, **changes}
        )
        self.limiter = self.loop.controller.limiter
        names = self.loop.controller.layout.observation_names
        way = VelocityHome(HOME, self.limiter.safety, PERIOD, names)
        self.loop.preparation = Preparation(way)
        self.position, self.frozen, self.seen = position, False, True
        self._told = deque([0.0] * lag)
        self.way: list[float] = []
        self.loop.activate()
        self.loop.request_start()

    def tick(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            now = self.said.now = self.said.now + PERIOD
            speed = self._told.popleft() * (not self.frozen)
            self.position += speed * PERIOD
            self.way.append(self.position)
            if self.seen:
                self.loop.push_observation('arm', now, np.array([speed, 0.0]))
                self.loop.push_observation('tool', now, np.array([self.position]))
            if self.loop.active:
                self.loop.tick(now)
            # Who is told nothing more goes on as it was told.
            self._told.append(self.speeds[-1] if self.said.commands else 0.0)

    def until(self, condition: Callable[[], bool], ticks: int = 200) -> None:
        for _ in range(ticks):
            if condition():
                return
            self.tick()
        raise AssertionError(f'it never came: {self.loop.preparation.doing}, {self.position}')

    @property
    def speeds(self) -> np.ndarray:
        """What the joint was told, shape (t,)."""
        return np.array([command[0] for _, command in self.said.commands])


@pytest.mark.parametrize('lag', [1, 2, 4])
def test_it_rises_and_falls_within_its_limits_and_comes_to_rest_at_home(lag: int) -> None:
    joint = Joint(lag)
    joint.until(lambda: joint.loop.in_episode)
    on_the_way = joint.speeds[:-1]
    assert on_the_way[-1] == 0.0
    assert np.abs(np.diff(on_the_way, prepend=0.0)).max() <= SLEW + 1e-12
    assert SHARE * SPEED * 0.9 < on_the_way.max() <= SHARE * SPEED + 1e-12
    assert (int(np.argmax(on_the_way)) + 1) * PERIOD >= HOME.acceleration_s - 1e-9
    assert max(joint.way) <= 0.3 + TOLERANCE  # It does not swing over.
    assert abs(joint.position - 0.3) <= TOLERANCE
    assert not np.any([command[1] for _, command in joint.said.commands])
    assert joint.said.faults == []
    assert joint.said.transitions == []


def test_a_hold_slows_it_down_and_then_it_goes_on() -> None:
    joint = Joint()
    joint.tick(15)
    assert joint.speeds[-1] > 0.4
    joint.loop.held = True
    joint.tick(8)
    assert np.diff(joint.speeds[14:]).min() >= -SLEW - 1e-12
    assert joint.speeds[-1] == 0.0
    rest = joint.position
    joint.tick(5)
    assert joint.position == rest
    joint.loop.held = False
    joint.until(lambda: joint.loop.in_episode)
    assert joint.said.faults == []


@pytest.mark.parametrize('stop', ['stop input', 'takeover', 'deactivation'])
def test_what_stops_a_robot_stops_it(stop: str) -> None:
    joint = Joint()
    joint.tick(15)
    if stop == 'stop input':
        joint.loop.obstacles.set_stop('button', 'pressed')
    elif stop == 'takeover':
        joint.loop.set_takeover(True)
    else:
        joint.loop.deactivate(joint.said.now)
    joint.tick(8)
    assert joint.speeds[-1] == 0.0
    assert np.abs(np.diff(joint.speeds)).max() <= SLEW + 1e-12


def test_a_joint_that_is_not_seen_any_more_is_told_to_stop_then_it_is_a_fault() -> None:
    joint = Joint()
    joint.tick(15)
    joint.seen = False
    joint.tick(12)  # Older than max_age_s after 4 of them.
    assert joint.speeds[-1] == 0.0
    joint.tick(20)
    assert 'held for 0.5' in joint.said.faults[0]


def test_a_frozen_joint_is_held_then_a_fault_by_name() -> None:
    joint = Joint()
    joint.frozen = True
    joint.tick(60)
    assert any('the robot does not follow' in warning for warning in joint.said.warnings)
    (fault,) = joint.said.faults
    assert "'a.velocity' was told" in fault
    assert 'nor does it move when it is told again' in fault
    assert joint.speeds[-1] == 0.0
    assert joint.speeds.max() <= ACTION.following_limit[0] + SLEW


def test_one_that_is_often_paused_at_one_place_comes_home() -> None:
    joint = Joint(hold_limit_s=2.0)
    for _ in range(6):
        joint.loop.held = True
        joint.tick(3)
        joint.loop.held = False
        joint.tick(2)
    joint.until(lambda: joint.loop.in_episode)
    assert joint.said.faults == []


def test_one_that_often_begins_its_way_at_one_place_has_its_time_if_it_came_home() -> None:
    joint = Joint()
    for _ in range(5):
        joint.until(lambda: joint.loop.in_episode)
        joint.loop.end_episode(MARK_SUCCESS, joint.said.now)
        joint.tick(3)
        joint.position = -0.5
        joint.loop.request_start()
        joint.tick()
    assert joint.said.faults == []


def test_a_frozen_joint_that_is_told_little_is_late_and_a_fault_by_name() -> None:
    joint = Joint(position=0.25)  # So near that it is told less than following_limit.
    joint.frozen = True
    joint.tick(80)
    (fault,) = joint.said.faults
    assert "not home in time: 'a.velocity' is at 0.25, expected 0.3 give or take 0.02" in fault
    assert joint.speeds[-1] == 0.0


def test_a_joint_that_is_at_home_is_not_moved() -> None:
    joint = Joint(position=0.3 - 0.9 * TOLERANCE)
    joint.until(lambda: joint.loop.in_episode, 3)
    assert not joint.speeds.any()


def test_joints_go_straight_and_what_has_no_home_stays() -> None:
    action = ActionSpec(
        names=('a', 'b', 'grip'),
        lower=np.array([-1.0, -1.0, 0.0]),
        upper=np.array([1.0, 1.0, 0.8]),
        max_step=np.full(3, 0.1),
        measured_by=('va', 'vb', 'pg'),
        units=('rad/s', 'rad/s', 'rad'),
    )
    spec = replace(
        HOME,
        goal=np.array([1.0, -0.5, np.nan]),
        max_step=np.full(3, 0.025),
        tolerance=np.full(3, TOLERANCE),
        measured_by=('pa', 'pb', ''),
    )
    way = VelocityHome(spec, SafetyFilter(action), PERIOD, ('va', 'vb', 'pg', 'pa', 'pb'))
    measured, told = np.array([0.0, 0.0, 0.5]), np.array([0.0, 0.0, 0.6])
    positions = [np.zeros(2)]
    way.see(np.array([*measured, *positions[0]]))
    way.begin(measured, told, 0.0)
    for _ in range(200):
        way.see(np.array([*measured, *positions[-1]]))
        command = way.step(told)
        assert command[2] == 0.6
        positions.append(positions[-1] + command[:2] * PERIOD)
    assert way.is_home(measured)
    np.testing.assert_allclose(positions[-1], [1.0, -0.5], atol=TOLERANCE / 2)
    straight = np.array(positions[:45])
    np.testing.assert_allclose(straight[:, 1], -0.5 * straight[:, 0], atol=1e-9)
    way.see(None)
    assert not way.is_home(measured)
    np.testing.assert_array_equal(way.step(told), [0.0, 0.0, 0.6])
