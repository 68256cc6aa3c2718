# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A robot moves only when it should: whatever is measured, told, moved by hand or stuck."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from arms import ARM, MEASURED, NAMES, STEP, UNMEASURED, Arm
from base_policy_builders import LinearPolicy, settle
from loop_builders import PERIOD, real_time

from residual_rl_ros.control.feedback import END_EPISODE
from residual_rl_ros.control.real_time_loop import STOP_LIMIT_S
from residual_rl_ros.errors import UnsafeCommandError
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.stop_inputs import StopInput
from residual_rl_ros.transitions.transition import Source

# --- where a step begins


def moved_by_hand(arm: Arm) -> None:
    arm.position = arm.position + 0.5
    arm.stuck = True


def test_after_a_hold_the_step_begins_where_the_arm_was_moved() -> None:
    arm = Arm()
    arm.run(10)
    arm.loop.held = True
    arm.run(3)
    moved_by_hand(arm)
    arm.run(3)
    arm.loop.held = False
    arm.stuck = False
    there = arm.position
    assert np.abs(arm.run(1)[0] - there).max() <= STEP + 1e-12
    assert arm.said.faults == []


def test_after_a_second_activation_the_step_begins_where_the_arm_was_moved() -> None:
    arm = Arm()
    arm.run(10)
    arm.loop.deactivate(arm.said.now)
    moved_by_hand(arm)
    arm.loop.activate()
    there = arm.position
    assert np.abs(arm.run(1)[0] - there).max() <= STEP + 1e-12


def test_an_episode_begins_where_the_arm_was_moved() -> None:
    arm = Arm(auto_start=False)
    arm.loop.request_start()
    arm.run(10)
    arm.loop.end_episode(END_EPISODE, arm.said.now)
    arm.run(3)
    moved_by_hand(arm)
    assert len(arm.run(3)) == 0
    arm.target = float(arm.position[0])
    arm.loop.request_start()
    there = arm.position
    assert np.abs(arm.run(1)[0] - there).max() <= STEP + 1e-12


def test_after_a_takeover_the_step_begins_where_the_arm_was_moved() -> None:
    arm = Arm()
    arm.run(10)
    arm.loop.set_takeover(True)
    arm.run(3)
    moved_by_hand(arm)
    arm.run(3)
    arm.loop.set_takeover(False)
    there = arm.position
    assert np.abs(arm.run(1)[0] - there).max() <= STEP + 1e-12


def test_after_missed_control_steps_the_step_begins_where_the_arm_is() -> None:
    arm = Arm()
    arm.run(10)
    moved_by_hand(arm)
    there = arm.position
    arm.said.now += 3 * PERIOD
    arm.run(1)  # It holds: one sample might be wrong.
    assert np.abs(arm.run(1)[0] - there).max() <= STEP + 1e-12


@pytest.mark.parametrize('pause', ['hold', 'takeover', 'missed control steps'])
@pytest.mark.parametrize('opened', [False, True], ids=['closed', 'opened by hand'])
def test_after_a_pause_a_gripper_keeps_its_grip_unless_it_was_opened(
    pause: str, opened: bool
) -> None:
    wide = np.array([0.2, 6.0])
    arm = Arm(target=0.5, spec=replace(ARM, following_limit=wide, grippers=(1,)))
    arm.run(10)
    arm.stuck = True  # It has closed around something, and is told to close further.
    told = arm.run(8)[-1][1]
    grip = arm.position[1]
    assert told > grip + 3 * STEP
    if pause == 'missed control steps':
        arm.said.now += 3 * PERIOD
    else:
        arm.loop.held, arm.loop._takeover_active = pause == 'hold', pause == 'takeover'
        arm.run(3)
        arm.loop.held = False
        arm.loop.set_takeover(False)
    arm.position = arm.position - [0.0, 0.3 * opened]
    first = arm.run(1)[0]
    np.testing.assert_allclose(first[1], arm.position[1] + STEP if opened else told + STEP)
    np.testing.assert_allclose(first[0], arm.position[0] + STEP)
    assert arm.said.faults == []


