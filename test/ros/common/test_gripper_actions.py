# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Goals of a gripper over ROS, before an action server of rclpy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from fake_grippers import Finger, serve
from rclpy.executors import SingleThreadedExecutor
from ros_fixtures import with_package

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.command import GRIPPER, PARALLEL_GRIPPER, Command
from residual_rl_ros.ros.common import command_outputs
from residual_rl_ros.ros.common.command_outputs import CommandOutputs
from residual_rl_ros.ros.common.managed_node import ManagedNode

pytestmark = [pytest.mark.ros, with_package('control_msgs')]

LIMIT_S = 10.0
RATE_HZ = 50.0
OPTIONS: Any = {'indices': (0,), 'max_effort': 20.0, 'threshold': 0.01, 'min_interval_s': 0.1}
COMMANDS = {
    GRIPPER: Command('hand/gripper_cmd', GRIPPER, name='hand', **OPTIONS),
    PARALLEL_GRIPPER: Command(
        'hand/gripper_cmd', PARALLEL_GRIPPER, joints=('finger',), name='hand', **OPTIONS
    ),
}


class Hand(ManagedNode):
    """A node that moves a gripper and nothing else."""

    command: Command

    def configure(self) -> None:
        """Make the client of the action."""
        action = ActionSpec.recorded(['finger'])
        self.outputs = CommandOutputs(self, (self.command,), action, 1.0 / RATE_HZ, False)


