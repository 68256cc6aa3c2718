# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Lifecycle nodes recover: what failed is taken back and can be configured again."""

from __future__ import annotations

import errno
import gc
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from own_nodes import own_nodes
from rclpy._rclpy_pybind11 import RCLError
from rclpy.duration import Duration
from std_msgs.msg import Bool

from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import CommandError, ConfigError, UnsafeCommandError
from residual_rl_ros.robot.stamps import rounded, to_seconds
from residual_rl_ros.ros.bringup.demo import quick
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology
from residual_rl_ros.ros.common import process as memory_lock
from residual_rl_ros.ros.common.managed_node import OK, WARN, ManagedNode, change_state_service
from residual_rl_ros.ros.common.process import memory_lock_limit
from residual_rl_ros.ros.nodes.learner_node import LearnerNode
from residual_rl_ros.ros.nodes.policy_node import ARRIVAL_LIMIT_S, PolicyNode

pytestmark = pytest.mark.ros

CONFIG = quick(load_run('push_to_goal'))
RESOLVED = CONFIG.resolve()
BASE, ROBOT_FILE = RESOLVED.policy, RESOLVED.robot_file


@pytest.fixture
def make(domain_id: int) -> Iterator[Callable[..., Any]]:
    """Make nodes in this process, which know no other context than the default one."""
    with own_nodes() as made:

        def create(kind: type[ManagedNode], spec: NodeSpec | None = None) -> ManagedNode:
            rclpy.init(args=[] if spec is None else spec.ros_arguments(), domain_id=domain_id)
            made.append(kind())
            return made[-1]

        yield create


def state(node: ManagedNode) -> str:
    return str(node._state_machine.current_state[1])


def entities(node: ManagedNode) -> int:
    return len(list(node._entities()))


class Stumbling(ManagedNode):
    """Fails as it is told to, after it has opened a topic."""

    def __init__(self) -> None:
        super().__init__('stumbling')
        self.error: Exception | None = None

    def configure(self) -> None:
        """Open a topic, then fail or not."""
        self.create_lifecycle_publisher(Bool, 'example', 1)
        if self.error is not None:
            raise self.error

    def activate(self) -> None:
        """Fail or not."""
        self.create_timer(1.0, lambda: None)
        if self.error is not None:
            raise self.error

    def deactivate(self) -> None:
        """Fail or not."""
        if self.error is not None:
            raise self.error


def test_an_error_recovers_to_unconfigured_and_leaves_nothing(make: Any) -> None:
    node = make(Stumbling)
    before = entities(node)
    node.error = RuntimeError('unforeseen')
    node.trigger_configure()
    assert (state(node), entities(node), node.failure) == ('unconfigured', before, node.error)
    node.error = None
    node.trigger_configure()
    assert (state(node), entities(node), node.failure) == ('inactive', before + 1, None)
    node.error = RuntimeError('unforeseen')
    node.trigger_activate()
    assert (state(node), entities(node), node.active) == ('unconfigured', before, False)
    node.error = None
    node.trigger_configure()
    node.trigger_activate()
    assert (state(node), node.active) == ('active', True)


@pytest.mark.parametrize('kind', [CommandError, RuntimeError])
def test_a_node_that_fails_as_it_stops_is_not_active_again(
    kind: type[Exception], make: Any
) -> None:
    node = make(Stumbling)
    before = entities(node)
    node.trigger_configure()
    node.trigger_activate()
    node.error = kind('unforeseen')
    node.trigger_deactivate()
    assert (state(node), entities(node), node.active) == ('unconfigured', before, False)
    assert node.failure is node.error


def test_a_failed_activation_is_forgotten_when_the_next_one_succeeds(make: Any) -> None:
    """Else a clean stop would end with the exit code of that failure."""
    node = make(Stumbling)
    node.trigger_configure()
    node.error = ConfigError('no server')
    node.trigger_activate()
    assert (state(node), node.failure) == ('inactive', node.error)
    node.error = None
    node.trigger_activate()
    assert (state(node), node.failure) == ('active', None)


def test_an_rclpy_that_keeps_its_service_elsewhere_is_named(make: Any) -> None:
    node = make(Stumbling)
    del node._service_change_state
    with pytest.raises(ConfigError, match=r'stumbling cannot start: .* Jazzy \(7.1\) or Kilted'):
        change_state_service(node)


def test_a_problem_is_told_once_and_the_time_is_that_of_stamps(make: Any) -> None:
    node = make(Stumbling)
    node.warn('a joint is missing')
    assert node._health() == (WARN, 'a joint is missing')
    assert node._health() == (OK, 'running')
    nanoseconds = 1_764_500_000_123_456_789
    handle = SimpleNamespace(get_now=lambda: SimpleNamespace(nanoseconds=nanoseconds))
    node.get_clock = lambda: SimpleNamespace(handle=handle)
    assert node._now() == to_seconds(*divmod(nanoseconds, 10**9)) == rounded(node._now())