def test_a_gripper_that_closed_in_a_pause_and_was_opened_in_it_has_no_grip() -> None:
    wide = np.array([0.2, 6.0])
    arm = Arm(target=0.0, spec=replace(ARM, following_limit=wide, grippers=(1,)))
    arm.position = np.array([0.0, 0.8])
    arm.run(20)
    arm.stuck = True
    arm.loop.held = True
    for there in (0.3, 0.1, 0.7):  # It goes on closing, and is opened by hand.
        arm.position = np.array([0.0, there])
        arm.run(1)
    arm.loop.held = False
    arm.target = 0.7
    np.testing.assert_allclose(arm.run(1)[0][1], 0.7)


def test_a_joint_of_an_arm_that_may_be_anywhere_is_no_gripper() -> None:
    arm = Arm(spec=replace(ARM, following_limit=np.array([0.2, 6.0])))
    arm.run(10)
    arm.loop.held = True
    arm.run(3)
    moved_by_hand(arm)
    arm.run(3)
    arm.loop.held = False
    assert np.abs(arm.run(1)[0] - arm.position).max() <= STEP + 1e-12


def test_a_robot_that_is_not_measured_goes_on_from_its_last_command() -> None:
    arm = Arm(spec=UNMEASURED)
    last = arm.run(10)[-1]
    arm.loop.end_episode(END_EPISODE, arm.said.now)
    for _ in range(3):
        arm.target = -arm.target
        commands = np.vstack([last, arm.run(8)])
        assert np.abs(np.diff(commands, axis=0)).max() <= STEP + 1e-12
        arm.loop.deactivate(arm.said.now)
        arm.loop.activate()
        last = commands[-1]


def test_an_operator_does_not_move_an_arm_that_nobody_sees_after_a_pause() -> None:
    arm = Arm()
    arm.run(10)
    arm.loop.held = True
    arm.run(2)
    arm.loop.held = False
    arm.loop.set_takeover(True)
    arm.loop.receive_takeover(np.full(2, 2.0))
    arm.said.now += 1.0
    held = arm.run(5, seen=False)
    np.testing.assert_array_equal(held, np.broadcast_to(held[0], held.shape))


def test_the_end_of_an_episode_that_nobody_sees_is_no_place_to_go_on_from() -> None:
    arm = Arm()
    arm.run(10)
    arm.loop.held = True
    arm.run(2)
    moved_by_hand(arm)
    arm.loop.held = False
    arm.loop.set_takeover(True)
    arm.said.now += 1.0
    arm.loop.receive_takeover(np.full(2, 2.0))
    arm.loop.end_episode(END_EPISODE, arm.said.now)
    held = arm.run(4, seen=False)
    assert len(held) == 1
    np.testing.assert_array_equal(held[0], arm.said.commands[-2][1])


# --- what is measured


@pytest.mark.parametrize('spike', [50.0, -50.0, 3.5])
def test_a_measurement_outside_of_the_limits_is_no_observation(spike: float) -> None:
    arm = Arm()
    arm.stuck = True
    arm.position = np.array([spike, 0.0])
    assert len(arm.run(5)) == 0
    assert any('arm.position.a is' in warning for warning in arm.said.warnings)
    arm.position = np.zeros(2)
    assert np.abs(arm.run(2)).max() <= STEP + 1e-12  # From where two samples agree.


def test_one_wrong_measurement_in_an_episode_is_held_through() -> None:
    arm = Arm()
    before = arm.run(10)[-1]
    arm.position, right = np.array([50.0, 0.0]), arm.position
    arm.stuck = True
    np.testing.assert_array_equal(arm.run(1)[0], before)
    arm.position, arm.stuck = right, False
    assert np.abs(arm.run(1)[0] - right).max() <= STEP + 1e-12
    assert arm.said.faults == []


def test_a_robot_that_stands_outside_of_its_limits_is_only_led_back_in() -> None:
    arm = Arm(target=5.0)
    arm.position = np.array([3.05, 0.0])
    commands = arm.run(20)
    assert (np.abs(commands) <= 2.97).all()
    assert commands[0, 0] == 2.97


