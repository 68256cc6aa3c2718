# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A simulator that owns the time pauses, jumps and starts over; the policy node goes with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rclpy
from processes import wait_for
from ros_fixtures import report_often
from rosgraph_msgs.msg import Clock

from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.config.run import load_run
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import ChannelEncoder, to_time
from residual_rl_ros.ros.common.message_types import message_class

pytestmark = pytest.mark.ros

LIMIT_S = 30.0
CONFIG = load_run('push_to_goal')
RESOLVED = CONFIG.resolve()
BASE, ROBOT, ROBOT_FILE = RESOLVED.policy, RESOLVED.robot, RESOLVED.robot_file
PERIOD_S = 1.0 / ROBOT.control_rate_hz


class Simulator:
    """Publishes a clock and sensors, as fast as the wall clock, until it is paused.

    The arm is at once where it is told to be.
    """

    def __init__(self, domain_id: int) -> None:
        self.now = 100.0
        self.paused = False
        self.commands: list[np.ndarray] = []
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = node = rclpy.create_node('simulator', context=self._context)
        self._executor = rclpy.executors.SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._clock = node.create_publisher(Clock, '/clock', qos.SENSOR)
        self._channels: list[tuple[ChannelEncoder, Any, np.ndarray]] = []
        for channel in ROBOT.channels:
            writer = ChannelEncoder(channel)
            publisher = node.create_publisher(writer.message_type, channel.topic, qos.SENSOR)
            values = np.full(len(channel.observation_names), 0.1)
            self._channels.append((writer, publisher, values))
        kind = message_class(ROBOT.commands[0].type)
        node.create_subscription(kind, ROBOT.commands[0].topic, self._on_command, qos.FEEDBACK)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _on_command(self, message: Any) -> None:
        self.commands.append(np.array(message.data))
        self._channels[0][2][: len(message.data)] = message.data

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self.paused:
                self.now += PERIOD_S
                self._clock.publish(Clock(clock=to_time(self.now)))
                for writer, publisher, values in self._channels:
                    publisher.publish(writer.message(values, self.now))
            due = time.monotonic() + PERIOD_S
            while (left := due - time.monotonic()) > 0.0:
                self._executor.spin_once(timeout_sec=left)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=2.0)
        self._node.destroy_node()
        self._context.try_shutdown()


@pytest.fixture(scope='module')
def robot(
    worker_domain: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Monitor, Simulator]]:
    """Run a policy on a simulator's time: one for all these tests."""
    (policy,) = robot_topology(
        RobotRun(
            ROBOT_FILE,
            BASE.path,
            None,
            decision_steps=1,
            residual_scale=CONFIG.residual_scale,
            splicing=Splicing(2),
            auto_start=True,
        )
    )
    policy = replace(policy, parameters={**policy.parameters, 'use_sim_time': True})
    logs, environment = tmp_path_factory.mktemp('logs'), ros_environment(worker_domain)
    simulator = Simulator(worker_domain)
    try:
        with pytest.MonkeyPatch.context() as patch:
            report_often(patch)
            with (
                Monitor(worker_domain) as monitor,
                Bringup([policy], logs, environment) as bringup,
            ):
                goes_on(monitor)
                yield monitor, simulator
                bringup.check()
    finally:
        simulator.close()


@pytest.fixture
def running(
    robot: tuple[Monitor, Simulator], domain_id: int
) -> Iterator[tuple[Monitor, Simulator]]:
    """Judge what was commanded during a test."""
    monitor, simulator = robot
    yield monitor, simulator
    assert monitor.errors() == {}
    commands = np.array(simulator.commands)
    assert np.isfinite(commands).all()
    assert (commands >= ROBOT.action.lower).all()
    assert (commands <= ROBOT.action.upper).all()
    assert (np.abs(np.diff(commands, axis=0)) <= ROBOT.action.max_step + 1e-9).all()


def goes_on(monitor: Monitor) -> None:
    """Wait until the policy has made three more transitions."""

    def transitions() -> float:
        return monitor.number('policy_node', 'transitions')

    before = transitions()
    wait_for(lambda: transitions() > before + 3, LIMIT_S, 'motion')


def test_a_pause_is_no_time_at_all(running: tuple[Monitor, Simulator]) -> None:
    monitor, simulator = running
    holds = monitor.number('policy_node', 'holds')
    simulator.paused = True
    time.sleep(0.5)
    commands = len(simulator.commands)
    time.sleep(2.5)  # Longer than hold_limit_s, by the wall clock.
    assert len(simulator.commands) == commands
    assert monitor.values('policy_node')['active'] == 'True'
    simulator.paused = False
    goes_on(monitor)
    assert monitor.number('policy_node', 'holds') <= holds + 1


@pytest.mark.parametrize('jump', [10.0, -10.0, -99.0], ids=['forth', 'back', 'to the start'])
def test_the_robot_goes_on_after_a_jump(running: tuple[Monitor, Simulator], jump: float) -> None:
    monitor, simulator = running
    simulator.now += jump
    jumped = simulator.now
    goes_on(monitor)
    assert simulator.now - jumped < 5.0
