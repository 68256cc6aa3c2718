# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A chunk that comes over a network must enter at the step it is for, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from robot_builders import make_action_spec, make_metadata

from residual_rl_ros.base_policy.received_policy import ReceivedPolicy, ReceivedQueue
from residual_rl_ros.base_policy.splicing import MEASURED, Splicing
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.errors import BasePolicyError, ChunkLateError, CommandError, ResidualRLError
from residual_rl_ros.transitions.transition import Success

PERIOD = 0.05
SENSED = 0.3
"""An observation is so much of a period older than the control step that sees it."""
METADATA = {
    'observation_names': ['x'],
    'action_names': ['a.position', 'b.position'],
    'action_min': [-1.0, -0.5],
    'action_max': [1.0, 0.5],
    'rate_hz': 20.0,
    'n_obs_steps': 1,
    'horizon': 9,
    'exec_start': 1,
    'exec_steps': 6,
}


class Robot:
    """Steps at the control rate, with a queue that tells the number of the control step."""

    def __init__(self, folder: Path, k: int = 1, **changes: Any) -> None:
        path = folder / 'served.yaml'
        path.write_text(yaml.safe_dump({**METADATA, **changes}))
        self.now = 1000.0
        self.policy = ReceivedPolicy(path, lambda: self.now)
        self.queue = Splicing().queue(self.policy, k)
        assert isinstance(self.queue, ReceivedQueue)
        self.queue.reset(np.random.default_rng(0))
        self.k = k

    def observed(self, step: int) -> float:
        """Return the stamp of the observation that a control step saw."""
        return 1000.0 + PERIOD * (step - SENSED if step else 0.0)

    def chunk(self, step: int, length: int = 8) -> np.ndarray:
        """Return a chunk for a control step and those after it, which tells their numbers."""
        return np.repeat(step + np.arange(length, dtype=np.float32)[:, None], 2, axis=1)

    def serve(self, step: int, length: int = 8) -> None:
        """Let the chunk of a control step arrive."""
        self.queue.receive(self.observed(step), self.chunk(step, length))

    def take(self) -> list[float]:
        """Return the control steps that the next base actions are for, and go on."""
        actions = self.queue.take(0.0).actions
        self.now += self.k * PERIOD
        return actions[:, 0].tolist()


@pytest.fixture
def robot(tmp_path: Path) -> Robot:
    return Robot(tmp_path)


@given(st.integers(1, 3), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=30))
def test_whenever_chunks_arrive_an_action_is_that_of_its_control_step(
    tmp_path_factory: pytest.TempPathFactory, k: int, served: list[tuple[int, int]]
) -> None:
    robot = Robot(tmp_path_factory.mktemp('served'), k)
    robot.serve(0)
    step = 0
    while step < 24:
        for origin, delay in sorted(served):
            # Within a decision the robot sees, too, and nothing is decided.
            if step < origin + delay <= step + k and origin <= step:
                robot.serve(origin)
        try:
            taken = robot.take()
        except ChunkLateError:
            break  # It holds, and from then on steps have other numbers.
        assert taken == [step + index for index in range(k)]
        step += k
    assume(step > 6 // k * k)


def test_without_a_chunk_it_is_late_and_time_that_passes_meanwhile_is_no_action(
    robot: Robot,
) -> None:
    for _ in range(3):
        with pytest.raises(ChunkLateError):
            robot.queue.take(0.0)
        robot.now += PERIOD
    robot.queue.receive(robot.now - 0.1 * PERIOD, robot.chunk(0))
    assert robot.take() == [0.0]
    assert robot.take() == [1.0]


def test_a_hold_between_observation_and_arrival_shifts_nothing(robot: Robot) -> None:
    robot.serve(0)
    assert [robot.take() for _ in range(6)] == [[float(step)] for step in range(6)]
    seen = robot.now - SENSED * PERIOD
    for _ in range(4):  # The chunk of this observation takes four periods.
        with pytest.raises(ChunkLateError):
            robot.queue.take(0.0)
        robot.now += PERIOD
    robot.queue.receive(seen, robot.chunk(6))
    assert [robot.take() for _ in range(3)] == [[6.0], [7.0], [8.0]]


def test_a_chunk_of_no_use_is_refused_and_counted(robot: Robot) -> None:
    robot.queue.receive(robot.now - 2 * PERIOD, robot.chunk(0))  # Before the episode.
    robot.queue.receive(robot.now + 3 * PERIOD, robot.chunk(0))
    robot.serve(0)
    robot.queue.receive(robot.observed(0), robot.chunk(0))
    for _ in range(6):
        robot.take()
    robot.serve(1)
    assert robot.take() == [6.0]
    with pytest.raises(ChunkLateError):
        robot.take()
    for _ in range(6):
        robot.now += PERIOD
    robot.serve(1)
    assert robot.queue.counts == {
        'received': 2,
        'refused_malformed': 0,
        'refused_two_publishers': 0,
        'refused_stale': 1,
        'refused_superseded': 2,
        'refused_future': 1,
    }


def test_after_a_pause_what_was_seen_before_is_stale(robot: Robot) -> None:
    robot.serve(0)
    robot.take()
    robot.queue.forget()
    robot.serve(1)
    assert robot.queue.counts['refused_stale'] == 1
    robot.queue.receive(robot.now, robot.chunk(1))
    assert robot.take() == [1.0]


AVERAGED = replace(MEASURED, temporal_ensemble=0.01)


def message(robot: Robot, **changes: Any) -> Any:
    """Return a message as ROS has it."""

    def time(seconds: float) -> Any:
        return SimpleNamespace(sec=int(seconds), nanosec=round(seconds % 1.0 * 1e9))

    points = [
        SimpleNamespace(positions=row.tolist(), time_from_start=time(PERIOD * index))
        for index, row in enumerate(robot.chunk(0, changes.pop('length', 8)))
    ]
    values = {
        'joint_names': ['a.position', 'b.position'],
        'header': SimpleNamespace(stamp=time(changes.pop('stamp', 1000.25))),
        'points': points,
    }
    return SimpleNamespace(**{**values, **changes})


def test_a_trajectory_with_the_stamp_of_its_observation_is_a_chunk(robot: Robot) -> None:
    stamp, actions = robot.policy.decode(message(robot))
    assert stamp == pytest.approx(1000.25)
    np.testing.assert_array_equal(actions, robot.chunk(0))
    assert actions.dtype == np.float32


def broken(robot: Robot, key: str, value: Any) -> Any:
    """Return a message whose fourth point has another value."""
    made = message(robot)
    setattr(made.points[3], key, value)
    return made


@pytest.mark.parametrize(
    ('make', 'reason'),
    [
        (lambda r: message(r, joint_names=['b.position', 'a.position']), 'base chunk names'),
        (lambda r: message(r, length=5), 'has 5 points, expected 6 to 8'),
        (lambda r: message(r, length=9), 'has 9 points, expected 6 to 8'),
        (lambda r: message(r, points=[]), 'has 0 points'),
        (lambda r: message(r, stamp=0.0), 'has no stamp'),
        (lambda r: broken(r, 'positions', [1.0]), 'points without 2 positions'),
        (lambda r: broken(r, 'positions', [1.0, float('nan')]), 'no finite number'),
        (lambda r: broken(r, 'positions', [1.0, 1e300]), 'no finite number'),
        (
            lambda r: broken(r, 'time_from_start', SimpleNamespace(sec=3, nanosec=0)),
            'not one point for each control step',
        ),
    ],
)
def test_a_message_that_is_no_chunk_is_refused(robot: Robot, make: Any, reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        robot.policy.decode(make(robot))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'lockstep': True}, 'lockstep is given, but base_policy is a topic'),
        ({'prior_width': (0.1,)}, 'prior_width is given, but base_policy is a topic'),
        (
            {'splicing': replace(MEASURED, temporal_ensemble=0.01)},
            'temporal_ensemble is given, but base_policy is a topic',
        ),
        ({'splicing': Splicing(2)}, 'prefetch_steps is given, but base_policy is a topic'),
        ({'proposals': 2}, 'proposals is given, but base_policy is a topic'),
    ],
)
def test_what_needs_a_policy_here_is_refused(
    robot: Robot, changes: dict[str, Any], message: str
) -> None:
    config = ControllerConfig(1, (0.1,), **{'lockstep': False, 'splicing': MEASURED, **changes})
    with pytest.raises(ResidualRLError, match=message):
        config.build(robot.policy, make_action_spec())


