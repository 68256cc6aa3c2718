# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a control step costs with two commands that are sent between steps too, against one.

The loop of `bench control`'s robot (n = 40, m = 7, an actor of 256 x 256) runs at 200 Hz in this
process and publishes to another. It commands in turns: one Float64MultiArray of all actions, or an
arm and a gripper, each at 1000 Hz with cubic interpolation. A step is what `tick` measures in
`bench control`; a period is from one step to the next, with the samples in between. Times are those
of the wall, at the priority of policy_node, and of the thread, which counts nothing of what else
the computer does meanwhile.
Intervals are those of a bootstrap over the turns.

    python benchmarks/command_channels.py --turns 20 --seconds 3
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import typer
import yaml
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Float64, Float64MultiArray

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.control.composition import BlendRamp
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.policy_loop import LoopParts
from residual_rl_ros.control.real_time_loop import STOP_LIMIT_S, RealTimeLoop, RealTimeRules
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.ros.bringup.domains import claim_domain
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.command_outputs import CommandOutputs
from residual_rl_ros.ros.common.managed_node import ManagedNode
from residual_rl_ros.ros.common.node_parameters import PolicyParameters
from residual_rl_ros.ros.common.process import take_privileges
from residual_rl_ros.ros.tools.bench_robot import (
    LAYOUT,
    RESIDUAL_SCALE,
    M,
    N,
    write_base_policy,
    write_robot,
)
from residual_rl_ros.transitions.cdr import labelled_array
from residual_rl_ros.transitions.transition import Transition

RATE_HZ, CONTROLLER_HZ = 200.0, 1000.0
QUANTILES = (50, 99)
RESAMPLES = 1000
MEASURED = ('step_wall', 'step_thread', 'period_wall', 'period_thread')
SETTLING_S = 0.1
"""Part of a turn that is not counted: what was in the caches is the other one's."""
ARM, HAND, ALONE = 'arm/commands', 'hand/commands', 'commands'
TOPICS = {ARM: Float64MultiArray, HAND: Float64, ALONE: Float64MultiArray}


def several(rate_hz: float) -> dict[str, Any]:
    """Return an arm and a gripper as commands, sent so often."""
    names = list(LAYOUT.action_names)
    kinds = {ARM: 'std_msgs/msg/Float64MultiArray', HAND: 'std_msgs/msg/Float64'}
    parts = {ARM: names[:-1], HAND: names[-1:]}
    channels = {
        topic.partition('/')[0]: {
            'topic': topic,
            'type': kind,
            'actions': parts[topic],
            'rate_hz': rate_hz,
        }
        for topic, kind in kinds.items()
    }
    return {'channels': list(channels), **channels}


class Bench(ManagedNode):
    """Runs the loop of a robot, with one of two ways to command it."""

    def __init__(self, folder: Path) -> None:
        from residual_rl_ros.ros.tools.control_bench import make_actor  # Torch takes seconds.

        super().__init__('command_channels')
        described = yaml.safe_load(write_robot(folder / 'robot.yaml', RATE_HZ).read_text())
        robot = described['/**']['ros__parameters']['robot']
        described = {**robot, 'command': several(CONTROLLER_HZ)}
        self._robots = [RobotConfig.from_mapping(each) for each in (robot, described)]
        policy = OnnxBasePolicy(write_base_policy(folder / 'base.onnx', RATE_HZ))
        config = ControllerConfig(1, (RESIDUAL_SCALE,), Splicing(4), explore=True, lockstep=False)
        self._controller = config.build(policy, self._robots[0].action)
        actor = make_actor((256, 256)).to_numpy()
        self._controller.mailbox.submit(encode_weights(actor, WeightsHeader(1, 0, Exploration())))
        self._controller.queue.warm_up()
        assembler = ObservationAssembler(self._robots[0].channels)
        self._loop = RealTimeLoop(
            LoopParts(self._controller, assembler, BlendRamp(0.0), self),
            1.0 / RATE_HZ,
            RealTimeRules(auto_start=True, hold_limit_s=1.0),
        )
        self._rng, self._way = np.random.default_rng(0), 0
        self._times: list[tuple[float, float, float, float]] = []

    def configure(self) -> None:
        """Make both ways to command."""
        publisher = self.create_lifecycle_publisher
        self._transitions = publisher(Float64MultiArray, 'transitions', qos.TRANSITIONS)
        self._outputs = [
            CommandOutputs(self, robot.commands, robot.action, 1.0 / RATE_HZ, lockstep=False)
            for robot in self._robots
        ]

    def turn(self, way: int, seconds: float) -> np.ndarray:
        """Run the robot one way; return what is `MEASURED` of each step, shape (steps, 4) [s]."""
        self._way, self._times = way, []
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._loop.activate()
        timer = self.create_timer(1.0 / RATE_HZ, self._tick, clock=steady)
        self._outputs[way].start(steady, self._now, self.fault)
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        deadline = time.monotonic() + SETTLING_S + seconds
        while time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
        executor.remove_node(self)
        now = self._now()
        self._outputs[way].stop(now)
        self._loop.deactivate(now)
        self._outputs[way].finish(STOP_LIMIT_S)
        self.destroy_timer(timer)
        begin, begin_thread, end, end_thread = np.array(self._times)[:-1].T
        following = np.array(self._times)[1:]
        found = (end - begin, end_thread - begin_thread)
        found += (following[:, 0] - begin, following[:, 1] - begin_thread)
        return np.stack(found, axis=1)[round(SETTLING_S * RATE_HZ) :]

    def _tick(self) -> None:
        now = self._now()
        self._loop.push_observation('state', now, self._rng.normal(size=N))
        began = time.perf_counter(), time.thread_time()
        self._loop.tick(now)
        self._times.append((*began, time.perf_counter(), time.thread_time()))

    def _now(self) -> float:
        return float(self.get_clock().now().nanoseconds * 1e-9)

    def send_command(self, command: np.ndarray, stamp: float, holding: bool = False) -> None:
        """Publish a command."""
        self._outputs[self._way].send(command, stamp, holding)

    def send_transition(self, transition: Transition) -> None:
        """Publish a transition."""
        layout = self._controller.layout
        self._transitions.publish(labelled_array(layout.encode(transition), layout.label))

    def warn(self, reason: str) -> None:
        """Say it."""
        self.get_logger().warning(reason, throttle_duration_sec=2.0)

    def fault(self, reason: str) -> None:
        """End the measurement."""
        raise SystemExit(reason)

    def close(self) -> None:
        """End the threads of the loop."""
        self._loop.close()
        self._controller.queue.close()
        self._controller.residual.plans.close()


