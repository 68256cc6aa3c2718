# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Clocks jump, differ and stand still; the robot goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from base_policy_builders import LinearPolicy
from loop_builders import PERIOD, drive, feed, real_time
from robot_builders import make_action_spec, make_metadata

from residual_rl_ros.base_policy.prefetch import AUTO
from residual_rl_ros.base_policy.received_policy import ReceivedPolicy, ReceivedQueue
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.control.command_limiter import CommandLimiter
from residual_rl_ros.control.feedback import END_EPISODE, MARK_FAILURE, MARK_SUCCESS
from residual_rl_ros.control.gates import RealTimeRules
from residual_rl_ros.control.obstacles import Obstacles
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.transitions.transition import Success


@pytest.mark.parametrize('stamp', [1e300, -1e300, 2.0**40])
def test_feedback_with_a_stamp_of_no_clock_is_refused(stamp: float) -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    loop.receive_feedback(np.array([stamp, 0.0, 0.0, 0.0, -1.0]))
    assert loop.counts['refused_feedback'] == 1
    assert 'stamps up to' in callbacks.warnings[-1]


@pytest.mark.parametrize('jump', [-10.0, 10.0])
def test_a_clock_that_jumps_is_held_through_and_recovered_from(jump: float) -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    for step in range(3):
        feed(loop, 100.0 + step * PERIOD)
        loop.tick(100.0 + step * PERIOD)
    sent = callbacks.commands[-1][1]
    now = 100.0 + 3 * PERIOD + jump
    loop.tick(now)  # What is held is of another time.
    np.testing.assert_array_equal(callbacks.commands[-1][1], sent)
    assert loop.counts['holds'] == 1
    before = len(callbacks.transitions)
    for step in range(1, 4):
        feed(loop, now + step * PERIOD)
        loop.tick(now + step * PERIOD)
    assert loop.counts['holds'] == 1
    assert len(callbacks.transitions) == before + 2
    assert callbacks.faults == []
    assert loop.end_episode(MARK_FAILURE, now + 3.5 * PERIOD)
    for step in range(4, 6):
        feed(loop, now + step * PERIOD)
        loop.tick(now + step * PERIOD)
    assert (loop.episode, loop.in_episode) == (1, True)


def test_a_stamp_in_the_future_does_not_freeze_a_channel() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    feed(loop, 0.0)
    loop.tick(0.0)
    feed(loop, 1000.0)
    loop.tick(PERIOD)
    assert "channel 'arm' is stamped 999.950 s in the future" in callbacks.warnings[-1]
    for step in range(2, 4):
        feed(loop, step * PERIOD)
        loop.tick(step * PERIOD)
    assert loop.counts['holds'] <= 2
    assert callbacks.faults == []
    assert loop.in_episode


@pytest.mark.parametrize('jump', [-10.0, 10.0])
def test_a_clock_that_jumps_neither_fades_the_residual_in_nor_ends_a_hold(jump: float) -> None:
    loop, callbacks = real_time(LinearPolicy(), ramp_s=5.0)
    loop.activate()
    now = drive(loop, 100.0, 10)
    for tick in range(6):  # The sensors fell silent, which is not yet a fault.
        loop.tick(now + tick * PERIOD)
    now += 6 * PERIOD + jump
    callbacks.now = now
    loop.tick(now)
    assert callbacks.faults == []
    assert f'the clock jumped by {jump + PERIOD:+.3f} s' in ' '.join(callbacks.warnings)
    drive(loop, now + PERIOD, 2)
    assert loop.controller.residual.blend_ratio <= PERIOD / 5.0


def test_feedback_of_the_future_does_not_keep_the_next_episode_from_beginning() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    now = drive(loop, 0.0, 4)
    loop.receive_feedback(np.array([1000.0, 1.0, 1.0, 0.0, 1.0]))
    now = drive(loop, now, 3)
    assert 'step_feedback is stamped 999.800 s in the future' in ' '.join(callbacks.warnings)
    assert (loop.episode, loop.in_episode) == (1, True)


def test_an_activation_forgets_when_the_last_episode_ended() -> None:
    loop, _ = real_time(LinearPolicy())
    loop.activate()
    now = drive(loop, 100.0, 4)
    loop.end_episode(MARK_SUCCESS, now)
    loop.tick(now)
    loop.deactivate(now)
    loop.activate()  # Of a simulator that has started over.
    drive(loop, 0.0, 2)
    assert loop.in_episode


def test_overruns_are_counted() -> None:
    loop, _ = real_time(LinearPolicy())
    loop.activate()
    for now in (0.0, 0.05, 0.15, 0.20):
        feed(loop, now)
        loop.tick(now)
    assert loop.counts['overruns'] == 1


def late_ticks(loop: RealTimeLoop, start: float, count: int) -> float:
    """Run control steps that are two and a half periods apart."""
    for tick in range(count):
        feed(loop, start + 2.5 * tick * PERIOD)
        loop.tick(start + 2.5 * tick * PERIOD)
    return start + 2.5 * count * PERIOD