def test_a_controller_runs_received_chunks(robot: Robot) -> None:
    config = ControllerConfig(1, (0.1,), MEASURED, lockstep=False)
    controller = config.build(robot.policy, make_action_spec(names=('a.position', 'b.position')))
    controller.begin_episode(0, [0.0], robot.now)
    assert controller.command() is None
    assert isinstance(controller.queue, ReceivedQueue)
    controller.queue.receive(robot.now, 0.01 * robot.chunk(0))
    command = controller.command()
    assert command is not None
    np.testing.assert_allclose(command, [0.0, 0.0])
    controller.queue.close()


def test_metadata_with_a_density_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BasePolicyError, match='chunks from a topic have no density'):
        Robot(tmp_path, prior='gaussian')
    assert make_metadata().exec_start == METADATA['exec_start']


@pytest.mark.parametrize('waits', [False, True])
def test_a_chunk_for_an_action_that_was_given_back_is_for_the_one_after_the_end(
    waits: bool, tmp_path: Path
) -> None:
    robot = Robot(tmp_path, 4, rate_hz=10.0, exec_steps=8)
    config = ControllerConfig(4, (0.1,), MEASURED, lockstep=False)
    controller = config.build(robot.policy, make_action_spec(names=('a.position', 'b.position')))
    queue = controller.queue
    assert isinstance(queue, ReceivedQueue)
    controller.begin_episode(0, [0.0], robot.now)
    queue.receive(robot.now, 0.01 * robot.chunk(0))
    for step in range(6):
        assert controller.command() is not None
        robot.now += 0.1
        if step < 5:
            controller.step([0.0], robot.now, StepFeedback(0.0, False, False, Success.UNLABELLED))
    robot.now += 0.06  # The tick is late.
    seen, end = robot.now - 0.02, StepFeedback(0.0, False, True, Success.UNLABELLED)
    if waits:
        assert controller.step([0.0], robot.now, end) is None
    queue.receive(seen, 0.01 * robot.chunk(6))
    transition = controller.step([0.0], robot.now, end)
    queue.close()
    assert transition is not None
    np.testing.assert_allclose(transition.next_base_action[::2], [0.06, 0.07, 0.08, 0.09], 1e-6)


@pytest.mark.parametrize('served', [False, True])
def test_after_the_clock_went_back_chunks_are_used_again(robot: Robot, served: bool) -> None:
    if served:
        robot.serve(0)
        robot.take()
    robot.now -= 500.0
    robot.queue.receive(robot.now, robot.chunk(1))
    assert robot.take() == [1.0]
    assert robot.queue.counts['received'] == 1 + served
