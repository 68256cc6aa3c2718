# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Simulated robots in real time, what runs beside them, and somebody who watches and interferes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from learner_builders import SMALL
from processes import wait_for
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from residual_rl_ros.config.run import load_run
from residual_rl_ros.robot.stamps import label_of
from residual_rl_ros.ros.bringup.demo import quick
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import to_time
from residual_rl_ros.transitions.transition import Transition

LIMIT_S = 60.0
QUICK = quick(load_run('push_to_goal'))
AT_ONCE = {
    **{'warmup_transitions': 10, 'warmup_episodes': 0, 'anchor_updates': 0},
    **{'publish_interval': 5, 'utd': 4.0},
}
"""A robot in real time makes five transitions a second; nobody wants to wait for a hundred."""
CONFIG = replace(QUICK, overrides={**QUICK.overrides, **AT_ONCE, **SMALL})
RESOLVED = CONFIG.resolve()
BASE, ROBOT, ROBOT_FILE = RESOLVED.policy, RESOLVED.robot, RESOLVED.robot_file
JOINTS = ROBOT.channels[0].joints
COMMANDS = f'/{ROBOT.commands[0].topic}'
LAYOUT = CONFIG.controller_config(0, False, False).build(BASE, ROBOT.action).layout


class Bystander:
    """A node of its own that records commands and transitions and can publish anything."""

    def __init__(self, domain_id: int) -> None:
        self.commands: list[np.ndarray] = []
        self.transitions: list[Transition] = []
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node('bystander', context=self._context)
        self.node.create_subscription(Float64MultiArray, COMMANDS, self._record, 100)
        self.node.create_subscription(
            Float64MultiArray, '/policy_node/transitions', self._on_transition, qos.TRANSITIONS
        )
        self.commands_at_end: int | None = None
        self.ends = 0
        """Episodes that the simulator has ended; it then puts the robot elsewhere."""
        self.node.create_subscription(
            Float64MultiArray, '/step_feedback', self._on_feedback, qos.FEEDBACK
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _record(self, message: Float64MultiArray) -> None:
        self.commands.append(np.array(message.data))

    def _on_transition(self, message: Float64MultiArray) -> None:
        if label_of(message) == LAYOUT.label:
            self.transitions.append(LAYOUT.decode(message.data, LAYOUT.label))

    def _on_feedback(self, message: Float64MultiArray) -> None:
        if len(message.data) == 5 and (message.data[2] or message.data[3]):
            self.commands_at_end = len(self.commands)
            self.ends += 1

    def early_in_an_episode(self) -> bool:
        """Return whether an episode has begun and will last some steps more."""
        at_end = self.commands_at_end
        return at_end is not None and 5 <= len(self.commands) - at_end <= 10

    def is_commanded(self) -> bool:
        """Return whether anybody publishes commands."""
        return self.node.count_publishers(COMMANDS) > 0

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def check_hold(self) -> None:
        """Fail if a policy that has ended did not repeat its last command; it may be on its way."""
        wait_for(lambda: np.array_equal(*self.commands[-2:]), 5.0, 'the hold of a policy that ends')

    def check_commands(self, episodes: int) -> None:
        """Fail if a command is illegal; at the start of an episode the robot is elsewhere."""
        commands = np.array(self.commands)
        assert np.isfinite(commands).all()
        assert (commands >= ROBOT.action.lower).all()
        assert (commands <= ROBOT.action.upper).all()
        steps = np.abs(np.diff(commands, axis=0))
        assert (steps > ROBOT.action.max_step + 1e-9).any(axis=1).sum() <= episodes

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._thread.join(timeout=2.0)
        self.node.destroy_node()
        self._context.try_shutdown()


@dataclass
class Running:
    """A simulated robot in real time that several tests share, and who watches it."""

    folder: Path
    monitor: Monitor
    bringup: Bringup
    bystander: Bystander


@contextmanager
def running(
    domain_id: int, folder: Path, namespaces: tuple[str, ...] = ('',), **policy: Any
) -> Iterator[tuple[Monitor, Bringup, Bystander]]:
    """Start simulated robots in real time, with what runs beside them, until all of them move."""
    nodes = [
        *(
            finetune_topology(
                CONFIG, ROBOT_FILE, BASE.path, folder, seed, 0, lockstep=False, namespace=namespace
            )[-1]
            for seed, namespace in enumerate(namespaces)
        ),
        *robot_topology(
            RobotRun(
                ROBOT_FILE,
                BASE.path,
                folder / 'learner',
                overrides=CONFIG.overrides,
                decision_steps=CONFIG.decision_steps,
                residual_scale=CONFIG.residual_scale,
                splicing=CONFIG.splicing,
                auto_start=True,
                namespaces=namespaces,
            )
        ),
    ]
    nodes = [
        replace(node, parameters={**node.parameters, **policy})
        if node.executable == 'policy_node'
        else node
        for node in nodes
    ]
    bystander = Bystander(domain_id)
    try:
        with (
            Monitor(domain_id) as monitor,
            Bringup(nodes, folder / 'logs', ros_environment(domain_id)) as bringup,
        ):
            for node in nodes:
                if node.executable == 'policy_node':
                    sent = (monitor, node.name, 'transitions')
                    wait_for(lambda sent=sent: count(*sent) > 3, LIMIT_S, f'motion of {node.name}')
            wait_for(lambda: count(monitor, 'learner_node', 'transitions') > 3, LIMIT_S, 'learner')
            yield monitor, bringup, bystander
    finally:
        bystander.close()


def count(monitor: Monitor, node: str, key: str) -> float:
    return monitor.number(node, key)


def goes_on(monitor: Monitor, node: str = 'policy_node', transitions: int = 5) -> None:
    """Wait until a policy has made more transitions."""
    wanted = count(monitor, node, 'transitions') + transitions
    wait_for(lambda: count(monitor, node, 'transitions') > wanted, LIMIT_S, f'{node}')


def nothing_lost(monitor: Monitor, missing: str, policy: str) -> None:
    """Fail if more decisions are missing than holds of a busy machine can have cut short."""
    wait_for(
        lambda: count(monitor, 'learner_node', missing) <= count(monitor, policy, 'holds'),
        5.0,
        f'an explanation of {missing}',
    )


@contextmanager
def repeating(action: Callable[[], None], period_s: float = 0.05) -> Iterator[None]:
    """Do something again and again, beside what the test does."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(period_s):
            action()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class BadJointStates:
    """Publishes joint states that cannot be used: NaN, of the wrong size, of other joints."""

    def __init__(self, bystander: Bystander) -> None:
        self._node = bystander.node
        self._publisher = self._node.create_publisher(JointState, '/joint_states', 10)

    def __call__(self) -> None:
        good = [0.0] * len(JOINTS)
        for names, position in (
            (list(JOINTS), [*good[1:], float('nan')]),
            (list(JOINTS), good[:3]),
            ([f'left_{name}' for name in JOINTS], good),
        ):
            message = JointState(name=names, position=position, velocity=good)
            message.header.stamp = to_time(self._node.get_clock().now().nanoseconds * 1e-9)
            self._publisher.publish(message)
