# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A robot that holds stays where it is, also one that is told velocities; and an operator wins."""

from __future__ import annotations

from typing import Any

import numpy as np
from base_policy_builders import LinearPolicy, settle
from loop_builders import ACTION, PERIOD, Recorder, drive, feed, real_time, weights

from residual_rl_ros.control.feedback import END_EPISODE, MARK_SUCCESS
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.errors import CommandError
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.transitions.transition import Source, Success

SPEED = 0.375
BASE_ROBOT = ActionSpec(
    names=ACTION.names,
    lower=np.full(2, -0.4),
    upper=np.full(2, 0.4),
    max_step=np.full(2, 0.125),
    units=('m/s', 'rad/s'),
    hold='zero',
)
SLOWING_DOWN = [0.25, 0.125, 0.0]


def constant(speed: float = SPEED) -> LinearPolicy:
    """Return a base policy that always wants the same."""
    policy = LinearPolicy()
    policy.infer = lambda window, noise=None: gated(policy, speed)  # type: ignore[method-assign]
    return policy


def gated(policy: LinearPolicy, speed: float) -> np.ndarray:
    assert policy.gate.wait(30.0)
    return np.full(policy.noise_shape, speed, dtype=np.float32)


def rolling(**changes: Any) -> tuple[RealTimeLoop, Recorder, LinearPolicy, float]:
    """Return a mobile base at full speed, with its policy and the time."""
    policy = constant()
    loop, callbacks = real_time(policy, action=BASE_ROBOT, hold_limit_s=10.0, **changes)
    loop.activate()
    loop.request_start()
    now = drive(loop, 0.0, 8)
    np.testing.assert_allclose(callbacks.commands[-1][1], SPEED)
    return loop, callbacks, policy, now


def newest(callbacks: Recorder, count: int = 3) -> np.ndarray:
    commands = np.array([command for _, command in callbacks.commands[-count:]])
    np.testing.assert_array_equal(commands[:, 0], commands[:, 1])
    return commands[:, 0]


def be_late(loop: RealTimeLoop, policy: LinearPolicy) -> None:
    loop.controller._chunk_timeout_s = 0.0
    policy.gate.clear()
    loop.controller.queue.forget()


# --- velocities


def test_a_mobile_base_slows_down_when_an_operator_holds_it() -> None:
    loop, callbacks, _, now = rolling()
    loop.held = True
    drive(loop, now, 3)
    np.testing.assert_allclose(newest(callbacks), SLOWING_DOWN, atol=1e-12)
    loop.held = False
    drive(loop, now + 3 * PERIOD, 1)
    np.testing.assert_allclose(callbacks.commands[-1][1], 0.125)


def test_a_mobile_base_slows_down_without_sensors() -> None:
    loop, callbacks, _, now = rolling()
    for tick in range(3):
        loop.tick(now + 1.0 + tick * PERIOD)
    np.testing.assert_allclose(newest(callbacks), SLOWING_DOWN, atol=1e-12)


def test_a_mobile_base_slows_down_while_the_base_policy_is_late() -> None:
    loop, callbacks, policy, now = rolling()
    loop.controller.abandon()
    be_late(loop, policy)
    drive(loop, now, 3)
    np.testing.assert_allclose(newest(callbacks), SLOWING_DOWN, atol=1e-12)
    policy.gate.set()


def test_a_mobile_base_comes_to_rest_between_episodes_and_is_told_no_more() -> None:
    loop, callbacks, _, now = rolling(auto_start=False)
    loop.end_episode(END_EPISODE, now)
    sent = len(callbacks.commands)
    now = drive(loop, now, 10)
    assert not loop.in_episode
    assert len(callbacks.commands) == sent + 3
    np.testing.assert_allclose(newest(callbacks), SLOWING_DOWN, atol=1e-12)


def test_a_mobile_base_is_at_rest_before_its_node_stops() -> None:
    loop, callbacks, _, now = rolling()
    loop.deactivate(now)
    np.testing.assert_allclose(newest(callbacks), SLOWING_DOWN, atol=1e-12)
    assert [stamp for stamp, _ in callbacks.commands[-3:]] == [now, now + PERIOD, now + 2 * PERIOD]
    assert callbacks.slept == [PERIOD, PERIOD]
    assert not loop.active


