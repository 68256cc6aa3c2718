# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A robot policy that plans, in a loop that does not wait for it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import yaml
from base_policy_builders import LinearPolicy
from loop_builders import PERIOD, drive, feed, real_time
from planner_builders import KEEP_OUT, known_planner
from robot_builders import make_action_spec
from transition_builders import make_layout

from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.errors import RewardError
from residual_rl_ros.residual_policy.robot_policy import Planner
from residual_rl_ros.transitions.transition import Source, Success


class SlowPlanner(Planner):
    """Plans the same residual, once its gate is open."""

    def __init__(self, residual: float = 0.5) -> None:
        self.residual = residual
        self.gate = threading.Event()
        self.gate.set()
        self.orders: list[Any] = []

    def decide(self, observation: Any, base: Any, rng: Any, *told: Any) -> np.ndarray:
        self.orders.append((np.array(observation), np.array(base), rng.random()))
        return np.full(len(base), self.residual)

    def decide_ahead(
        self, observation: Any, action: Any, rng: Any, sample: Any = None
    ) -> np.ndarray:
        self.orders.append((np.array(observation), np.array(action), rng.random()))
        assert self.gate.wait(30.0), 'the test left the planner blocked'
        return np.full(len(action), self.residual)

    def for_add_on(self, add_on: Any) -> Planner:
        raise AssertionError

    def uniform(self, half_width: float, rng: np.random.Generator) -> np.ndarray:
        raise AssertionError


def planning(planner: Any, **changes: Any) -> tuple[RealTimeLoop, Any]:
    loop, callbacks = real_time(LinearPolicy(), **changes)
    loop.controller.mailbox.install(planner)
    loop.activate()
    return loop, callbacks


def settle(loop: RealTimeLoop) -> None:
    """Wait until the plan that was ordered is there."""
    newest = loop.controller.residual.plans._newest
    assert newest is not None
    newest.result(30.0)


def tick(loop: RealTimeLoop, step: int, wait: bool = True) -> None:
    feed(loop, step * PERIOD)
    loop.tick(step * PERIOD)
    if wait:
        settle(loop)


def test_a_plan_acts_at_the_decision_after_the_one_at_which_it_was_ordered() -> None:
    planner = SlowPlanner()
    loop, callbacks = planning(planner)
    for step in range(4):
        tick(loop, step)
    loop.deactivate(4 * PERIOD)
    sources = [each.source for each in callbacks.transitions]
    assert sources == [Source.BASE, Source.RESIDUAL, Source.RESIDUAL]
    assert callbacks.transitions[1].residual_action.tolist() == [0.5, 0.5]
    assert loop.controller.residual.plans.late == 0
    observation, action, _ = planner.orders[0]
    np.testing.assert_array_equal(observation, callbacks.transitions[0].observation)
    np.testing.assert_array_equal(action, callbacks.transitions[0].base_action)
    loop.controller.residual.plans.close()


def test_while_a_plan_is_late_the_base_acts_alone_and_it_is_counted() -> None:
    planner = SlowPlanner()
    loop, callbacks = planning(planner)
    tick(loop, 0)
    planner.gate.clear()
    for step in range(1, 5):
        tick(loop, step, wait=False)
    assert len(callbacks.commands) == 5
    assert loop.counts['holds'] == 0
    assert loop.controller.residual.plans.late == 3
    planner.gate.set()
    settle(loop)
    assert len(planner.orders) == 2  # None is begun while another is computed.
    for step in range(5, 8):
        tick(loop, step)
    sources = [each.source.name for each in callbacks.transitions]
    expected = ['BASE', 'RESIDUAL', 'BASE', 'BASE', 'BASE', 'BASE', 'RESIDUAL']
    assert sources == expected
    assert loop.controller.residual.plans.late == 4
    loop.controller.residual.plans.close()


def test_a_tick_does_not_wait_for_a_plan() -> None:
    planner = SlowPlanner()
    planner.gate.clear()
    loop, callbacks = planning(planner)
    drive(loop, 0.0, 3)  # Would hang.
    assert len(callbacks.commands) == 3
    planner.gate.set()


def test_plans_do_not_depend_on_whether_the_ones_before_were_late() -> None:
    draws = []
    for late in (False, True):
        planner = SlowPlanner()
        loop, _ = planning(planner)
        tick(loop, 0)
        planner.gate.clear() if late else None
        tick(loop, 1, wait=not late)
        planner.gate.set()
        settle(loop)
        tick(loop, 2)
        draws.append(planner.orders[-1][2])
        loop.controller.residual.plans.close()
    assert draws[0] == draws[1]


