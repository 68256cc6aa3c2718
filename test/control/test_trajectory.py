# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A controller that is told the way on must go where it will be told to go, and stop in a hold."""

from __future__ import annotations

import numpy as np
import pytest
from actor_builders import make_actor
from base_policy_builders import LinearPolicy
from robot_builders import OBSERVATIONS, make_action_spec, make_metadata

from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController, StepFeedback
from residual_rl_ros.control.trajectory import Trajectory, TrajectoryHorizon
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.transitions.transition import Success

PERIOD_S = 0.05
GOING = StepFeedback(0.0, False, False, Success.UNLABELLED)
TIGHT = make_action_spec(
    lower=np.full(2, -0.2), upper=np.full(2, 0.2), max_step=np.array([0.02, 0.05])
)
MEASURED = make_action_spec(measured_by=OBSERVATIONS[:2])


def controller_of(
    action: ActionSpec, decision_steps: int = 2, gain: float = 0.0
) -> ResidualController:
    """Return a controller, with a random actor of that gain if it is not 0."""
    policy = LinearPolicy(make_metadata(horizon=8, exec_steps=4))
    made = ControllerConfig(decision_steps, (0.1,)).build(policy, action)
    if gain:
        actor = make_actor(made.layout, seed=0, gain=gain).to_numpy()
        made.mailbox.submit(encode_weights(actor, WeightsHeader(1, 0, Exploration())))
    made.begin_episode(0, np.ones(3), 0.0)
    return made


def ways(
    controller: ResidualController, horizon: TrajectoryHorizon, count: int
) -> tuple[np.ndarray, list[Trajectory]]:
    """Return the commands of so many control steps, shape (count, m), and each way on."""
    commands, found = [], []
    for step in range(count):
        command = controller.command()
        assert command is not None
        commands.append(command.copy())
        found.append(horizon.of(command, holding=False))
        controller.step(np.ones(3), PERIOD_S * (step + 1), GOING)
    controller.queue.close()
    return np.array(commands), found


@pytest.mark.parametrize('action', [make_action_spec(), TIGHT])
def test_what_is_known_of_the_way_on_is_what_is_commanded_next(action: ActionSpec) -> None:
    controller = controller_of(action)
    commands, found = ways(controller, TrajectoryHorizon(controller, 3, PERIOD_S), 6)
    for step in range(4):  # A chunk of four: then the base policy plans anew.
        known = min(3, 4 - step)
        np.testing.assert_allclose(found[step].points[:known], commands[step : step + known])
    assert [len(way.points) for way in found] == [3] * 6
    limited = controller.limiter.safety.slew_limited  # Of commands, and not of what is planned.
    assert (0 < limited <= 6) is (action is TIGHT)


def test_the_way_on_keeps_the_limits_and_ends_at_rest() -> None:
    controller = controller_of(TIGHT, gain=5.0)
    _, found = ways(controller, TrajectoryHorizon(controller, 7, PERIOD_S), 8)
    assert {len(way.points) for way in found} == {4, 5, 6, 7}
    for way in found:
        assert way.velocities is not None
        assert way.velocities.shape == way.points.shape
        assert (np.abs(np.diff(way.points, axis=0)) <= TIGHT.max_step + 1e-12).all()
        assert (np.abs(way.points) <= 0.2).all()
        assert (np.abs(way.velocities) <= TIGHT.max_step / PERIOD_S + 1e-12).all()
        assert not way.velocities[-1].any()


def test_the_present_residual_is_on_the_whole_way() -> None:
    controller = controller_of(make_action_spec(), decision_steps=1, gain=5.0)
    horizon = TrajectoryHorizon(controller, 3, PERIOD_S)
    command = controller.command()
    step = controller.commanded()
    assert command is not None
    assert step is not None
    assert np.abs(step.residual).min() > 0.0
    way = horizon.of(command, holding=False)
    np.testing.assert_allclose(way.points[1:] - controller.queue.foreseen[:2], [step.residual] * 2)
    controller.queue.close()


@pytest.mark.parametrize('measured', [np.full(3, 1.0), np.array([0.3, 0.1, 0.0]), None])
def test_in_a_hold_the_robot_rests_at_its_command_wherever_it_is_measured(
    measured: np.ndarray | None,
) -> None:
    """A wrong sample would throw it, and a gripper on an object would let go."""
    controller = controller_of(MEASURED)
    horizon = TrajectoryHorizon(controller, 3, PERIOD_S)
    command = np.array([0.3, 0.4])
    controller.limiter.observe(measured)
    way = horizon.of(command, holding=True)
    assert way.points.tolist() == [command.tolist()]
    assert way.velocities is not None
    assert not way.velocities.any()
    controller.queue.close()


def test_a_robot_that_was_moved_begins_at_rest() -> None:
    controller = controller_of(TIGHT)
    horizon = TrajectoryHorizon(controller, 3, PERIOD_S)
    horizon.of(np.array([0.2, 0.2]), holding=False)
    command = controller.command()
    assert command is not None
    way = horizon.of(command, holding=False)
    assert way.velocities is not None
    assert not way.velocities[0].any()
    assert way.velocities[1].any()
    controller.queue.close()


def test_an_operator_and_a_late_base_policy_say_one_point() -> None:
    controller = controller_of(make_action_spec())
    horizon = TrajectoryHorizon(controller, 3, PERIOD_S)
    late = horizon.of(np.zeros(2), holding=False)
    assert (late.points.shape, late.velocities) == ((1, 2), None)
    command = controller.command(np.array([0.1, 0.2]))
    assert command is not None
    way = horizon.of(command, holding=False)
    assert (way.points.tolist(), way.velocities) == ([[0.1, 0.2]], None)
    controller.queue.close()


def test_the_way_on_ends_before_what_is_no_number() -> None:
    controller = controller_of(make_action_spec())
    horizon = TrajectoryHorizon(controller, 9, PERIOD_S)
    command = controller.command()
    assert command is not None
    assert len(horizon.of(command, holding=False).points) == 7
    controller.queue.foreseen[-2] = np.nan
    assert len(horizon.of(command, holding=False).points) == 5
    controller.queue.close()