def test_a_computer_that_is_too_slow_for_its_rate_is_a_fault() -> None:
    loop, callbacks = real_time(LinearPolicy(), hold_limit_s=0.5)
    loop.activate()
    now = drive(loop, 0.0, 5)
    now = late_ticks(loop, now + 1.5 * PERIOD, 3)
    now = drive(loop, now, 2)
    now = late_ticks(loop, now + 1.5 * PERIOD, 3)
    assert callbacks.faults == []
    assert loop.counts['missed_periods'] == 7
    late_ticks(loop, now, 2)
    assert len(callbacks.faults) == 1
    assert 'too slow for 20 Hz' in callbacks.faults[0]
    assert not loop.active
    np.testing.assert_array_equal(callbacks.commands[-1][1], callbacks.commands[-2][1])


@pytest.mark.parametrize('ending', [False, True], ids=['in an episode', 'at its end'])
def test_chunks_from_elsewhere_are_used_after_the_clock_went_back(
    ending: bool, tmp_path: Path
) -> None:
    path, now = tmp_path / 'served.yaml', 100.0
    path.write_text(yaml.safe_dump(json.loads(make_metadata(exec_start=0).to_json())))
    policy = ReceivedPolicy(path, lambda: now)
    loop, callbacks = real_time(policy, splicing=Splicing(AUTO), hold_limit_s=10.0)  # type: ignore[arg-type]
    queue = loop.controller.queue
    assert isinstance(queue, ReceivedQueue)
    loop.activate()
    for step in range(8):
        feed(loop, now)
        if step == 1:
            queue.receive(now, np.zeros((4, 2), dtype=np.float32))
        if step == 5 and ending:  # Nothing to follow has arrived.
            loop.end_episode(END_EPISODE, now)
        loop.tick(now)
        now += PERIOD
    assert loop.in_episode
    sent, now = len(callbacks.transitions), now - 10.0
    for _ in range(2):
        feed(loop, now)
        loop.tick(now)
        now += PERIOD
        queue.receive(now - 0.5 * PERIOD, np.zeros((4, 2), dtype=np.float32))
    feed(loop, now)
    loop.tick(now)
    assert queue.counts['received'] >= 2
    assert queue.counts['refused_superseded'] == 0
    if ending:
        assert [each.truncated for each in callbacks.transitions[sent:]] == [True]
    else:
        assert callbacks.commands[-1][0] == now
    assert callbacks.faults == []


@pytest.mark.parametrize('late', [60.0, 0.01])
def test_feedback_of_the_episode_before_does_not_end_the_next(late: float) -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    now = drive(loop, 1000.0, 20)
    loop.end_episode(END_EPISODE, now)
    now = drive(loop, now, 3)
    assert loop.episode == 1
    began, count = loop._began, len(callbacks.transitions)
    loop.receive_feedback(np.array([began - late, 1.0, 1.0, 0.0, 1.0]))
    now = drive(loop, now, 2)
    assert loop.episode == 1
    assert loop.counts['refused_feedback'] == 1
    assert f'{late:.3f} s before the episode began' in callbacks.warnings[-1]
    assert all(transition.reward == 0.0 for transition in callbacks.transitions[count:])
    loop.receive_feedback(np.array([0.0, 1.0, 1.0, 0.0, 1.0]))  # Whoever says no time means now.
    drive(loop, now, 1)
    assert callbacks.transitions[-1].success is Success.SUCCESS


def test_a_jump_of_the_clock_does_not_give_a_stuck_robot_up() -> None:
    measured = ('velocity.x', 'velocity.yaw')
    action = make_action_spec(
        units=('m/s', 'rad/s'), measured_by=measured, following_limit=np.full(2, 0.2)
    )
    limiter = CommandLimiter(SafetyFilter(action), measured)
    obstacles, rules = Obstacles(limiter), RealTimeRules(True, 1.0)
    now, given_up = 100.0, []
    for step in range(60):
        limiter.observe(np.zeros(2))
        lags = obstacles.reason(True, now)
        given_up.append(bool(lags) and obstacles.stalled(now, rules))
        if lags:
            limiter.interrupt()
            limiter.hold()
        else:
            limiter.commit(np.full(2, 0.3))
        now += PERIOD
        if step == 14:
            now += 10.0
            obstacles.shift(10.0)
    assert not any(given_up[:20])
    assert any(given_up)


def test_a_mark_counts_although_the_clock_went_back_since_the_last_control_step() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    now = drive(loop, 1000.0, 10) - 50.0
    assert loop.end_episode(MARK_FAILURE, now)
    drive(loop, now, 2)
    assert loop.episode == 1
    assert loop.counts['refused_feedback'] == 0
    assert callbacks.transitions[-1].success is Success.FAILURE


def test_a_sample_that_is_stamped_a_little_ahead_ages_from_its_receipt() -> None:
    loop, _ = real_time(LinearPolicy())
    loop.activate()
    now = drive(loop, 0.0, 5)
    (channel,) = (each for each in loop.assembler._channels if each.name == 'arm')
    ahead = now + 0.9 * channel.max_age_s
    for each, values in (('arm', np.array([0.1, -0.1])), ('tool', np.array([0.5]))):
        loop.push_observation(each, ahead, values)
    loop.tick(now)
    feed(loop, now + PERIOD, 0.2)  # By its stamp it is older than the one before.
    loop.tick(now + PERIOD)
    np.testing.assert_allclose(loop.assembler.assemble()[:2], [0.2, -0.2])
    assert loop.assembler.oldest_stamp == now + PERIOD
