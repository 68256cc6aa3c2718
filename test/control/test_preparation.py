# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Between episodes a robot goes home inside its limits, and the scene is reset, or it is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
from base_policy_builders import LinearPolicy
from loop_builders import PERIOD, Recorder, real_time
from scipy.spatial.transform import Rotation

from residual_rl_ros.control.feedback import MARK_SUCCESS
from residual_rl_ros.control.home import GoHome
from residual_rl_ros.control.policy_loop import Answer
from residual_rl_ros.control.preparation import Preparation
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.control.reset_hook import CommandHook, ResetHook
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import CommandError
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.preparation_spec import HomeKeys, ResetSpec, home_of

ACTION = ActionSpec(
    names=('a.position', 'b.position'),
    lower=np.array([-0.5, -0.5]),
    upper=np.array([0.5, 0.5]),
    max_step=np.array([0.1, 0.05]),
    measured_by=('arm.position.a', 'arm.position.b'),
    following_limit=np.array([0.2, 0.2]),
)
HOME = {'a.position': 0.3, 'b.position': -0.1}
AWAY = np.array([-0.3, 0.2])


class Hook:
    """A reset whose outcome a test decides."""

    name = 'the reset'

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.says: str | None = None
        self.cannot = ''

    def begin(self) -> None:
        self.begun += 1

    def outcome(self) -> str | None:
        return self.says

    def cancel(self) -> str:
        self.cancelled += 1
        return self.cannot


