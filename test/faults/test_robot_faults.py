# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A simulated robot in real time loses what it depends on: it goes on, or it holds; never worse."""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from builders import slow_down
from processes import wait_for
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from ros_fixtures import Caller
from std_msgs.msg import Float64MultiArray, UInt8MultiArray
from std_srvs.srv import Trigger

from residual_rl_ros.demo import quick
from residual_rl_ros.finetune import load_finetune
from residual_rl_ros.residual.actor_file import CHECKPOINTS
from residual_rl_ros.ros import qos
from residual_rl_ros.ros.bringup import Bringup, ros_environment
from residual_rl_ros.ros.messages import byte_array, float_array
from residual_rl_ros.ros.monitor import Monitor
from residual_rl_ros.ros.topology import NodeSpec, RobotRun, finetune_topology, robot_topology

pytestmark = pytest.mark.ros

LIMIT_S = 60.0
CONFIG = quick(load_finetune('push_to_goal'))
BASE, ROBOT, ROBOT_FILE = CONFIG.load()
COMMANDS = f'/{ROBOT.command.topic}'


class Bystander:
    """A node of its own that records the commands and can publish anything."""

    def __init__(self, domain_id: int) -> None:
        self.commands: list[np.ndarray] = []
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node('bystander', context=self._context)
        self.node.create_subscription(Float64MultiArray, COMMANDS, self._record, 100)
        self.commands_at_end: int | None = None
        self.node.create_subscription(
            Float64MultiArray, '/step_feedback', self._on_feedback, qos.FEEDBACK
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _record(self, message: Float64MultiArray) -> None:
        self.commands.append(np.array(message.data))

    def _on_feedback(self, message: Float64MultiArray) -> None:
        if len(message.data) == 5 and (message.data[2] or message.data[3]):
            self.commands_at_end = len(self.commands)

    def early_in_an_episode(self) -> bool:
        """Return whether an episode has begun and will last some steps more."""
        at_end = self.commands_at_end
        return at_end is not None and 5 <= len(self.commands) - at_end <= 10

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

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
                prefetch_steps=CONFIG.prefetch_steps,
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


def goes_on(monitor: Monitor, node: str = 'policy_node') -> None:
    """Wait until a policy has made ten more transitions."""
    before = count(monitor, node, 'transitions')
    wait_for(lambda: count(monitor, node, 'transitions') > before + 10, LIMIT_S, f'{node}')


def nothing_lost(monitor: Monitor, missing: str, policy: str) -> None:
    """Fail if more decisions are missing than holds of a busy machine can have cut short."""
    wait_for(
        lambda: count(monitor, 'learner_node', missing) <= count(monitor, policy, 'holds'),
        5.0,
        f'an explanation of {missing}',
    )


def test_a_dead_simulator_is_held_for_and_then_a_fault(domain_id: int, tmp_path: Path) -> None:
    with running(domain_id, tmp_path) as (monitor, bringup, bystander):
        bringup.processes['mujoco_sim_node'].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: 'policy_node' in monitor.errors(), 10.0, 'the fault')
        # The age limit of a channel, the hold limit of 1 s, and the period of the diagnostics.
        assert time.monotonic() - killed < 4.0
        assert 'held for' in monitor.errors()['policy_node']
        assert monitor.values('policy_node')['active'] == 'False'
        assert not bringup.ended('policy_node')
        np.testing.assert_array_equal(bystander.commands[-1], bystander.commands[-2])
        bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


def test_a_stopped_learner_is_not_waited_for_and_loses_nothing(
    domain_id: int, tmp_path: Path
) -> None:
    with running(domain_id, tmp_path) as (monitor, bringup, bystander):
        learner = bringup.processes['learner_node']
        learner.send_signal(signal.SIGSTOP)
        goes_on(monitor)
        learner.send_signal(signal.SIGCONT)
        sent = count(monitor, 'policy_node', 'transitions')
        wait_for(lambda: count(monitor, 'learner_node', 'transitions') >= sent, LIMIT_S, 'the rest')
        nothing_lost(monitor, 'missing', 'policy_node')
        assert count(monitor, 'learner_node', 'malformed') == 0
        bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


def test_a_policy_that_is_told_to_stop_holds_first(domain_id: int, tmp_path: Path) -> None:
    with running(domain_id, tmp_path) as (monitor, bringup, bystander):
        policy = bringup.processes['policy_node']
        wait_for(bystander.early_in_an_episode, LIMIT_S, 'an episode')
        policy.send_signal(signal.SIGTERM)
        assert policy.wait(timeout=10.0) == 0
        time.sleep(0.5)
        np.testing.assert_array_equal(bystander.commands[-1], bystander.commands[-2])
        bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


def test_junk_on_the_topics_is_counted_and_changes_nothing(domain_id: int, tmp_path: Path) -> None:
    """About 1 GB/h on each of three topics."""
    with running(domain_id, tmp_path, max_weights_bytes=2_000_000) as (monitor, bringup, bystander):
        create = bystander.node.create_publisher
        weights = create(UInt8MultiArray, '/learner_node/actor', qos.LATCHED)
        transitions = create(Float64MultiArray, '/policy_node/transitions', qos.TRANSITIONS)
        feedback = create(Float64MultiArray, '/step_feedback', qos.FEEDBACK)
        rng = np.random.default_rng(0)
        for number in range(20):
            weights.publish(byte_array(rng.bytes(3_000_000 if number % 2 else 100)))
            transitions.publish(float_array(rng.normal(size=30_000), f'junk{number}'))
            feedback.publish(float_array(rng.normal(size=30_000)))
            time.sleep(0.2)
        feedback.publish(float_array([1e300, 0.0, 0.0, 0.0, -1.0]))
        goes_on(monitor)
        assert count(monitor, 'policy_node', 'weights_refused_oversized') == 10
        assert count(monitor, 'policy_node', 'weights_refused_malformed') == 10
        assert count(monitor, 'policy_node', 'refused_feedback') == 21
        assert count(monitor, 'learner_node', 'malformed') == 20
        bringup.check()
        bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


