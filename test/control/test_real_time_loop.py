# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a robot in real time does with what arrives, step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from base_policy_builders import LinearPolicy, settle, write_onnx_policy
from loop_builders import ACTION, PERIOD, Recorder, drive, feed, real_time, weights

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.control.feedback import END_EPISODE, MARK_FAILURE, MARK_SUCCESS, StepFeedback
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.transitions.feed import TransitionFeed
from residual_rl_ros.transitions.transition import Source, Success


def test_within_an_episode_commands_obey_the_slew_limit() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    loop.receive_weights(weights(loop, 1))
    loop.take_weights(wait=True)
    rng = np.random.default_rng(0)
    for step in range(200):
        callbacks.now = step * PERIOD
        feed(loop, callbacks.now, float(rng.normal(scale=20.0)))
        loop.tick(callbacks.now)
    commands = np.array([command for _, command in callbacks.commands])
    assert len(commands) == 200
    steps = np.abs(np.diff(commands, axis=0))
    assert (steps <= ACTION.max_step + 1e-12).all()
    assert (steps.max(0) > 0.9 * ACTION.max_step).all()
    assert loop.controller.limiter.safety.slew_limited > 0
    assert loop.controller.limiter.safety.clamped > 0


def test_a_stale_channel_holds_then_faults_and_the_last_command_stays() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    feed(loop, 0.0)
    loop.tick(0.0)
    last = callbacks.commands[-1][1]
    for step in range(1, 20):
        callbacks.now = step * PERIOD
        loop.push_observation('arm', callbacks.now, np.array([0.1, -0.1]))
        if loop.active:
            loop.tick(callbacks.now)
    assert "channel 'tool' is 0.250 s old, max_age_s is 0.2 s" in callbacks.warnings[0]
    assert len(callbacks.faults) == 1
    assert 'held for 0.5' in callbacks.faults[0]
    assert not loop.active
    held = [command for stamp, command in callbacks.commands if stamp > 0.2]
    assert loop.counts['holds'] > 0
    for command in held:
        np.testing.assert_array_equal(command, held[0])
    assert not np.isnan(last).any()


def test_an_outcome_that_is_given_during_a_hold_is_learned_from() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    now = drive(loop, 0.0, 10)
    loop.held = True
    now = drive(loop, now, 5)
    made = len(callbacks.transitions)
    assert loop.end_episode(MARK_SUCCESS, now)
    drive(loop, now, 1)
    assert len(callbacks.transitions) == made + 1
    last = callbacks.transitions[-1]
    assert (last.terminated, last.success, last.reward) == (True, Success.SUCCESS, 1.0)
    np.testing.assert_array_equal(last.executed_action, callbacks.commands[-1][1])
    assert not last.residual_action.any()


def test_the_time_of_a_hold_is_one_missing_decision() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    now = drive(loop, 0.0, 10)
    loop.held = True
    now = drive(loop, now, 100)
    loop.held = False
    drive(loop, now, 10)
    layout = loop.controller.layout
    received = TransitionFeed('')
    for transition in callbacks.transitions:
        received.decode(layout, layout.encode(transition), layout.label, 1)
    assert received.counts['missing'] == 1


@pytest.mark.parametrize('ticks', [3, 20], ids=['soon there', 'after the sensors are stale'])
def test_the_end_of_an_episode_does_not_wait_for_a_late_base_policy(ticks: int) -> None:
    policy = LinearPolicy()
    loop, callbacks = real_time(policy, hold_limit_s=10.0)
    loop.activate()
    now = drive(loop, 0.0, policy.metadata.exec_steps)  # The next decision needs a new chunk.
    loop.controller._chunk_timeout_s = 0.0
    policy.gate.clear()
    sent = len(callbacks.transitions)
    reward = StepFeedback(0.5, False, True, Success.SUCCESS)
    loop.end_episode(reward, now)
    callbacks.now = now = drive(loop, now, ticks)
    assert loop.counts['holds'] == ticks
    policy.gate.set()
    settle(loop.controller.queue)
    drive(loop, now, 1)
    assert not loop.in_episode
    assert len(callbacks.transitions) == sent + 1
    last = callbacks.transitions[-1]
    assert (last.reward, last.truncated, last.success) == (0.5, True, Success.SUCCESS)