def policy(base_policy: Path, **parameters: Any) -> NodeSpec:
    """Return a policy node without privileges: to lock what this process has takes seconds."""
    (spec,) = robot_topology(RobotRun(ROBOT_FILE, base_policy, None, decision_steps=4))
    plain = {**spec.parameters, 'realtime_priority': 0, 'lock_memory': False}
    return NodeSpec(spec.executable, True, spec.parameter_files, {**plain, **parameters})


def test_a_policy_that_misses_its_model_is_configured_when_it_is_there(
    make: Any, tmp_path: Path
) -> None:
    model = tmp_path / 'late.onnx'
    node = make(PolicyNode, policy(model))
    before = entities(node)
    node.trigger_configure()
    assert (state(node), entities(node)) == ('unconfigured', before)
    assert 'late.onnx' in str(node.failure)
    shutil.copy(BASE.path, model)
    for _ in range(2):
        node.trigger_configure()
        node.trigger_activate()
        assert (state(node), node.failure) == ('active', None)
        node.trigger_deactivate()
        node.trigger_cleanup()
        assert (state(node), entities(node)) == ('unconfigured', before)


@pytest.mark.parametrize('answer', [True, False, None])
def test_a_policy_waits_for_its_last_command_to_arrive_as_far_as_that_can_be_known(
    answer: bool | None, make: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """None is an RMW without acknowledgements."""
    node = make(PolicyNode, policy(BASE.path))
    node.trigger_configure()
    node.trigger_activate()
    waited: list[Duration] = []

    def wait(limit: Duration) -> bool:
        waited.append(limit)
        if answer is None:
            raise RCLError('not supported')
        return answer

    monkeypatch.setattr(node._outputs._topics[0].publisher, 'wait_for_all_acked', wait)
    node.trigger_deactivate()
    assert (state(node), node.failure) == ('inactive', None)
    (limit,) = waited
    assert 0.0 <= limit.nanoseconds * 1e-9 <= ARRIVAL_LIMIT_S
    said = 'has not acknowledged the last command' in capfd.readouterr().err
    assert said == (answer is False)


def test_a_learner_that_could_not_write_is_configured_when_it_can(
    make: Any, tmp_path: Path
) -> None:
    output = tmp_path / 'file'
    output.write_text('in the way')
    parameters = {'output_dir': str(output), 'overrides': {'gamma': 0.5}}
    node = make(LearnerNode, NodeSpec('learner_node', True, (), parameters))
    before = entities(node)
    node.trigger_configure()
    assert (state(node), entities(node)) == ('unconfigured', before)
    assert 'cannot be written' in str(node.failure)
    output.unlink()
    node.trigger_configure()
    node.trigger_activate()
    assert (state(node), node.failure) == ('active', None)


def test_what_lives_as_long_as_the_node_is_no_work_for_the_collector(make: Any) -> None:
    node = make(PolicyNode, policy(BASE.path))
    node.trigger_configure()
    frozen = gc.get_freeze_count()
    node.trigger_activate()
    assert gc.get_freeze_count() > frozen + 10_000


def test_a_refused_real_time_priority_is_a_warning_that_says_what_to_do(
    make: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: Any) -> None:
        raise PermissionError(errno.EPERM, 'Operation not permitted')

    node = make(PolicyNode, policy(BASE.path, realtime_priority=60))
    node.trigger_configure()
    monkeypatch.setattr(os, 'sched_setscheduler', refuse)
    node.trigger_activate()
    assert state(node) == 'active'
    said = capfd.readouterr().err
    assert 'realtime_priority 60: Operation not permitted' in said
    assert '- rtprio 60" to /etc/security/limits.conf' in said
    node.trigger_deactivate()
    assert state(node) == 'inactive'


def test_control_keeps_its_memory_while_it_runs_and_no_longer(make: Any) -> None:
    if memory_lock_limit() != resource.RLIM_INFINITY:
        pytest.skip('this user may not lock memory')
    node = make(PolicyNode, policy(BASE.path, lock_memory=True))
    node.trigger_configure()
    assert locked_bytes() == 0
    node.trigger_activate()
    assert locked_bytes() > 50 * 2**20
    node.trigger_deactivate()
    assert locked_bytes() == 0


def test_memory_that_may_not_be_locked_is_a_warning_that_says_what_to_do(
    make: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    node = make(PolicyNode, policy(BASE.path, lock_memory=True))
    node.trigger_configure()
    monkeypatch.setattr(memory_lock, 'memory_lock_limit', lambda: 2**26)
    node.trigger_activate()
    assert (state(node), locked_bytes()) == ('active', 0)
    said = capfd.readouterr().err
    assert 'lock_memory: limited to 67108864 bytes' in said
    assert '- memlock unlimited" to /etc/security/limits.conf' in said
    node.trigger_deactivate()
    assert state(node) == 'inactive'


def test_privileges_end_with_control_even_if_its_end_fails(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make(PolicyNode, policy(BASE.path, lock_memory=True))
    node.trigger_configure()
    node.trigger_activate()
    assert locked_bytes() > 0

    def fail(now: float) -> None:
        raise RuntimeError('no end')

    monkeypatch.setattr(node._loop, 'deactivate', fail)
    node.trigger_deactivate()
    assert (state(node), locked_bytes()) == ('unconfigured', 0)


@pytest.mark.parametrize(
    'values', [{'lock_memory': False}, {'lock_memory': True, 'lockstep': True}]
)
def test_memory_is_not_locked_where_it_is_not_asked_for(make: Any, values: dict[str, Any]) -> None:
    node = make(PolicyNode, policy(BASE.path, **values))
    node.trigger_configure()
    node.trigger_activate()
    assert (state(node), locked_bytes()) == ('active', 0)


def moving(make: Any, tmp_path: Path, **command: Any) -> Any:
    """Return an active policy node of an arm that is on its way, and not in an episode."""
    text = yaml.safe_load(ROBOT_FILE.read_text(encoding='utf-8'))
    text['/**']['ros__parameters']['robot']['command'].update(command)
    file = tmp_path / 'robot.yaml'
    file.write_text(yaml.safe_dump(text))
    (spec,) = robot_topology(RobotRun(file, BASE.path, None, decision_steps=4))
    plain = {**spec.parameters, 'realtime_priority': 0, 'lock_memory': False}
    node = make(PolicyNode, NodeSpec(spec.executable, True, spec.parameter_files, plain))
    node.trigger_configure()
    node.trigger_activate()
    assert (state(node), node.failure) == ('active', None)
    now = node._now()
    node._now = lambda: now  # However slow this machine is.
    for value in (0.0, 0.1):
        node.send_command(np.full(7, value), now)
    return node


def sent_by(publisher: Any, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Return what a publisher of arrays is given from now on."""
    sent: list[np.ndarray] = []
    monkeypatch.setattr(
        publisher, 'publish', lambda message: sent.append(np.frombuffer(message[-56:]).copy())
    )
    return sent


def test_a_policy_that_stops_sends_the_rest_of_a_motion(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = moving(make, tmp_path, rate_hz=100.0, interpolation='linear')
    sent = sent_by(node._outputs._streams[0]._publisher, monkeypatch)
    assert node._loop._sleep == node._outputs.pass_time
    node.trigger_deactivate()
    assert state(node) == 'inactive'
    assert len(sent) >= 5
    np.testing.assert_array_equal(sent[-1], 0.1)
    assert np.abs(np.diff(sent, axis=0)).max() <= 0.021


def test_faults_of_several_streams_at_once_stop_the_node_once(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    node = moving(make, tmp_path, rate_hz=100.0)
    sent = sent_by(node._outputs._streams[0]._publisher, monkeypatch)

    def refuse(now: float) -> None:
        raise UnsafeCommandError('no motion')

    monkeypatch.setattr(node._outputs._streams[0]._interpolator, 'sample', refuse)
    node.fault('the first')
    assert (state(node), node.failure) == ('inactive', None)
    node.fault('the last')
    assert (state(node), node._fault_reason) == ('inactive', 'the first')
    np.testing.assert_array_equal(sent, np.full((1, 7), 0.1))
    said = capfd.readouterr().err
    assert 'fault: the first' in said
    assert "fault: command 'command': no motion" in said


def test_a_codec_that_fails_is_a_fault_and_ends_no_node(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = moving(make, tmp_path)

    def fail(values: Any, stamp: float) -> None:
        raise CommandError('its codec failed')

    monkeypatch.setattr(node._outputs._topics[0].writer, 'message', fail)
    node.controller.limiter.commit(np.zeros(7))
    node._loop._publish(np.zeros(7), node._now())
    assert (state(node), node.failure) == ('inactive', None)
    assert node._fault_reason == 'its codec failed'
    node.trigger_activate()
    assert state(node) == 'active'


def locked_bytes() -> int:
    """Return how much memory of this process is locked."""
    status = Path('/proc/self/status').read_text(encoding='utf-8')
    return 1024 * int(status.split('VmLck:')[1].split()[0])