def test_a_base_policy_ten_times_too_slow_is_held_for(
    domain_id: int, tmp_path: Path, call: Caller
) -> None:
    """Inference takes ten control steps, and a chunk is asked for when it is due."""
    slow = tmp_path / 'slow.onnx'
    slow_down(BASE.path, slow, 10.0 / ROBOT.control_rate_hz)
    late = {'base_policy': str(slow), 'hold_limit_s': 5.0}
    with running(domain_id, tmp_path, **late) as (monitor, bringup, bystander):
        goes_on(monitor)
        assert count(monitor, 'policy_node', 'late_chunks') > 5
        assert 'raise prefetch_steps' in (tmp_path / 'logs' / 'policy_node.log').read_text()
        assert monitor.values('policy_node')['active'] == 'True'
        limit = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=0.2)
        parameters = [Parameter(name='hold_limit_s', value=limit)]
        call(SetParameters, '/policy_node/set_parameters', parameters=parameters)
        wait_for(lambda: 'policy_node' in monitor.errors(), 5.0, 'the fault')
        assert 'the base policy' in monitor.errors()['policy_node']
        np.testing.assert_array_equal(bystander.commands[-1], bystander.commands[-2])
        bringup.check()
        bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


def test_a_full_disk_costs_no_checkpoint_and_no_learning(
    domain_id: int, tmp_path: Path, call: Caller
) -> None:
    """The learner may not write another byte: to the kernel a limit is as good as a full disk."""
    with running(domain_id, tmp_path) as (monitor, bringup, _):
        assert call(Trigger, '/learner_node/save').success
        latest = tmp_path / 'learner' / CHECKPOINTS / 'latest'
        before = {path.name: path.read_bytes() for path in latest.iterdir()}
        learner = bringup.processes['learner_node'].pid
        _, hard = resource.prlimit(learner, resource.RLIMIT_FSIZE)
        resource.prlimit(learner, resource.RLIMIT_FSIZE, (0, hard))
        answer = call(Trigger, '/learner_node/save')
        assert not answer.success
        assert 'cannot write checkpoint' in answer.message
        assert {path.name: path.read_bytes() for path in latest.iterdir()} == before
        learned = count(monitor, 'learner_node', 'updates')
        wait_for(
            lambda: count(monitor, 'learner_node', 'updates') > learned + 50, LIMIT_S, 'learning'
        )
        goes_on(monitor)
        resource.prlimit(learner, resource.RLIMIT_FSIZE, (hard, hard))
        assert call(Trigger, '/learner_node/save').success
        assert {path.name: path.read_bytes() for path in latest.iterdir()} != before
        bringup.check()


def test_a_robot_of_a_fleet_fails_alone(domain_id: int, tmp_path: Path, call: Caller) -> None:
    with running(domain_id, tmp_path, ('left', 'right')) as (monitor, bringup, _):
        for robot in ('left', 'right'):
            name = f'{robot}/transitions'
            wait_for(lambda name=name: count(monitor, 'learner_node', name) > 3, LIMIT_S, name)
        bringup.processes['left/policy_node'].send_signal(signal.SIGKILL)
        goes_on(monitor, 'right/policy_node')
        nothing_lost(monitor, 'right/missing', 'right/policy_node')
        assert count(monitor, 'learner_node', 'malformed') == 0
        assert call(Trigger, '/learner_node/save').success
        sequence = count(monitor, 'right/policy_node', 'weights_accepted')
        assert sequence > 0


def test_a_learner_killed_twice_between_two_checkpoints_is_still_heard(
    domain_id: int, tmp_path: Path, call: Caller
) -> None:
    """Each time it forgets the epoch in which it published; the policy node runs on."""
    with running(domain_id, tmp_path, hold_limit_s=5.0) as (monitor, bringup, bystander):
        assert call(Trigger, '/learner_node/save').success
        environment = ros_environment(domain_id)
        bringup.processes['learner_node'].send_signal(signal.SIGKILL)
        for crash, epoch in enumerate((2, 3)):
            with Bringup([resuming(tmp_path)], tmp_path / f'logs{crash}', environment) as again:
                expected = (monitor, float(epoch))
                wait_for(lambda e=expected: in_epoch(*e), LIMIT_S, f'epoch {epoch}')
                wait_for(lambda: count(monitor, 'policy_node', 'sequence') > 0, LIMIT_S, 'actors')
                goes_on(monitor)
                again.processes['learner_node'].send_signal(signal.SIGKILL)
        assert monitor.errors() == {}
        bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


def in_epoch(monitor: Monitor, epoch: float) -> bool:
    return count(monitor, 'policy_node', 'epoch') == epoch


def resuming(folder: Path) -> NodeSpec:
    """Return the learner of `running`, going on from its checkpoint."""
    return NodeSpec(
        'learner_node',
        True,
        (),
        {
            'preset': CONFIG.preset,
            'output_dir': str(folder / 'learner'),
            'resume': True,
            'overrides': CONFIG.overrides,
        },
    )
