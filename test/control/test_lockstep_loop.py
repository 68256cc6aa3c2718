# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A simulator that waits is answered, once for every stamp."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from actor_builders import make_actor
from base_policy_builders import LinearPolicy
from loop_builders import ACTION, CHANNELS, Recorder, feed, real_time
from robot_builders import make_metadata

from residual_rl_ros.control.composition import BlendRamp
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.lockstep_loop import RESTART_SILENCE_S, LockstepLoop
from residual_rl_ros.control.policy_loop import LoopParts
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.robot.observation import ObservationAssembler


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lockstep(scheduled: bool = False) -> tuple[LockstepLoop, Recorder, Clock]:
    callbacks, clock = Recorder(), Clock()
    config = ControllerConfig(1, (0.5,), lockstep=True, scheduled_actor=scheduled)
    controller = config.build(LinearPolicy(make_metadata()), ACTION)
    assembler = ObservationAssembler(CHANNELS)
    parts = LoopParts(controller, assembler, BlendRamp(0.0), callbacks, clock)
    loop = LockstepLoop(parts, 60.0)
    callbacks.loop = loop
    return loop, callbacks, clock


def feedback(stamp: float, terminated: bool = False) -> np.ndarray:
    return np.array([stamp, 0.0, float(terminated), 0.0, float(terminated) if terminated else -1.0])


def test_lockstep_answers_every_stamp_once_whatever_the_order() -> None:
    loop, callbacks, _ = lockstep()
    loop.activate()
    feed(loop, 1.0)
    loop.push_observation('tool', 2.0, np.array([0.5]))
    loop.receive_feedback(feedback(2.0))
    assert [stamp for stamp, _ in callbacks.commands] == [1.0]
    loop.push_observation('arm', 2.0, np.array([0.1, -0.1]))
    assert [stamp for stamp, _ in callbacks.commands] == [1.0, 2.0]
    feed(loop, 3.0)
    assert [stamp for stamp, _ in callbacks.commands] == [1.0, 2.0]
    loop.receive_feedback(feedback(3.0, terminated=True))
    assert [stamp for stamp, _ in callbacks.commands] == [1.0, 2.0, 3.0]
    assert [t.terminated for t in callbacks.transitions] == [False, True]
    assert not loop.in_episode


def test_lockstep_repeats_an_answer_that_was_missed() -> None:
    loop, callbacks, _ = lockstep()
    loop.activate()
    feed(loop, 1.0)
    feed(loop, 1.0)
    (first, command), (again, repeated), *_ = callbacks.commands
    assert (first, again) == (1.0, 1.0)
    np.testing.assert_array_equal(command, repeated)


def test_lockstep_waits_for_a_living_learner_and_gives_up_on_a_dead_one() -> None:
    loop, callbacks, clock = lockstep(scheduled=True)
    loop.activate()
    feed(loop, 1.0)
    assert callbacks.commands == []
    header = WeightsHeader(1, 1, Exploration(), 0, 1)
    message = encode_weights(make_actor(loop.controller.layout, seed=1).to_numpy(), header)
    loop.receive_weights(message)
    assert len(callbacks.commands) == 1
    feed(loop, 2.0)
    loop.receive_feedback(feedback(2.0))
    for _ in range(3):  # The learner repeats itself while it works.
        clock.now += 50.0
        loop.watch()
        loop.receive_weights(message)
    assert len(callbacks.commands) == 1
    clock.now += 61.0
    loop.watch()
    assert len(callbacks.commands) == 2
    assert 'going on with the one at hand' in callbacks.warnings[-1]
    assert loop.controller.mailbox.refused['stale'] == 0


@pytest.mark.parametrize('make', [real_time, lockstep])
def test_an_inactive_loop_takes_nothing_in(make: Any) -> None:
    loop = make(LinearPolicy())[0] if make is real_time else make()[0]
    feed(loop, 1.0)
    loop.receive_feedback(feedback(1.0))
    assert not loop.in_episode
    assert loop.counts['ticks'] == 0


@pytest.mark.parametrize('restarted_at', [1.0, 3.0])
def test_a_simulator_that_starts_again_is_met_again(restarted_at: float) -> None:
    loop, callbacks, clock = lockstep()
    loop.activate()
    for stamp in (1.0, 2.0, 3.0, 4.0):
        loop.receive_feedback(feedback(stamp))
        feed(loop, stamp)
    clock.now += 0.5
    feed(loop, restarted_at)  # Late, out of order.
    assert [stamp for stamp, _ in callbacks.commands] == [1.0, 2.0, 3.0, 4.0]
    made = len(callbacks.transitions)
    clock.now += RESTART_SILENCE_S + 0.1
    for step in range(3):
        if step:
            loop.receive_feedback(feedback(restarted_at + step))
        feed(loop, restarted_at + step)
    answered = [stamp for stamp, _ in callbacks.commands[4:]]
    assert answered == [restarted_at + step for step in range(3)]
    assert 'the simulator has started again' in callbacks.warnings[-1]
    fresh = callbacks.transitions[made:]
    assert {transition.episode for transition in fresh} == {1}
    assert [transition.step for transition in fresh] == [0, 1]


def test_a_simulator_that_repeats_its_stamp_after_a_pause_has_not_started_again() -> None:
    loop, callbacks, clock = lockstep()
    loop.activate()
    for stamp in (1.0, 2.0):
        loop.receive_feedback(feedback(stamp))
        feed(loop, stamp)
    clock.now += 60.0
    loop.receive_feedback(feedback(2.0))
    feed(loop, 2.0)
    assert loop.episode == 0
    assert {stamp for stamp, _ in callbacks.commands[2:]} == {2.0}


def test_a_decision_of_which_the_learner_hears_nothing_does_not_count() -> None:
    """It publishes after so many transitions, and the robot waits after so many decisions."""
    loop, callbacks, clock = lockstep(scheduled=True)
    loop.activate()
    header = WeightsHeader(1, 1, Exploration(), 0, 3)
    loop.receive_weights(encode_weights(make_actor(loop.controller.layout).to_numpy(), header))

    def run(stamps: tuple[float, ...]) -> int:
        for stamp in stamps:
            loop.receive_feedback(feedback(stamp))
            feed(loop, stamp)
        return len(callbacks.transitions)

    assert run((1.0, 2.0)) == 1
    clock.now += RESTART_SILENCE_S + 0.1  # The decision of 2.0 is lost with the simulator.
    assert run((0.5, 1.5, 2.5, 3.5, 4.5)) == 3
    assert loop.controller.mailbox.waits_for_weights()