class Bench:
    """A gripper and what moves it: two computers, in turn in one thread."""

    def __init__(self, domain_id: int, action: str) -> None:
        self.command = COMMANDS[action]
        self.finger = Finger(0.0, 1.0)
        self.told = 0.0
        """The command of now."""
        self.holding = False
        self.time_s = 0.0
        rclpy.init(domain_id=domain_id)
        self.hand = Hand('policy_node')
        self.hand.command = self.command
        self.hand.trigger_configure()
        assert self.hand.failure is None
        self.outputs = self.hand.outputs
        self._here = SingleThreadedExecutor()
        self._here.add_node(self.hand)
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._there = SingleThreadedExecutor(context=self._context)
        self.driver = rclpy.create_node('hand', context=self._context)
        self._there.add_node(self.driver)
        self.end: Callable[[], Any] = bool
        """Ends the server."""
        self.server_hangs = False

    def serve(self, finger: Finger | None = None) -> None:
        """Start the server."""
        self.finger = finger or self.finger
        self.end = serve(self.driver, self.command.topic, self.finger, self.command.type)

    def step(self) -> None:
        """Let a control step pass, and the answers to it arrive: this robot's time is not ours."""
        self.time_s += 1.0 / RATE_HZ
        self.outputs.send(np.array([self.told]), self.time_s, self.holding)
        self.listen()
        deadline = time.monotonic() + 1.0
        while self.outputs.unanswered() and not self.server_hangs and time.monotonic() < deadline:
            self.listen()

    def listen(self) -> None:
        """Let both hear what has arrived."""
        if not self.server_hangs:
            self.finger.step(1.0 / RATE_HZ)
            for _ in range(4):
                self._there.spin_once(timeout_sec=0.0005)
        for _ in range(4):
            self._here.spin_once(timeout_sec=0.0005)

    def until(self, condition: Callable[[], bool], act: Callable[[], Any] | None = None) -> None:
        """Let control steps pass until a condition holds."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, (self.finger.goals, self.outputs.report())
            (act or self.step)()

    def run(self, seconds: float) -> None:
        """Let so much time of the robot pass."""
        for _ in range(round(seconds * RATE_HZ)):
            self.step()

    def close(self) -> None:
        self.end()
        self.hand.made.close()
        for executor, node in ((self._here, self.hand), (self._there, self.driver)):
            executor.shutdown(timeout_sec=1.0)
            node.destroy_node()
        self._context.try_shutdown()
        rclpy.try_shutdown()


@pytest.fixture(params=[GRIPPER, PARALLEL_GRIPPER])
def bench(request: pytest.FixtureRequest, domain_id: int) -> Iterator[Bench]:
    made = Bench(domain_id, request.param)
    yield made
    made.close()


@pytest.fixture
def plain(domain_id: int) -> Iterator[Bench]:
    """Yield a bench of the older action alone."""
    made = Bench(domain_id, GRIPPER)
    yield made
    made.close()


def test_goals_follow_the_command_and_a_hold_cancels_the_one_under_way(bench: Bench) -> None:
    bench.serve()
    bench.outputs.check_servers()
    bench.until(lambda: bench.finger.goals == [(0.0, 20.0)])
    bench.told = 0.005  # Below the threshold.
    bench.run(0.3)
    assert len(bench.finger.goals) == 1
    before = bench.time_s
    while bench.time_s < before + 1.0:  # Much faster than goals may come.
        bench.told += 0.02
        bench.step()
    bench.until(lambda: bench.finger.goals[-1] == (pytest.approx(bench.told), 20.0))
    assert 8 <= len(bench.finger.goals) <= 12
    bench.told = 50.0
    bench.until(lambda: bench.finger.goals[-1][0] == 50.0)
    bench.until(lambda: not bench.outputs.unanswered())
    bench.holding = True
    bench.until(lambda: bench.finger.cancelled == 1)
    stopped = bench.finger.position
    bench.run(0.2)
    assert bench.finger.position == stopped < 50.0
    bench.holding = False
    bench.until(lambda: len(bench.finger.goals) > 1 and bench.finger.position > stopped)
    report = bench.outputs.report()
    assert report['hand_goals'] == len(bench.finger.goals)
    assert (report['hand_goals_refused'], report['hand_goals_unsent']) == (0, 0)


def test_what_is_held_stays_held_when_its_goal_has_been_aborted(bench: Bench) -> None:
    bench.serve()
    bench.told = 5.0
    bench.until(lambda: bench.finger.goals == [(5.0, 20.0)])
    bench.until(lambda: not bench.outputs.unanswered())
    bench.finger._finish('abort')  # Stalled, as on an object.
    bench.run(1.5)
    bench.holding = True
    bench.run(0.5)
    assert (bench.finger.goals, bench.finger.cancelled) == ([(5.0, 20.0)], 0)
    assert bench.outputs.unanswered() == []


def test_a_server_that_was_restarted_gets_the_goal_of_now(bench: Bench) -> None:
    bench.serve()
    bench.told = 0.04
    bench.until(lambda: bench.finger.goals == [(0.04, 20.0)])
    bench.end()
    bench.run(0.3)
    bench.told = 0.08
    bench.until(lambda: bench.outputs.report()['hand_goals_unsent'] > 0)
    bench.serve(Finger(0.0, 1.0))
    bench.until(lambda: bench.finger.goals == [(0.08, 20.0)])
    bench.run(1.0)
    assert len(bench.finger.goals) == 1


def test_a_goal_is_tried_again_where_it_is_refused_or_nobody_answers(plain: Bench) -> None:
    plain.finger.accepts = False
    plain.serve()
    plain.until(lambda: plain.outputs.report()['hand_goals_refused'] >= 2)
    plain.finger.accepts = True
    plain.until(lambda: len(plain.finger.goals) == 1)
    plain.run(0.3)
    plain.server_hangs = True
    goals = plain.outputs.report()['hand_goals']
    plain.told = 0.5
    plain.run(3.5)
    assert plain.outputs.report()['hand_goals'] - goals in (3, 4)
    assert plain.outputs.unanswered() == ['hand/gripper_cmd']
    plain.outputs.stop(0.0)
    plain.server_hangs = False  # It wakes up, and takes what has waited.
    plain.until(lambda: plain.finger.cancelled >= 1, plain.listen)
    plain.until(lambda: not plain.outputs.unanswered(), plain.listen)
    moved = plain.finger.position
    for _ in range(20):
        plain.listen()
    assert plain.finger.position == moved < 0.5


def test_an_action_that_nobody_serves_or_of_another_type_is_refused_by_name(
    plain: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_outputs, 'SERVER_LIMIT_S', 0.3)
    end = serve(plain.driver, plain.command.topic, Finger(0.0, 1.0), PARALLEL_GRIPPER)
    try:
        with pytest.raises(ConfigError, match=rf"'hand': no {GRIPPER} server at /hand/gripper_cmd"):
            plain.outputs.check_servers()
    finally:
        end()