def test_a_wheel_that_is_measured_too_fast_is_told_no_speed_above_its_limit() -> None:
    arm = wheels(0.5, following_limit=0.5)
    arm.stuck = True
    arm.position = np.array([1e6, 0.0])
    assert len(arm.run(5)) == 0
    arm.position = np.array([1.2, 0.0])
    assert np.abs(arm.run(3)).max() <= 0.8


def test_a_channel_refuses_what_is_outside_of_its_range() -> None:
    arm = Arm()
    channel = replace(arm.loop.assembler._channels[1], lower=(-0.1,), upper=(0.5,))
    arm.loop.assembler.__init__((arm.loop.assembler._channels[0], channel))  # type: ignore[misc]
    arm.run(5)
    refused = arm.loop.counts['refused_observations']
    for value in (0.6, -0.2, np.nan):
        arm.loop.push_observation('tool', arm.said.now, np.array([value]))
    assert arm.loop.counts['refused_observations'] == refused + 3
    assert 'tool.z is -0.2 on tool, expected -0.1 to 0.5' in arm.said.warnings


# --- a robot that does not follow


def test_an_arm_that_is_stuck_is_held_then_a_fault_and_teaches_nothing() -> None:
    arm = Arm()
    arm.run(5)
    arm.stuck = True
    commands = arm.run(40)
    assert np.abs(commands - arm.position).max() <= ARM.following_limit.max() + STEP
    assert len(arm.said.faults) == 1
    assert 'the robot does not follow' in arm.said.faults[0]
    assert len(arm.said.transitions) <= 5 + ARM.following_limit.max() / STEP + 1


def wheels(target: float, following_limit: float = 0.2) -> Arm:
    spec = ActionSpec(
        NAMES,
        np.full(2, -0.8),
        np.full(2, 0.8),
        np.full(2, 0.05),
        MEASURED,
        units=('m/s', 'rad/s'),
        following_limit=np.full(2, following_limit),
    )
    return Arm(target=target, spec=spec)


def test_a_wheel_that_is_stuck_is_not_let_go_for_ever() -> None:
    robot = wheels(0.5)
    robot.stuck = True
    commands = robot.run(200)
    assert len(robot.said.faults) == 1
    assert 'nor does it move when it is told again' in robot.said.faults[0]
    assert not commands[-1].any()


def test_a_wheel_that_is_stuck_is_found_while_the_other_one_turns() -> None:
    robot, turned = wheels(0.5), 0.0
    robot.stuck = True
    for _ in range(200):
        sent = robot.run(1)
        turned = sent[-1][1] if len(sent) else turned
        robot.position = np.array([0.0, turned])
    assert "'a.position' was told" in robot.said.faults[0]


@pytest.mark.parametrize('lag', [3, 6])
def test_a_robot_that_follows_late_and_often_turns_back_is_not_given_up(lag: int) -> None:
    robot, told = wheels(0.5), deque([np.zeros(2)] * lag)
    robot.stuck = True
    for step in range(400):
        robot.target = 0.5 if step % 80 < 40 else -0.5
        sent = robot.run(1)
        told.append(sent[-1] if len(sent) else told[-1])
        robot.position = robot.position + 0.3 * (told.popleft() - robot.position)
    assert robot.said.warnings
    assert robot.said.faults == []


def test_a_wheel_that_gives_way_each_time_goes_on() -> None:
    robot = wheels(0.5)
    for _ in range(8):
        robot.stuck = True
        robot.run(8)
        robot.stuck = False
        robot.run(12)
    assert robot.said.faults == []
    assert robot.said.warnings


def test_an_arm_that_is_freed_in_time_goes_on() -> None:
    arm = Arm()
    arm.run(5)
    arm.stuck = True
    arm.run(13)
    assert arm.said.warnings
    arm.stuck = False
    arm.run(3)
    made = len(arm.said.transitions)
    arm.run(10)
    assert arm.said.faults == []
    assert len(arm.said.transitions) > made + 5