def late_end(hold_limit_s: float = 10.0) -> tuple[RealTimeLoop, Recorder, LinearPolicy, float]:
    """Return a loop whose episode was truncated while the base policy is late, and the time."""
    policy = LinearPolicy()
    loop, callbacks = real_time(policy, hold_limit_s=hold_limit_s, auto_start=False)
    loop.activate()
    loop.request_start()
    now = drive(loop, 0.0, policy.metadata.exec_steps)
    loop.controller._chunk_timeout_s = 0.0
    policy.gate.clear()
    loop.end_episode(END_EPISODE, now)
    return loop, callbacks, policy, drive(loop, now, 1)


def chunk_arrives(loop: RealTimeLoop, policy: LinearPolicy) -> None:
    policy.gate.set()
    settle(loop.controller.queue)


def test_a_late_end_is_told_with_the_observation_of_the_end() -> None:
    loop, callbacks, policy, now = late_end()
    for _ in range(3):  # A simulator has put the robot back meanwhile.
        feed(loop, now, 0.9)
        loop.tick(now)
        now += PERIOD
    chunk_arrives(loop, policy)
    loop.tick(now)
    np.testing.assert_allclose(callbacks.transitions[-1].next_observation, [0.1, -0.1, 0.5])


def test_a_mark_while_an_end_is_late_counts() -> None:
    loop, callbacks, policy, now = late_end()
    assert loop.end_episode(MARK_SUCCESS, now)
    drive(loop, now, 1)
    last = callbacks.transitions[-1]
    assert (last.terminated, last.success, last.reward) == (True, Success.SUCCESS, 0.0)
    assert not loop.in_episode
    chunk_arrives(loop, policy)


def test_an_operator_moves_the_robot_while_an_end_is_late() -> None:
    loop, callbacks, policy, now = late_end()
    loop.set_takeover(True)
    loop.receive_takeover(callbacks.commands[-1][1] + 0.01)
    before = callbacks.commands[-1][1]
    now = drive(loop, now, 1)
    np.testing.assert_allclose(callbacks.commands[-1][1], before + 0.01)
    chunk_arrives(loop, policy)
    drive(loop, now, 1)
    assert callbacks.transitions[-1].source is Source.BASE


def test_an_old_hold_is_no_fault_of_the_next_episode() -> None:
    loop, callbacks, policy, now = late_end(hold_limit_s=1.0)
    chunk_arrives(loop, policy)
    now = drive(loop, now, 1)
    policy.gate.clear()
    now += 60.0
    loop.request_start()
    drive(loop, now, 2)
    assert loop.in_episode
    assert callbacks.faults == []
    policy.gate.set()


def test_an_end_that_was_marked_without_sensors_counts_and_nothing_stays_behind() -> None:
    loop, callbacks = real_time(LinearPolicy(), hold_limit_s=10.0)
    loop.activate()
    now = drive(loop, 0.0, 3) + 1.0  # The sensors fell silent.
    loop.tick(now)
    loop.end_episode(MARK_FAILURE, now)
    loop.tick(now + PERIOD)
    assert not loop.in_episode
    assert callbacks.transitions[-1].success is Success.FAILURE
    sent = len(callbacks.commands)
    drive(loop, now + 2 * PERIOD, 3)
    assert loop.in_episode
    assert len(callbacks.commands) >= sent + 3


def test_what_was_asked_for_before_a_deactivation_is_forgotten() -> None:
    loop, callbacks = real_time(LinearPolicy(), auto_start=False)
    loop.activate()
    loop.request_start()
    drive(loop, 0.0, 3)
    loop.end_episode(MARK_SUCCESS, 3 * PERIOD)
    loop.set_takeover(True)
    loop.receive_takeover(np.array([0.2, 0.2]))
    loop.deactivate(3 * PERIOD)
    loop.request_start()
    sent = len(callbacks.commands)
    loop.activate()
    now = drive(loop, 1.0, 3)
    assert len(callbacks.commands) == sent
    loop.request_start()
    now = drive(loop, now, 2)
    assert len(callbacks.commands) == sent  # The operator has not commanded since.
    loop.set_takeover(False)
    drive(loop, now, 1)
    assert len(callbacks.commands) == sent + 1


def test_a_reward_that_no_learner_takes_is_refused() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    loop.receive_feedback(np.array([0.0, 1e31, 0.0, 0.0, -1.0]))
    assert loop.counts['refused_feedback'] == 1
    assert 'rewards up to 1e+06' in callbacks.warnings[-1]