def test_a_command_that_cannot_be_sent_is_a_fault_and_what_can_be_sent_comes_to_rest() -> None:
    loop, callbacks, _, now = rolling()
    send, callbacks.now = callbacks.send_command, now

    def send_but_one(*told: Any, **named: Any) -> None:
        send(*told, **named)
        raise CommandError('the codec failed')

    callbacks.send_command = send_but_one  # type: ignore[method-assign]
    drive(loop, now, 1)
    assert callbacks.faults == ['the codec failed']
    np.testing.assert_allclose(newest(callbacks), SLOWING_DOWN, atol=1e-12)
    assert callbacks.warnings[-3:] == ['the codec failed'] * 3
    assert not loop.active


def test_a_mobile_base_is_at_rest_after_a_fault() -> None:
    loop, callbacks, _, now = rolling()
    callbacks.now = now
    loop.controller.queue._policy.infer = lambda *_: np.full((6, 2), np.nan)  # type: ignore[method-assign]
    loop.controller.abandon()
    drive(loop, now, 1)
    assert callbacks.faults
    np.testing.assert_allclose(newest(callbacks), SLOWING_DOWN, atol=1e-12)


def test_a_new_episode_does_not_forget_that_a_mobile_base_still_rolls() -> None:
    loop, callbacks, policy, now = rolling()
    loop.end_episode(END_EPISODE, now)
    now = drive(loop, now, 1)
    be_late(loop, policy)
    drive(loop, now, 3)
    assert loop.in_episode
    np.testing.assert_allclose(newest(callbacks), [0.125, 0.0, 0.0], atol=1e-12)
    policy.gate.set()


def test_an_arm_holds_by_its_last_command() -> None:
    loop, callbacks = real_time(constant(), hold_limit_s=10.0)
    loop.activate()
    now = drive(loop, 0.0, 8)
    loop.deactivate(now)
    np.testing.assert_array_equal(callbacks.commands[-1][1], callbacks.commands[-2][1])
    assert callbacks.slept == []


# --- an operator


def take_over(loop: RealTimeLoop, *command: float) -> None:
    loop.set_takeover(True)
    loop.receive_takeover(np.array(command))


def test_an_operator_who_commands_while_the_base_policy_is_late_is_no_hold() -> None:
    policy = constant(0.1)
    loop, callbacks = real_time(policy, hold_limit_s=0.2, takeover_timeout_s=10.0)
    loop.activate()
    now = drive(loop, 0.0, 4)
    be_late(loop, policy)
    take_over(loop, 0.15, 0.12)
    holds = loop.counts['holds']
    callbacks.now = now = drive(loop, now, 20)
    np.testing.assert_allclose(callbacks.commands[-1][1], [0.15, 0.12])
    assert (loop.counts['holds'], callbacks.faults) == (holds, [])
    assert loop.controller.late_chunks == 0
    policy.gate.set()
    settle(loop.controller.queue)


def test_an_operator_moves_a_robot_whose_sensors_are_stale() -> None:
    loop, callbacks = real_time(constant(0.1), hold_limit_s=0.2)
    loop.activate()
    now = drive(loop, 0.0, 4) + 1.0
    take_over(loop, 0.3, 0.12)
    made, holds = len(callbacks.transitions), loop.counts['holds']
    for tick in range(10):
        callbacks.now = now + tick * PERIOD
        loop.tick(callbacks.now)
    commands = np.array([command for _, command in callbacks.commands[-10:]])
    np.testing.assert_allclose(commands[:2, 0], [0.2, 0.3])  # Through the slew limit.
    assert (loop.counts['holds'], callbacks.faults) == (holds, [])
    assert len(callbacks.transitions) == made
    loop.set_takeover(False)
    for tick in range(10, 20):
        callbacks.now = now + tick * PERIOD
        if loop.active:
            loop.tick(callbacks.now)
    assert len(callbacks.faults) == 1