def test_an_operator_cannot_push_an_arm_that_is_stuck() -> None:
    arm = Arm()
    arm.run(5)
    arm.loop.set_takeover(True)
    arm.stuck = True
    sent = []
    for _ in range(40):
        arm.loop.receive_takeover(np.full(2, 2.0))
        sent.append(arm.run(1))
    assert np.abs(np.vstack(sent) - arm.position).max() <= ARM.following_limit.max() + STEP
    assert len(arm.said.faults) == 1


# --- where an episode begins


def test_an_episode_whose_first_command_is_far_away_waits() -> None:
    arm = Arm(target=2.9)
    arm.position = np.array([-0.5, -0.5])
    assert len(arm.run(30)) == 0
    assert (
        "not starting: 'a.position' is at -0.5, and the first command is 2.9"
        in (arm.said.warnings[0])
    )
    assert arm.loop.counts['refused_starts'] == 3  # Twice a second.
    assert (arm.said.faults, arm.said.transitions, arm.loop.episode) == ([], [], -1)


def test_to_wait_for_a_start_is_no_hold_that_becomes_a_fault() -> None:
    arm = Arm(target=2.9, hold_limit_s=0.2)
    arm.position = np.array([-0.5, -0.5])
    arm.loop.controller._chunk_timeout_s = 0.0  # Each attempt waits a tick for its first chunk.
    for _ in range(60):
        arm.run(1)
        settle(arm.loop.controller.queue)
    assert arm.loop.counts['refused_starts'] > 2
    assert arm.said.faults == []


def test_an_operator_confirms_a_start_that_waits() -> None:
    arm = Arm(target=2.9, auto_start=False)
    arm.position = there = np.full(2, -0.5)
    arm.loop.request_start()
    assert len(arm.run(5)) == 0
    assert arm.loop.waits_to_start
    assert arm.loop.request_start()
    commands = np.vstack([there, arm.run(10)])
    assert len(commands) == 11
    assert np.abs(np.diff(commands, axis=0)).max() <= STEP + 1e-12
    assert arm.loop.episode == 0


def test_a_robot_that_is_brought_to_the_start_begins() -> None:
    arm = Arm(target=2.9)
    arm.run(5)
    arm.position = np.full(2, 2.8)
    assert len(arm.run(15)) > 0
    assert arm.said.faults == []


# --- who may move the robot


@pytest.mark.parametrize('taken_over', [True, False])
def test_between_episodes_a_command_that_may_not_be_sent_is_a_fault(taken_over: bool) -> None:
    """An operator's, and one on the way home."""
    arm = Arm(auto_start=False)
    arm.loop.preparation = Mock(fault='', **{'step.return_value': np.zeros(2)})
    arm.loop.controller.limiter.limit = Mock(side_effect=UnsafeCommandError('none'))
    arm.loop.set_takeover(taken_over)
    arm.loop.receive_takeover(np.zeros(2))
    assert len(arm.run(3)) == 0
    assert arm.said.faults == ['none']


def test_a_hold_is_above_a_takeover_and_a_start() -> None:
    arm = Arm(auto_start=False)
    arm.loop.held = True
    arm.loop.request_start()
    arm.loop.set_takeover(True)
    for _ in range(5):
        arm.loop.receive_takeover(np.full(2, -0.3))
        assert len(arm.run(1)) == 0
    assert not arm.loop.in_episode
    arm.loop.held = False
    arm.loop.set_takeover(False)
    last = arm.run(10)[-1]
    arm.loop.held = True
    arm.loop.set_takeover(True)
    for _ in range(5):
        arm.loop.receive_takeover(np.full(2, -0.3))
        np.testing.assert_array_equal(arm.run(1), [last])