class Arm:
    """An arm that does what it is told, its loop, and the time."""

    def __init__(self, hook: ResetHook | None = None, **changes: Any) -> None:
        home = {'positions': HOME, 'velocity_share': 0.5, **changes.pop('home', {})}
        action = changes.pop('action', ACTION)
        spec = home_of(HomeKeys(**home), action, PERIOD)
        reset = changes.pop('reset', None)
        self.loop: RealTimeLoop
        self.callbacks: Recorder
        policy = LinearPolicy()
        policy.weights[:] = 0.0
        self.loop, self.callbacks = real_time(
            policy, action=action, **{'auto_start': False, **changes}
        )
        way = GoHome(spec, self.loop.controller.limiter.safety, PERIOD)
        self.loop.preparation = Preparation(way, reset, hook)
        self.now = 0.0
        self.position = AWAY.copy()
        self.stuck = False
        self.loop.activate()

    def tick(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            self.callbacks.now = self.now = self.now + PERIOD
            self.loop.push_observation('arm', self.now, self.position)
            self.loop.push_observation('tool', self.now, np.array([0.5]))
            sent = len(self.callbacks.commands)
            self.loop.tick(self.now)
            if len(self.callbacks.commands) > sent and not self.stuck:
                self.position = self.callbacks.commands[-1][1]

    def until(self, condition: Callable[[], bool], ticks: int = 200) -> None:
        for _ in range(ticks):
            if condition():
                return
            self.tick()
        raise AssertionError(f'it never came: {self.loop.preparation.doing}')

    @property
    def at_home(self) -> bool:
        return bool(np.allclose(self.position, list(HOME.values())))

    def play(self) -> None:
        """Begin an episode and end it where nobody wants to stay."""
        self.loop.request_start()
        self.until(lambda: self.loop.in_episode)
        self.tick(3)
        self.loop.end_episode(MARK_SUCCESS, self.now)
        self.tick()
        assert not self.loop.in_episode
        self.position = AWAY.copy()


def test_nothing_moves_before_an_episode_is_wanted_then_the_robot_goes_home_first() -> None:
    arm = Arm()
    arm.tick(5)
    assert arm.callbacks.commands == []
    arm.loop.request_start()
    arm.tick()
    assert arm.loop.preparation.doing == 'going home'
    assert not arm.loop.in_episode
    arm.until(lambda: arm.loop.in_episode)
    # The last command is the first of the episode.
    way = np.array([AWAY, *(command for _, command in arm.callbacks.commands[:-1])])
    steps = np.diff(way, axis=0)
    assert (np.abs(steps) <= 0.5 * ACTION.max_step + 1e-12).all()
    np.testing.assert_array_equal(way[-1], list(HOME.values()))
    # On a straight line, and with a rise and a fall of half a second.
    np.testing.assert_allclose(steps[:10, 0] / steps[:10, 1], steps[0, 0] / steps[0, 1])
    assert abs(steps[0, 0]) < abs(steps[4, 0]) <= 0.05 + 1e-12


def test_after_an_episode_the_robot_is_home_before_the_next_and_no_transition_tells_of_it() -> None:
    arm = Arm()
    arm.play()
    made, ticks = len(arm.callbacks.transitions), arm.loop.counts['ticks']
    arm.until(lambda: arm.at_home)
    arm.tick(3)
    assert (len(arm.callbacks.transitions), arm.loop.counts['ticks']) == (made, ticks)
    assert arm.loop.preparation.ready
    sent = len(arm.callbacks.commands)
    arm.tick(20)
    assert len(arm.callbacks.commands) == sent  # At home it is told no more.
    arm.loop.request_start()
    arm.tick()
    assert (arm.loop.in_episode, arm.loop.episode) == (True, 1)


def test_a_robot_that_was_moved_away_by_hand_goes_home_again() -> None:
    arm = Arm()
    arm.play()
    arm.until(lambda: arm.loop.preparation.ready)
    arm.position = AWAY.copy()
    arm.tick(10)
    np.testing.assert_array_equal(arm.position, AWAY)
    arm.loop.request_start()
    arm.tick()
    assert arm.loop.preparation.homing
    arm.until(lambda: arm.loop.in_episode)


def test_a_fault_between_episodes_begins_none() -> None:
    arm = Arm()
    arm.loop.set_takeover(True)
    arm.loop.receive_takeover(AWAY)
    arm.tick(3)
    arm.loop.request_start()
    fail = Mock(side_effect=CommandError('the codec of my_msgs/msg/Command failed'))
    with patch.object(arm.callbacks, 'send_command', fail):
        arm.tick()
    assert arm.callbacks.faults == ['the codec of my_msgs/msg/Command failed']
    arm.loop.set_takeover(False)
    arm.loop.activate()
    assert not arm.loop.in_episode
    sent = len(arm.callbacks.commands)
    arm.tick(10)
    assert len(arm.callbacks.commands) == sent


@pytest.mark.parametrize('who', ['hold', 'takeover', 'stop input'])
def test_whoever_holds_or_commands_stands_above_the_way_home(who: str) -> None:
    arm = Arm(hold_limit_s=10.0)
    arm.play()
    arm.tick(5)
    stopped = arm.position.copy()
    assert arm.loop.preparation.homing
    arm.loop.held = who == 'hold'
    arm.loop.set_takeover(who == 'takeover')
    arm.loop.obstacles.set_stop('button', 'pressed' if who == 'stop input' else '')
    arm.tick(10)
    np.testing.assert_array_equal(arm.position, stopped)
    if who == 'takeover':
        arm.loop.receive_takeover(stopped + 0.02)
        arm.tick(3)
        np.testing.assert_allclose(arm.position, stopped + 0.02)
    assert bool(arm.loop.request_start()) == (who != 'stop input')
    arm.tick(3)
    assert not arm.loop.in_episode
    arm.loop.held = False
    arm.loop.set_takeover(False)
    arm.loop.obstacles.set_stop('button', '')
    if who == 'stop input':
        arm.loop.request_start()
    arm.until(lambda: arm.loop.in_episode)
    assert arm.callbacks.faults == []


def test_a_stop_input_takes_back_a_start_that_was_asked_for() -> None:
    arm = Arm()
    assert arm.loop.request_start()
    arm.loop.obstacles.set_stop('button', 'pressed')
    arm.tick(3)
    assert arm.loop.request_start() == Answer(False, 'pressed')
    arm.loop.obstacles.set_stop('button', '')
    arm.tick(100)
    assert not arm.loop.in_episode
    assert arm.callbacks.commands == []
    assert 'the start that was asked for is forgotten: ask again' in arm.callbacks.warnings


@pytest.mark.parametrize('who', ['home', 'operator'])
def test_no_way_begins_at_one_wrong_sample(who: str) -> None:
    arm = Arm()
    arm.tick(5)
    if who == 'home':
        assert arm.loop.request_home()
    else:
        arm.loop.set_takeover(True)
        arm.loop.receive_takeover(AWAY)
    arm.position = np.array([0.4, 0.2])  # Inside of the limits, and not where the arm is.
    arm.tick()
    arm.position = AWAY.copy()
    arm.tick()
    assert arm.callbacks.commands == []  # Not before two samples agree.
    arm.tick()
    command = arm.callbacks.commands[-1][1]
    assert (np.abs(command - AWAY) <= ACTION.max_step).all()


def test_a_way_home_that_is_blocked_is_a_fault_by_name() -> None:
    arm = Arm(home={'timeout_s': 1.0})
    arm.play()
    arm.stuck = True
    arm.until(lambda: not arm.loop.active)
    (fault,) = arm.callbacks.faults
    assert "'a.position' was told" in fault
    assert 'the robot does not follow' in fault


def test_a_robot_that_never_arrives_is_a_fault_that_names_the_action() -> None:
    arm = Arm(home={'timeout_s': 1.0}, action=replace(ACTION, following_limit=np.full(2, 9.0)))
    arm.play()
    arm.stuck = True
    arm.until(lambda: not arm.loop.active)
    (fault,) = arm.callbacks.faults
    assert fault.startswith("not home in time: 'b.position' is at 0.2, expected -0.1 give or take")


def test_a_robot_that_is_not_seen_on_its_way_home_holds_and_then_faults() -> None:
    arm = Arm()
    arm.play()
    arm.tick(5)
    for _ in range(20):
        arm.callbacks.now = arm.now = arm.now + PERIOD
        arm.loop.tick(arm.now)
    told = np.array([command for _, command in arm.callbacks.commands[-8:]])
    np.testing.assert_array_equal(told, told[[0] * 8])
    assert arm.callbacks.holding[-1]
    (fault,) = arm.callbacks.faults
    assert fault.startswith("held for 0.55 s: channel 'arm' is")


def test_a_robot_goes_home_on_request_unless_something_else_has_the_say() -> None:
    arm = Arm(home={'when': 'on_request'})
    assert arm.loop.request_home()
    arm.until(lambda: arm.at_home)
    arm.tick(2)
    arm.position = AWAY.copy()
    arm.loop.held = True
    assert arm.loop.request_home() == Answer(False, 'held: release the hold first')
    arm.loop.held = False
    assert arm.loop.request_home()
    arm.tick(2)
    arm.loop.set_takeover(True)
    arm.tick(2)
    arm.loop.set_takeover(False)
    arm.tick(20)
    assert not arm.at_home  # Who takes over has changed his mind.
    arm.loop.request_start()
    arm.tick()
    assert arm.loop.in_episode  # And no episode goes home by itself.
    assert arm.loop.request_home() == Answer(False, 'in an episode: end it first')
    off = Arm(home={'when': 'never'})
    assert 'robot.home is not in the robot YAML' in off.loop.request_home().message


def test_an_action_that_has_no_home_stays_where_it_is() -> None:
    arm = Arm(home={'positions': {'b.position': 0.0}})
    arm.loop.request_start()
    arm.until(lambda: arm.loop.in_episode)
    commands = np.array([command for _, command in arm.callbacks.commands[:-1]])
    np.testing.assert_array_equal(commands[:, 0], AWAY[0])


@pytest.mark.parametrize('held', [False, True])
def test_a_gripper_that_has_no_home_is_told_on_what_it_was_told_and_keeps_its_grip(
    held: bool,
) -> None:
    arm = Arm(home={'positions': {'b.position': 0.4}})
    arm.loop.request_start()
    arm.until(lambda: arm.loop.in_episode)
    arm.tick(10)
    grip = arm.callbacks.commands[-1][1][0]
    arm.loop.end_episode(MARK_SUCCESS, arm.now)
    arm.tick()
    arm.position = arm.position - np.array([0.1, 0.0])  # It cannot close: there is a peg.
    arm.loop.held = held
    arm.tick(3 * held)
    arm.loop.held = False
    sent = len(arm.callbacks.commands)
    arm.until(lambda: bool(np.isclose(arm.position[1], 0.4)))
    commands = np.array([command for _, command in arm.callbacks.commands[sent:]])
    np.testing.assert_allclose(commands[:, 0], grip)


def test_an_episode_waits_until_the_scene_is_reset_and_has_settled() -> None:
    hook = Hook()
    arm = Arm(hook, reset=ResetSpec(command=('x',), settle_s=0.5), auto_start=True)
    arm.play()
    arm.until(lambda: hook.begun > 0)
    assert arm.at_home  # It is out of the way first.
    arm.tick(20)
    assert arm.loop.preparation.doing == 'resetting the scene'
    assert not arm.loop.in_episode
    hook.says = ''
    done = arm.now
    arm.tick()
    assert arm.loop.preparation.doing == 'settling'
    arm.until(lambda: arm.loop.in_episode)
    assert 0.5 <= arm.now - done < 0.7
    assert hook.begun == 1


@pytest.mark.parametrize(
    ('says', 'reason'),
    [('the belt is jammed', 'the belt is jammed'), (None, 'not done within 2 s')],
)
def test_a_reset_that_fails_holds_until_somebody_says_that_the_scene_is_ready(
    says: str | None, reason: str
) -> None:
    hook = Hook()
    hook.says = says
    arm = Arm(hook, reset=ResetSpec(command=('x',), timeout_s=2.0), auto_start=True)
    arm.play()
    arm.until(lambda: bool(arm.loop.preparation.failure))
    assert arm.loop.preparation.failure.startswith(f'reset failed: the reset: {reason}; call ~/')
    sent = len(arm.callbacks.commands)
    arm.tick(20)
    assert not arm.loop.in_episode
    assert len(arm.callbacks.commands) == sent
    assert arm.callbacks.warnings[-1] == arm.loop.preparation.failure
    assert arm.callbacks.faults == []
    assert arm.loop.request_start()
    arm.until(lambda: arm.loop.in_episode)
    assert hook.cancelled == (says is None)


def test_a_jump_of_the_clock_makes_neither_the_way_home_nor_the_reset_late() -> None:
    hook = Hook()
    arm = Arm(hook, reset=ResetSpec(command=('x',), timeout_s=2.0, settle_s=0.5), auto_start=True)
    arm.play()
    arm.until(lambda: arm.loop.preparation.homing)
    arm.tick()
    arm.now += 100.0
    arm.until(lambda: hook.begun > 0)
    assert arm.at_home
    assert arm.callbacks.faults == []
    arm.now += 100.0
    arm.tick(5)
    assert arm.loop.preparation.doing == 'resetting the scene'
    assert hook.cancelled == 0


def test_a_deactivation_gives_the_reset_up_and_the_next_episode_has_it_again() -> None:
    hook = Hook()
    arm = Arm(hook, reset=ResetSpec(command=('x',)))
    arm.play()
    arm.until(lambda: hook.begun == 1)
    arm.loop.deactivate(arm.now)
    assert hook.cancelled == 1
    arm.loop.activate()
    arm.position = AWAY.copy()
    arm.tick(5)
    assert (hook.begun, arm.at_home) == (1, False)  # Nobody wants an episode.
    arm.loop.request_start()
    arm.until(lambda: hook.begun == 2)
    assert arm.at_home
    assert not arm.loop.in_episode
    hook.says = ''
    arm.until(lambda: arm.loop.in_episode)
    # Who deactivates in an episode leaves a scene that is not reset.
    arm.loop.deactivate(arm.now)
    arm.loop.activate()
    arm.loop.request_start()
    arm.until(lambda: arm.loop.in_episode)
    assert hook.begun == 3


@pytest.mark.parametrize('cannot', ['', 'process 7 could not be killed'])
def test_a_reset_that_has_failed_has_failed_still_after_a_deactivation(cannot: str) -> None:
    hook = Hook()
    hook.says, hook.cannot = None if cannot else 'jammed', cannot
    arm = Arm(hook, reset=ResetSpec(command=('x',)), auto_start=True)
    arm.play()
    arm.until(lambda: hook.begun == 1)
    arm.tick()
    arm.loop.deactivate(arm.now)
    arm.loop.activate()
    arm.tick(30)
    assert not arm.loop.in_episode
    assert (cannot or 'jammed') in arm.loop.preparation.doing
    arm.loop.request_start()
    arm.until(lambda: arm.loop.in_episode)


@pytest.mark.parametrize('says', [None, 'jammed'])
def test_nobody_leaves_for_home_while_somebody_is_busy_with_the_scene(says: str | None) -> None:
    hook = Hook()
    hook.says = says
    arm = Arm(hook, reset=ResetSpec(command=('x',)), auto_start=True)
    arm.play()
    arm.until(lambda: hook.begun == 1)
    arm.tick(2)
    arm.position = AWAY.copy()  # A person in the cell has pushed it.
    arm.tick(20)
    np.testing.assert_array_equal(arm.position, AWAY)
    if says is None:
        assert arm.loop.request_home() == Answer(
            False, 'resetting the scene: wait until that is done'
        )
        hook.says = ''
    else:
        arm.loop.request_start()
    arm.until(lambda: arm.at_home)
    arm.until(lambda: arm.loop.in_episode)
    assert (hook.begun, arm.loop.episode) == (1, 1)


def test_the_time_limit_of_a_reset_holds_while_the_robot_is_held() -> None:
    hook = Hook()
    arm = Arm(hook, reset=ResetSpec(command=('x',), timeout_s=2.0))
    arm.play()
    arm.until(lambda: hook.begun == 1)
    arm.loop.held = True
    arm.tick(50)
    assert hook.cancelled == 1
    assert 'not done within 2 s' in arm.loop.preparation.doing


@pytest.mark.parametrize('when', ['between_episodes', 'on_request'])
@pytest.mark.parametrize('what', ['hold', 'stop input'])
def test_a_request_to_go_home_does_not_outlive_a_hold_or_a_stop_input(what: str, when: str) -> None:
    arm = Arm(home={'when': when})
    arm.tick()
    assert arm.loop.request_home()
    arm.loop.held = what == 'hold'
    arm.loop.obstacles.set_stop('button', 'pressed' if what == 'stop input' else '')
    for _ in range(8):  # Nothing is seen meanwhile.
        arm.callbacks.now = arm.now = arm.now + PERIOD
        arm.loop.tick(arm.now)
    arm.loop.held = False
    arm.loop.obstacles.set_stop('button', '')
    arm.tick(20)
    np.testing.assert_array_equal(arm.position, AWAY)
    assert arm.loop.active


def test_a_pause_on_the_way_home_is_not_lost_time() -> None:
    arm = Arm(home={'timeout_s': 1.0}, hold_limit_s=10.0)
    arm.play()
    arm.tick(5)
    arm.loop.obstacles.set_stop('button', 'pressed')
    arm.tick(60)
    arm.loop.obstacles.set_stop('button', '')
    arm.until(lambda: arm.at_home)
    assert arm.callbacks.faults == []


def test_an_operator_begins_no_episode_away_from_home() -> None:
    arm = Arm()
    arm.loop.set_takeover(True)
    arm.loop.request_start()
    for _ in range(3):
        arm.loop.receive_takeover(AWAY.copy())
        arm.tick()
    assert not arm.loop.in_episode
    arm.loop.receive_takeover(np.array(list(HOME.values())))
    for _ in range(20):
        arm.loop.receive_takeover(np.array(list(HOME.values())))
        arm.tick()
    assert arm.loop.in_episode


def test_an_episode_that_an_operator_has_begun_keeps_its_number() -> None:
    action = replace(ACTION, start_limit=np.array([0.05, 0.05]))
    arm = Arm(auto_start=True, action=action, home={'when': 'on_request'})
    arm.loop.set_takeover(True)
    for _ in range(6):
        arm.loop.receive_takeover(AWAY.copy())
        arm.tick()
    arm.loop.set_takeover(False)
    arm.tick(3)
    assert (arm.loop.in_episode, arm.loop.episode) == (True, 0)
    made = [(each.episode, each.step) for each in arm.callbacks.transitions]
    assert len(made) == len(set(made)) > 5


@pytest.mark.parametrize(
    ('limit', 'home', 'measured', 'needed'),
    [
        (np.pi, [3.13, 0.0, 0.0], [-3.13, 0.0, 0.0], 2.0 * np.pi - 6.26),
        (np.pi, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], 1.38),
        (1.0, [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, -1.0], 0.0),
        (1.0, [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], np.pi),
    ],
)
def test_an_orientation_turns_home_the_shortest_way_and_no_faster_than_it_may(
    limit: float, home: list[float], measured: list[float], needed: float
) -> None:
    size = len(home)
    action = ActionSpec(
        names=tuple('xyzw'[:size]),
        lower=np.full(size, -limit),
        upper=np.full(size, limit),
        max_step=np.full(size, 0.05),
        measured_by=tuple('xyzw'[:size]),
        units=('rad',) * size if size == 3 else (),
        orientations=(tuple(range(size)),),
    )
    positions = dict(zip('xyzw', home, strict=False))
    spec = home_of(HomeKeys(positions=positions, acceleration_s=0.2), action, PERIOD)
    safety = SafetyFilter(action)
    way = GoHome(spec, safety, PERIOD)
    position, turned = np.array(measured), [0.0]
    way.begin(position, None, 0.0)
    while not np.array_equal(position, home):
        command = safety.apply(way.step(position), position)
        turned.append(angle_between(command, position))
        position = command
        assert len(turned) < 400
    assert way.is_home(np.array(measured)) == (needed < 0.04)
    assert sum(turned) == pytest.approx(needed, abs=0.01)
    assert max(turned) <= 0.25 * 0.05 * (1 if size == 3 else 2) + 1e-9


def angle_between(one: np.ndarray, other: np.ndarray) -> float:
    kind = Rotation.from_rotvec if one.size == 3 else Rotation.from_quat
    return float((kind(one) * kind(other).inv()).magnitude())


def test_a_program_that_cannot_be_killed_is_said_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(group: int, number: int) -> None:
        raise PermissionError(1, 'Operation not permitted')

    hook = CommandHook(('sleep', '60'))
    arm = Arm(hook, reset=ResetSpec(command=('x',), timeout_s=0.3))
    arm.play()
    arm.until(lambda: hook._process is not None)
    process = hook._process
    assert process is not None
    with monkeypatch.context() as patch:
        patch.setattr(os, 'killpg', refuse)
        arm.until(lambda: bool(arm.loop.preparation.failure))
    process.kill()
    process.wait()
    assert f'process {process.pid} could not be killed' in arm.loop.preparation.failure
    assert arm.loop.active