def test_an_operator_moves_the_robot_between_episodes_from_where_it_is() -> None:
    measured = ActionSpec(
        ACTION.names,
        ACTION.lower,
        ACTION.upper,
        ACTION.max_step,
        ('arm.position.a', 'tool.z'),
        following_limit=10.0 * ACTION.max_step,
    )
    loop, callbacks = real_time(constant(0.1), auto_start=False, action=measured)
    loop.activate()
    take_over(loop, 0.25, 0.2)
    loop.tick(0.0)
    assert callbacks.commands == []  # Nobody knows where the robot is.
    drive(loop, PERIOD, 3)
    assert not loop.in_episode
    commands = np.array([command for _, command in callbacks.commands])
    np.testing.assert_allclose(commands[:, 0], [0.2, 0.25, 0.25])
    assert callbacks.transitions == []
    assert loop.counts['holds'] == 0
    loop.set_takeover(False)
    drive(loop, 4 * PERIOD, 3)
    assert callbacks.holding == [False] * 3 + [True]  # What moves a gripper must be told once.
    np.testing.assert_array_equal(callbacks.commands[3][1], callbacks.commands[2][1])


def test_an_operator_goes_on_in_the_tick_that_ends_the_episode() -> None:
    loop, callbacks = real_time(constant(0.0), auto_start=False)
    loop.activate()
    loop.request_start()
    now = drive(loop, 0.0, 4)
    take_over(loop, 0.2, 0.15)
    now = drive(loop, now, 1)
    loop.end_episode(MARK_SUCCESS, now)
    holds = loop.counts['holds']
    drive(loop, now, 2)
    commands = np.array([command for _, command in callbacks.commands[-3:]])
    np.testing.assert_allclose(commands, [[0.1, 0.05], [0.2, 0.1], [0.2, 0.15]])
    assert loop.counts['holds'] == holds
    assert callbacks.transitions[-1].source is Source.TAKEOVER


def test_a_mobile_base_whose_operator_falls_silent_slows_down() -> None:
    loop, callbacks, _, now = rolling(takeover_timeout_s=2.5 * PERIOD)
    loop.set_takeover(True)
    loop.receive_takeover(np.full(2, SPEED))
    now = drive(loop, now, 3)
    np.testing.assert_allclose(callbacks.commands[-1][1], SPEED)
    drive(loop, now, 3)
    np.testing.assert_allclose(newest(callbacks), SLOWING_DOWN, atol=1e-12)
    assert loop.taken_over
    assert 'the operator has said nothing' in callbacks.warnings[-1]


def test_what_goes_on_is_said_in_words() -> None:
    loop, _ = real_time(constant(0.0), auto_start=False)
    loop.activate()
    now = drive(loop, 0.0, 2)
    assert loop.state == 'no episode: ~/start_episode begins one'
    loop.request_start()
    now = drive(loop, now, 2)
    assert loop.state == 'running'
    loop.set_takeover(True)
    assert loop.state == 'an operator has the robot'
    loop.set_held(True)
    assert loop.state == 'held by an operator'


def test_an_operator_who_took_over_and_never_said_anything_is_told() -> None:
    loop, callbacks, _, now = rolling(takeover_timeout_s=2.5 * PERIOD)
    loop.set_takeover(True)
    now = drive(loop, now, 3)
    assert callbacks.warnings == []
    drive(loop, now, 3)
    np.testing.assert_allclose(callbacks.commands[-1][1], 0.0, atol=1e-12)
    assert callbacks.warnings == ['the operator has said nothing for 0.125 s: holding']


def test_an_outcome_that_an_operator_reached_without_sensors_is_a_takeover() -> None:
    loop, callbacks = real_time(constant(0.0), hold_limit_s=10.0)
    loop.activate()
    now = drive(loop, 0.0, 4) + 1.0
    take_over(loop, 0.05, 0.05)
    loop.tick(now)
    loop.end_episode(MARK_SUCCESS, now)
    loop.tick(now + PERIOD)
    last = callbacks.transitions[-1]
    assert (last.source, last.success) == (Source.TAKEOVER, Success.SUCCESS)
    np.testing.assert_allclose(last.executed_action, 0.05)


def test_after_a_takeover_the_rest_of_the_decision_is_the_base_alone() -> None:
    loop, callbacks = real_time(constant(0.0), decision_steps=4, ramp_s=1.0)
    loop.activate()
    loop.receive_weights(weights(loop, 1, gain=50.0))
    loop.take_weights(wait=True)
    loop._blend.duration_s = 0.0
    now = drive(loop, 0.0, 1)
    assert np.abs(callbacks.commands[-1][1]).max() > 0.01
    loop._blend.duration_s = 1.0
    take_over(loop, 0.01, 0.01)
    now = drive(loop, now, 1)
    loop.set_takeover(False)
    now = drive(loop, now, 2)
    np.testing.assert_array_equal(newest(callbacks, 2), 0.0)
    feed(loop, now)
    loop.tick(now)
    executed = callbacks.transitions[-1].executed_action.reshape(4, 2)
    np.testing.assert_array_equal(executed[2:], 0.0)