def test_a_stop_input_holds_at_once_then_is_a_fault() -> None:
    arm = Arm()
    last = arm.run(10)[-1]
    made = len(arm.said.transitions)
    arm.loop.obstacles.set_stop('safety', "stop input 'safety': safety_mode is 3")
    arm.loop.set_takeover(True)
    arm.loop.receive_takeover(np.full(2, -0.3))
    np.testing.assert_array_equal(arm.run(5), np.broadcast_to(last, (5, 2)))
    arm.run(10)
    assert len(arm.said.transitions) == made
    assert 'safety_mode is 3' in arm.said.faults[0]
    arm.loop.activate()
    assert len(arm.run(5)) == 0
    arm.loop.obstacles.set_stop('safety', '')
    arm.loop.set_takeover(False)
    assert len(arm.run(5)) > 0


@pytest.mark.parametrize(
    ('stop', 'values', 'expected'),
    [
        (StopInput('s', 't', 'x', 'data', bad=('true',)), [True, False], [True, False]),
        (StopInput('s', 't', 'x', 'mode', bad=('3', '4.0')), [3, 4, 5], [True, True, False]),
        (StopInput('s', 't', 'x', 'mode', bad=('LOST',)), ['lost', 'ok'], [True, False]),
        (StopInput('s', 't', 'x', 'f', limit=20.0), [-21.0, 19.0, np.nan], [True, False, True]),
    ],
)
def test_a_stop_input_says_stop(stop: StopInput, values: list, expected: list[bool]) -> None:
    assert [stop.says_stop(value) for value in values] == expected


# --- how it comes to rest


def test_slowing_down_ends_in_time_whatever_the_slew_limit() -> None:
    slow = ActionSpec(
        NAMES, np.full(2, -9.0), np.full(2, 9.0), np.full(2, 1e-3), units=('m/s', 'rad/s')
    )
    arm = Arm(target=9.0, spec=slow)
    arm.loop.controller.limiter.commit(np.full(2, 8.0))
    arm.run(3)
    sent = len(arm.said.commands)
    arm.loop.deactivate(arm.said.now)
    commands = np.array([command for _, command in arm.said.commands[sent:]])
    assert len(arm.said.slept) * PERIOD <= STOP_LIMIT_S
    np.testing.assert_array_equal(commands[-1], 0.0)
    assert (np.diff(commands, axis=0) <= 0.0).all()


def test_a_hold_of_mixed_actions_repeats_positions_and_ends_velocities() -> None:
    mixed = ActionSpec(
        NAMES, np.full(2, -1.0), np.full(2, 1.0), np.full(2, 0.125), units=('rad', 'rad/s')
    )
    arm = Arm(target=0.25, spec=mixed)
    last = arm.run(5)[-1]
    arm.loop.held = True
    np.testing.assert_allclose(arm.run(3), [[last[0], 0.125], [last[0], 0.0], [last[0], 0.0]])


@pytest.mark.parametrize(
    'decided',
    [
        np.array([np.nan, 0.5]),
        np.array([0.5, -np.inf]),
        np.array([0.0, 1.001]),
        np.zeros(3),
        np.zeros((1, 2)),
    ],
    ids=str,
)
def test_an_actor_that_decides_no_residual_is_the_base_alone(decided: np.ndarray) -> None:
    arm = Arm(target=0.1)
    controller = arm.loop.controller
    controller.mailbox.header = WeightsHeader(1, 1, Exploration())
    controller.mailbox.actor = Mock(decide=lambda *_: decided)
    commands = arm.run(20)
    np.testing.assert_allclose(commands[-1], 0.1)
    assert controller.residual.not_finite > 0
    assert {transition.source for transition in arm.said.transitions} == {Source.BASE}


def test_a_hung_base_policy_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = LinearPolicy()
    loop, said = real_time(policy, chunk_timeout_s=0.0, hold_limit_s=0.2)
    policy.gate.clear()
    loop.activate()
    for tick in range(20):
        said.now = tick * PERIOD
        loop.push_observation('arm', said.now, np.zeros(2))
        loop.push_observation('tool', said.now, np.zeros(1))
        if loop.active:
            loop.tick(said.now)
    assert 'has not planned its first chunk' in said.faults[0]
    monkeypatch.setattr('residual_rl_ros.robot.onnx_session.CLOSE_LIMIT_S', 0.05)
    loop.controller.queue.close()
    loop.close()
    policy.gate.set()
