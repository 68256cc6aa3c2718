# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where a robot goes on after a pause, and that nobody goes on who was not asked to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from arms import ARM, LIMIT, MEASURED, NAMES, STEP, Arm
from base_policy_builders import settle

from residual_rl_ros.control.command_limiter import CommandLimiter, start_reference
from residual_rl_ros.control.feedback import END_EPISODE
from residual_rl_ros.control.rotation import OrientationLimit
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.robot.action_spec import ActionSpec


@pytest.mark.parametrize(('unit', 'wanted'), [('rad/step', 0.0), ('N m', 0.5)])
def test_what_is_measured_of_increments_and_efforts_is_no_place_to_begin(
    unit: str, wanted: float
) -> None:
    arm = Arm(target=wanted, spec=replace(ARM, units=(unit, unit), hold=''))
    arm.position, arm.stuck = np.full(2, 1.3), True
    first = arm.run(30)
    assert np.abs(first[0]).max() <= STEP + 1e-12
    arm.loop.held = True
    held = arm.run(5)
    arm.loop.held = False
    again = arm.run(30)
    steps = np.diff(np.concatenate([first, held, again]), axis=0)
    assert np.abs(steps).max() <= STEP + 1e-12
    np.testing.assert_allclose(again[-1], wanted, atol=1e-6)
    assert arm.said.faults == []


def test_whoever_begins_with_increments_begins_at_zero_or_goes_on() -> None:
    safety = SafetyFilter(replace(ARM, units=('rad/step', 'rad'), hold=''))
    there = np.array([1.3, 0.7])
    assert start_reference(safety, there, None).tolist() == [0.0, 0.7]
    assert start_reference(safety, there, np.array([0.01, 0.7])).tolist() == [0.01, 0.7]
    limiter = CommandLimiter(safety, MEASURED)
    limiter.observe(there)
    reference = limiter.reference
    assert reference is not None
    assert reference.tolist() == [0.0, 0.7]


@pytest.mark.parametrize('pause', ['hold', 'takeover', 'late'])
def test_one_wrong_sample_at_the_end_of_a_pause_is_no_place_to_begin(pause: str) -> None:
    arm = Arm(target=0.0)
    arm.run(10)
    if pause == 'hold':
        arm.loop.held = True
        arm.run(5)
        arm.loop.held = False
    elif pause == 'takeover':
        arm.loop.set_takeover(True)
        arm.loop.receive_takeover(np.zeros(2))
        arm.run(5)
        arm.loop.set_takeover(False)
    else:
        arm.said.now += 1.2 * STEP
    arm.stuck, arm.position = True, np.array([2.0, 0.0])
    wrong = arm.run(1)
    arm.position = np.zeros(2)
    after = arm.run(20)
    np.testing.assert_array_equal(np.concatenate([wrong, after]), 0.0)
    assert arm.said.faults == []
    assert any('went from 0 to 2 in a control step' in said for said in arm.said.warnings) or (
        pause == 'late'
    )


def test_a_robot_that_was_put_elsewhere_goes_on_once_two_samples_agree() -> None:
    arm = Arm(target=0.0)
    arm.run(10)
    arm.loop.held = True
    arm.run(3)
    arm.loop.held = False
    arm.stuck, arm.position = True, np.array([2.0, 0.0])
    assert arm.run(1).tolist() == [[0.0, 0.0]]
    np.testing.assert_allclose(arm.run(1), [[2.0 - STEP, 0.0]])


@pytest.mark.parametrize('truncated', [True, False])
def test_an_operator_who_moves_a_stuck_robot_is_stopped_also_where_an_episode_is_to_end(
    truncated: bool,
) -> None:
    arm = Arm(target=0.0, spec=replace(ARM, following_limit=np.full(2, 0.1)))
    arm.policy.gate.set()
    arm.run(3)
    settle(arm.loop.controller.queue)
    arm.policy.gate.clear()
    arm.loop.controller._chunk_timeout_s = 0.0
    arm.loop.set_takeover(True)
    arm.stuck = True
    if truncated:
        arm.loop.end_episode(END_EPISODE, arm.said.now)
    furthest = 0.0
    for _ in range(30):
        last = arm.loop.controller.limiter.last_command
        arm.loop.receive_takeover((np.zeros(2) if last is None else last) + STEP)
        sent = arm.run(1)
        furthest = max(furthest, float(np.abs(sent).max(initial=0.0)))
    arm.policy.gate.set()
    assert furthest <= 0.1 + 2.0 * STEP
    (fault,) = arm.said.faults
    assert 'the robot does not follow' in fault


def test_a_turn_of_nothing_stays_where_it_is() -> None:
    action = ActionSpec(('x', 'y', 'z'), *(sign * np.full(3, 1.5) for sign in (-1, 1)), np.ones(3))
    turn = OrientationLimit(action, (0, 1, 2))
    turn.max_angle = 0.0
    here = np.array([0.3, -0.2, 0.1])
    np.testing.assert_array_equal(turn.step(here, here), here)
    near = here + 1e-17
    assert np.isfinite(turn.step(near, here)).all()


def test_actions_can_be_copied_whatever_each_holds_by() -> None:
    spec = ActionSpec(
        (*NAMES, 'grip'),
        np.append(-LIMIT, 0.0),
        np.append(LIMIT, 1.0),
        np.full(3, STEP),
        units=('rad', 'rad/s', '1'),
        hold=('', '', 'last'),
    )
    assert spec.hold == ('last', 'zero', 'last')
    assert replace(spec, workspace=None).goes_to_zero.tolist() == [False, True, False]


def test_a_robot_that_somebody_moves_between_episodes_gets_a_last_hold() -> None:
    arm = Arm(auto_start=False)
    arm.loop.set_takeover(True)
    arm.loop.receive_takeover(np.full(2, 0.01))
    arm.run(2)
    arm.loop.deactivate(arm.said.now)
    assert arm.said.holding[-2:] == [False, True]
    np.testing.assert_array_equal(arm.said.commands[-1][1], arm.said.commands[-2][1])


@pytest.mark.parametrize('ends', [True, False])
def test_nobody_waits_for_the_base_policy_where_an_operator_goes_on(ends: bool) -> None:
    arm = Arm(target=0.0, auto_start=False)
    arm.loop.request_start()
    arm.run(3)
    settle(arm.loop.controller.queue)
    arm.policy.gate.clear()
    arm.loop.controller._chunk_timeout_s = 0.0
    while not arm.loop.controller.hold_reason:
        arm.run(1)
    if ends:
        arm.loop.end_episode(END_EPISODE, arm.said.now)
    else:
        arm.loop.held = True
    arm.loop.set_takeover(True)
    arm.loop.receive_takeover(np.full(2, STEP))
    arm.run(2)
    arm.policy.gate.set()
    assert arm.loop.controller.hold_reason == ''