def test_a_decision_that_was_executed_is_not_the_operators() -> None:
    """An operator moves the robot while its next chunk is late: no transition claims that."""
    policy = constant(0.0)
    loop, callbacks = real_time(policy, hold_limit_s=10.0)
    loop.activate()
    now = drive(loop, 0.0, policy.metadata.exec_steps)
    be_late(loop, policy)
    now = drive(loop, now, 1)
    assert loop.controller.in_decision
    take_over(loop, 0.05, 0.05)
    now = drive(loop, now, 2)
    loop.set_takeover(False)
    policy.gate.set()
    settle(loop.controller.queue)
    loop.controller._chunk_timeout_s = 10.0
    drive(loop, now, 3)
    assert [t.source for t in callbacks.transitions] == [Source.BASE] * len(callbacks.transitions)
    steps = [t.step for t in callbacks.transitions]
    assert steps == [0, 1, 2, 4, 5]  # The gap is where the operator moved the robot.


def test_a_hold_that_ended_between_episodes_does_not_count_for_the_next() -> None:
    """A stop input ends a way home for one tick; a minute later the first chunk is late."""
    policy = constant(0.0)
    loop, callbacks = real_time(policy, auto_start=False, hold_limit_s=0.5)
    loop.activate()
    now = drive(loop, 0.0, 2)
    loop._hold(now, 'stop input gate')
    now = drive(loop, now, 1200)
    policy.gate.clear()
    be_late(loop, policy)
    loop.request_start()
    drive(loop, now, 6)
    policy.gate.set()
    assert loop.in_episode
    assert not callbacks.faults


def test_the_first_decision_of_an_episode_fades_in_too() -> None:
    loop, _ = real_time(constant(0.0), ramp_s=10.0)
    loop._blend.ceiling = 0.2
    loop.activate()
    loop.receive_weights(weights(loop, 1, gain=50.0))
    loop.take_weights(wait=True)
    now = drive(loop, 0.0, 1)
    commanded = loop.controller.commanded()
    assert commanded is not None
    assert commanded.bound_scale == 0.0
    for _ in range(20):
        now = drive(loop, now, 1)
        commanded = loop.controller.commanded()
        assert commanded is not None
        assert commanded.bound_scale <= 0.2 * now / 10.0


def test_a_residual_that_is_switched_on_fades_in() -> None:
    loop, callbacks = real_time(constant(0.0), ramp_s=1.0)
    loop.activate()
    loop.receive_weights(weights(loop, 1, gain=50.0))
    loop.take_weights(wait=True)
    loop.enable_residual(False)
    now = drive(loop, 0.0, 40)
    np.testing.assert_array_equal(callbacks.commands[-1][1], 0.0)
    loop.enable_residual(True)
    shares = []
    for _ in range(22):
        now = drive(loop, now, 1)
        commanded = loop.controller.commanded()
        assert commanded is not None
        shares.append(commanded.bound_scale)
    assert shares[0] == 0.0
    assert max(np.diff(shares)) <= 0.051
    assert shares[-1] == 1.0
    loop.enable_residual(True)  # It is on: nothing begins anew.
    drive(loop, now, 1)
    commanded = loop.controller.commanded()
    assert commanded is not None
    assert commanded.bound_scale == 1.0


def test_a_decision_that_ends_in_slowing_down_is_no_transition() -> None:
    loop, callbacks, policy, now = rolling()
    now = drive(loop, now, 8)
    loop.controller._chunk_timeout_s = 0.0
    policy.gate.clear()
    for _ in range(20):
        now = drive(loop, now, 1)
        if loop.controller.late_chunks:
            break
    told = len(callbacks.transitions)
    now = drive(loop, now, 4)
    loop.controller._chunk_timeout_s = None
    policy.gate.set()
    drive(loop, now, 3)
    assert len(callbacks.transitions) > told
    before, after = callbacks.transitions[told - 1 : told + 1]
    assert after.step - before.step > loop.controller.layout.decision_steps  # One is missing.