def test_a_base_policy_whose_runtime_fails_is_a_fault_that_says_why(tmp_path: Path) -> None:
    write_onnx_policy(tmp_path / 'policy.onnx')
    policy = OnnxBasePolicy(tmp_path / 'policy.onnx')
    loop, callbacks = real_time(policy)  # type: ignore[arg-type]
    loop.activate()
    now = drive(loop, 0.0, 3)
    policy._session = None  # type: ignore[assignment]
    while loop.active:
        now = drive(loop, now, 1)
    assert len(callbacks.faults) == 1
    assert 'policy.onnx failed' in callbacks.faults[0]
    assert not loop.active


def test_a_hold_goes_out_before_the_last_transition() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    now = drive(loop, 0.0, 3)
    loop._outbox.append(callbacks.transitions[-1])
    order: list[str] = []
    callbacks.send_command = lambda *told: order.append('command')  # type: ignore[method-assign]
    callbacks.send_transition = lambda transition: order.append('transition')  # type: ignore[method-assign]
    loop.deactivate(now)
    assert order == ['command', 'transition']


def test_a_late_base_policy_holds_and_recovers() -> None:
    policy = LinearPolicy()
    loop, callbacks = real_time(policy, chunk_timeout_s=0.0, hold_limit_s=10.0)
    loop.activate()
    policy.gate.clear()
    for step in range(3):
        feed(loop, step * PERIOD)
        loop.tick(step * PERIOD)
    assert callbacks.commands == []  # Nothing was sent yet, so there is nothing to repeat.
    assert (loop.controller.first_chunk_holds, loop.controller.late_chunks) == (3, 0)
    policy.gate.set()
    loop.controller._chunk_timeout_s = 10.0
    feed(loop, 3 * PERIOD)
    loop.tick(3 * PERIOD)
    assert len(callbacks.commands) == 1
    assert callbacks.faults == []


@pytest.mark.parametrize('pause', [False, True], ids=['in a new episode', 'after a hold'])
def test_a_base_policy_that_hangs_at_its_first_chunk_is_told_of_long_before_the_fault(
    pause: bool,
) -> None:
    policy = LinearPolicy()
    loop, callbacks = real_time(policy, chunk_timeout_s=0.0, hold_limit_s=2.0)
    loop.activate()
    now = 0.0
    if pause:
        loop.controller._chunk_timeout_s = 10.0
        now = drive(loop, now, 5)
        loop.controller._chunk_timeout_s = 0.0
        loop.held = True
        now = drive(loop, now, 1)
        loop.held = False
    policy.gate.clear()
    now = drive(loop, now, 9)
    assert callbacks.warnings == []  # One inference is usual.
    callbacks.now = drive(loop, now, 9)
    assert set(callbacks.warnings) == {'the base policy has not planned its first chunk'}
    assert callbacks.faults == []
    while loop.active:
        callbacks.now = drive(loop, callbacks.now, 1)
    assert 'held for 2.0' in callbacks.faults[0]
    policy.gate.set()
    loop.controller.queue.close()


def test_marks_close_the_episode_with_their_outcome_and_the_next_needs_newer_sensors() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    for step in range(4):
        feed(loop, step * PERIOD)
        loop.tick(step * PERIOD)
    assert loop.end_episode(MARK_SUCCESS, 3.5 * PERIOD)
    loop.tick(4 * PERIOD)
    assert not loop.in_episode
    last = callbacks.transitions[-1]
    assert (last.reward, last.terminated, last.success) == (1.0, True, Success.SUCCESS)
    loop.tick(5 * PERIOD)  # Nothing new was seen since the end.
    assert not loop.in_episode
    feed(loop, 5.5 * PERIOD)
    loop.tick(6 * PERIOD)
    assert (loop.in_episode, loop.episode) == (True, 1)


def test_a_takeover_replaces_the_action_in_the_next_tick_and_the_residual_fades_in_again() -> None:
    loop, callbacks = real_time(LinearPolicy(), ramp_s=1.0)
    loop.activate()
    feed(loop, 0.0, a=0.0)
    loop.tick(0.0)
    loop.set_takeover(True)
    loop.receive_takeover(np.array([0.05, 0.02]))
    for step in range(1, 3):
        feed(loop, step * PERIOD, a=0.0)
        loop.tick(step * PERIOD)
    np.testing.assert_allclose(callbacks.commands[-1][1], [0.05, 0.02])
    feed(loop, 3 * PERIOD)
    loop.set_takeover(False)
    loop.tick(3 * PERIOD)
    assert loop.controller.residual.blend_ratio == 0.0
    assert callbacks.transitions[-1].source is Source.TAKEOVER