def test_a_plan_made_by_other_weights_or_before_a_pause_or_a_takeover_does_not_act() -> None:
    def other_weights(loop: RealTimeLoop) -> None:
        loop.controller.mailbox.install(SlowPlanner(-0.5))

    def pause(loop: RealTimeLoop) -> None:
        loop.controller.abandon()

    def takeover(loop: RealTimeLoop) -> None:
        loop.set_takeover(True)
        loop.receive_takeover(np.zeros(2))
        feed(loop, 1.5 * PERIOD)
        loop.tick(1.5 * PERIOD)
        settle(loop)
        loop.set_takeover(False)

    for interruption in (other_weights, pause, takeover):
        loop, callbacks = planning(SlowPlanner())
        tick(loop, 0)
        tick(loop, 1)
        interruption(loop)
        tick(loop, 2)
        tick(loop, 3)
        sources = [each.source.name for each in callbacks.transitions]
        assert sources[-1] != 'RESIDUAL', interruption.__name__
        assert loop.controller.residual.plans.late == 0
        loop.controller.residual.plans.close()


def test_where_a_simulator_waits_each_decision_is_planned_on_its_own_observation() -> None:
    config = ControllerConfig(2, (0.05,), lockstep=True, scheduled_actor=False)
    controller = config.build(LinearPolicy(), make_action_spec())
    planner = SlowPlanner()
    controller.mailbox.install(planner)
    observation = np.array([0.1, 0.2, 0.3])
    controller.begin_episode(0, observation, 0.0)
    for step in range(4):
        controller.command()
        transition = controller.step(
            observation + step, float(step), StepFeedback(0.0, False, False, Success.UNLABELLED)
        )
    assert transition is not None
    assert transition.source is Source.RESIDUAL
    np.testing.assert_array_equal(planner.orders[0][0], observation)
    assert len(planner.orders) == 2
    assert planner.orders[0][2] != planner.orders[1][2]


def test_a_plan_of_another_weight_does_not_act() -> None:
    loop, callbacks = planning(SlowPlanner(), customisable=True)
    for step in range(4):
        if step == 2:
            loop.controller.customisation.change('', 3.0)
        tick(loop, step)
    told = [(each.source, float(each.add_on[1])) for each in callbacks.transitions]
    assert told == [(Source.BASE, 1.0), (Source.RESIDUAL, 1.0), (Source.BASE, 3.0)]
    loop.controller.residual.plans.close()


def test_an_add_on_that_fails_in_a_plan_is_a_fault() -> None:
    class Failing(SlowPlanner):
        def decide_ahead(self, *_: Any) -> np.ndarray:
            raise RewardError("add-on 'shelf' gives nan")

    loop, callbacks = planning(Failing())
    feed(loop, 0.0)
    loop.tick(0.0)
    newest = loop.controller.residual.plans._newest
    assert newest is not None
    with pytest.raises(RewardError):
        newest.result(30.0)
    feed(loop, PERIOD)
    loop.tick(PERIOD)
    assert callbacks.faults == ["add-on 'shelf' gives nan"]
    loop.controller.residual.plans.close()


def test_an_mppi_planner_steers_a_loop_in_real_time() -> None:
    layout = make_layout(decision_steps=1, residual_bound=(0.05, 0.025))
    loop, callbacks = planning(
        known_planner(layout, add_on=({**KEEP_OUT, 'lower': [0.6]},), temperature=1e-3)
    )
    assert loop.controller.layout == layout
    for step in range(4):
        tick(loop, step)
    assert all(each.residual_action[0] < -0.1 for each in callbacks.transitions[1:])
    assert loop.controller.residual.not_finite == 0
    loop.controller.residual.plans.close()


def test_a_planner_takes_another_add_on_at_the_next_plan_and_weight_zero_is_the_base() -> None:
    layout = make_layout(decision_steps=1, residual_bound=(0.05, 0.025), customisable=True)
    loop, callbacks = planning(
        known_planner(layout, add_on=(), temperature=1e-3), customisable=True
    )
    assert loop.controller.layout == layout
    text = yaml.safe_dump([{**KEEP_OUT, 'lower': [0.6]}])
    for step, asked in enumerate(['', '', text, text, text, 'off', 'off', text, text]):
        if asked == 'off':
            loop.controller.customisation.change(text, 0.0)
        else:
            loop.controller.customisation.change(asked, 1.0)
        tick(loop, step)
    moved = [bool(each.residual_action.any()) for each in callbacks.transitions]
    assert moved == [False, False, False, True, True, False, False, False]
    weights = [float(each.add_on[1]) for each in callbacks.transitions]
    assert weights == [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0]
    off = [each for each in callbacks.transitions if each.add_on[1] == 0.0]
    assert [each.source for each in off] == [Source.BASE, Source.BASE]
    loop.controller.residual.plans.close()