def listen(domain_id: int, ended: Event) -> None:
    """Receive every command and transition, as a driver and a learner do."""
    rclpy.init(domain_id=domain_id)
    node = rclpy.create_node('robot')
    for topic, kind in TOPICS.items():
        node.create_subscription(kind, topic, lambda message: None, qos.COMMAND)
    node.create_subscription(
        Float64MultiArray, 'transitions', lambda message: None, qos.TRANSITIONS
    )
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not ended.is_set():
        executor.spin_once(timeout_sec=0.2)
    node.destroy_node()
    rclpy.try_shutdown()


def ratios(
    one: Sequence[np.ndarray], two: Sequence[np.ndarray], quantile: int
) -> tuple[float, float, float]:
    """Return how many times as long the second takes, with its interval of 95 %.

    Args:
        one: durations of each turn.
        two: likewise.
        quantile: of all durations [%].
    """
    rng = np.random.default_rng(0)

    def ratio(turns: np.ndarray) -> float:
        after, before = (np.concatenate([each[turn] for turn in turns]) for each in (two, one))
        return float(np.percentile(after, quantile) / np.percentile(before, quantile))

    turns = len(one)
    drawn = [ratio(rng.integers(turns, size=turns)) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return ratio(np.arange(turns)), float(low), float(high)


def measure(turns: int, seconds: float) -> dict[str, Any]:
    """Return the figures of so many turns of each way."""
    spawn = multiprocessing.get_context('spawn')
    with claim_domain() as domain_id, tempfile.TemporaryDirectory() as folder:
        ended = spawn.Event()
        robot = spawn.Process(target=listen, args=(domain_id, ended), daemon=True)
        robot.start()
        rclpy.init(domain_id=domain_id)
        node = Bench(Path(folder))
        try:
            node.trigger_configure()
            node.trigger_activate()
            _wait(lambda: all(node.count_subscribers(topic) for topic in TOPICS))
            gc.collect()
            gc.freeze()
            times: list[list[np.ndarray]] = [[], []]
            priority, lock = PolicyParameters.realtime_priority, PolicyParameters.lock_memory
            with take_privileges(priority, lock, node.warn):  # As policy_node does.
                for turn in range(turns):
                    for way in (0, 1) if turn % 2 else (1, 0):
                        times[way].append(node.turn(way, seconds))
        finally:
            ended.set()
            node.close()
            node.destroy_node()
            rclpy.try_shutdown()
            robot.join()
            gc.unfreeze()
    result: dict[str, Any] = {'turns': turns, 'seconds': seconds, 'actions': M}
    for kind, name in enumerate(MEASURED):
        one, two = ([turn[:, kind] for turn in each] for each in times)
        for quantile in QUANTILES:
            both = (1e6 * np.percentile(np.concatenate(each), quantile) for each in (one, two))
            result[f'{name}_p{quantile}_us'] = [round(float(each), 1) for each in both]
            ratio = ratios(one, two, quantile)
            result[f'{name}_p{quantile}_ratio'] = [round(each, 3) for each in ratio]
    return {**result, 'load': round(os.getloadavg()[0], 2)}


def _wait(ready: Callable[[], bool], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit('the listener has not joined')
        time.sleep(0.05)


def main(turns: int = 20, seconds: float = 3.0) -> None:
    """Print the figures."""
    print(json.dumps(measure(turns, seconds), indent=2))


if __name__ == '__main__':
    typer.run(main)
