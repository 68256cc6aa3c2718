# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A key does what it says, and says so when it cannot."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from learner_builders import SMALL
from processes import wait_for
from rich.console import Console
from ros_fixtures import report_often

from residual_rl_ros.config.run import load_run
from residual_rl_ros.ros.bringup.demo import quick
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.bringup.status import describe, status_table
from residual_rl_ros.ros.tools.operator import Operator, in_order

pytestmark = pytest.mark.ros

LIMIT_S = 60.0
ATTEMPTS = 3
"""What keeps a key waiting does so each time; what else this machine does, once."""


def came_of(operator: Operator, letter: str) -> str:
    """Return what came of a key, when something has."""

    def done() -> bool:
        operator.look()
        return bool(operator.outcome(letter))

    wait_for(done, LIMIT_S, f'an outcome of {letter}')
    return operator.outcome(letter)


def press(operator: Operator, letter: str) -> str:
    """Press a key and return what came of it."""
    operator.press(letter)
    return came_of(operator, letter)


@dataclass
class Running:
    """A simulated robot in real time, with a learner."""

    monitor: Monitor
    bringup: Bringup


@pytest.fixture(scope='module')
def robot(worker_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp('robot')
    config = quick(load_run('peg_insert'))
    config = replace(config, overrides={**config.overrides, **SMALL})
    resolved = config.resolve()
    base, robot_file = resolved.policy, resolved.robot_file
    nodes = finetune_topology(config, robot_file, base.path, folder, 1, 0, lockstep=False)
    with pytest.MonkeyPatch.context() as patch:
        report_often(patch)
        with (
            Monitor(worker_domain) as monitor,
            Bringup(nodes, folder / 'logs', ros_environment(worker_domain)) as bringup,
        ):
            wait_for(lambda: monitor.number('policy_node', 'transitions') > 3, LIMIT_S, 'motion')
            wait_for(lambda: monitor.status('learner_node') is not None, LIMIT_S, 'the learner')
            yield Running(monitor, bringup)


def test_keys_reach_a_robot_in_real_time(robot: Running, domain_id: int) -> None:
    monitor = robot.monitor
    with Operator(monitor, domain_id=domain_id) as operator:
        off = 'residual off from the next decision'
        wait_for(lambda: press(operator, 'r') == off, LIMIT_S, 'its service')
        assert press(operator, 'r') == 'residual on from the next decision'
        episode = monitor.number('policy_node', 'episode')
        # Between two episodes there is none to end.
        done = 'ending the episode'
        wait_for(lambda: press(operator, 's') == done, LIMIT_S, 'an episode that can be marked')
        wait_for(lambda: monitor.number('policy_node', 'episode') > episode, LIMIT_S, 'next one')
        not_there = 'learner_node/rollback is not there'
        wait_for(lambda: press(operator, 'b') != not_there, LIMIT_S, 'its service')
        assert press(operator, 'h') == 'holding'
        wait_for(lambda: monitor.number('policy_node', 'holds') > 5, LIMIT_S, 'hold')
        assert press(operator, 'g') == 'released'


def test_hold_waits_for_nothing_and_is_acknowledged_or_shouted_about(
    robot: Running, domain_id: int
) -> None:
    monitor, bringup = robot.monitor, robot.bringup
    with Operator(monitor, domain_id=domain_id) as operator:
        wait_for(lambda: press(operator, 'g') == 'released', LIMIT_S, 'the service')
        # A learner that answers nothing keeps no key waiting, and hold least of all.
        bringup.processes['learner_node'].send_signal(signal.SIGSTOP)
        returned, acknowledged = [], []
        for _ in range(ATTEMPTS):
            assert press(operator, 'g') == 'released'
            pressed = time.monotonic()
            operator.press('b')
            operator.press('h')
            returned.append(time.monotonic() - pressed)
            assert came_of(operator, 'h') == 'holding'
            acknowledged.append(time.monotonic() - pressed)
        assert min(returned) < 0.1
        assert min(acknowledged) < 0.5
        assert operator.alarm() == ''
        assert operator.outcome('b') == ''
        assert operator.outcomes()[1].startswith('roll back: asked ')
        wait_for(lambda: monitor.is_stale('learner_node'), LIMIT_S, 'a status that is old')
        assert 'NOTHING HEARD FOR' in describe(monitor, 'learner_node')
        assert press(operator, 'p') == 'learner_node does not report its state'
        # Pressed in fright it stays a hold.
        assert press(operator, 'h') == press(operator, 'h') == 'holding'
        assert press(operator, 'g') == 'released'
        # A hold that nobody acknowledges is shouted about, until somebody does.
        bringup.processes['policy_node'].send_signal(signal.SIGSTOP)
        operator.press('h')
        wait_for(lambda: operator.look() or operator.alarm() != '', LIMIT_S, 'the alarm')
        assert 'HOLD NOT ACKNOWLEDGED' in operator.alarm()
        assert 'USE THE EMERGENCY STOP' in operator.alarm()
        bringup.processes['policy_node'].send_signal(signal.SIGCONT)
        assert came_of(operator, 'h') == 'holding'
        assert operator.alarm() == ''
        bringup.processes['learner_node'].send_signal(signal.SIGCONT)
        assert press(operator, 'g') == 'released'


def fault_by_silence(robot: Running) -> None:
    """Let the simulator fall silent until that is a fault: between two episodes it is none."""
    simulator = robot.bringup.processes['mujoco_sim_node']
    for attempt in range(5):
        time.sleep(0.2 * attempt)
        simulator.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + LIMIT_S / 6.0
        while time.monotonic() < deadline and 'policy_node' not in robot.monitor.errors():
            time.sleep(0.05)
        simulator.send_signal(signal.SIGCONT)
        if 'policy_node' in robot.monitor.errors():
            return
    raise AssertionError('no silence was a fault')


def test_a_second_console_knows_how_the_switches_stand_and_a_fault_can_be_left(
    robot: Running, domain_id: int
) -> None:
    monitor = robot.monitor
    with Operator(monitor, domain_id=domain_id) as first:
        off = 'residual off from the next decision'
        wait_for(lambda: press(first, 'r') == off, LIMIT_S, 'the key')
    switch = 'residual_switch'
    wait_for(lambda: monitor.values('policy_node')[switch] == 'False', LIMIT_S, 'the switch')
    with Operator(monitor, domain_id=domain_id) as second:
        on = 'residual on from the next decision'
        wait_for(lambda: press(second, 'r') == on, LIMIT_S, 'the key')
        fault_by_silence(robot)
        wait_for(lambda: press(second, 'a') == 'done', LIMIT_S, 'the key')
        episode = monitor.number('policy_node', 'episode')
        wait_for(lambda: monitor.number('policy_node', 'episode') > episode, LIMIT_S, 'motion')
        assert monitor.errors() == {}
        assert press(second, 'a') == 'refused; its log says why'


def test_a_service_that_is_not_there_is_named_and_a_hold_without_one_is_an_alarm(
    domain_id: int,
) -> None:
    with Monitor(domain_id) as monitor, Operator(monitor, 'nobody', False, domain_id) as operator:
        operator.press('h')
        operator.press('h')
        assert press(operator, 's') == 'policy_node/mark_success is not there'
        assert 'policy_node/hold is not there. USE THE EMERGENCY STOP' in operator.alarm()
        operator.press('g')
        assert operator.alarm() == ''


@pytest.mark.parametrize(
    ('typed', 'obeyed'),
    [('bh', 'hb'), ('gh', 'h'), ('hg', 'h'), ('nn', 'nn'), ('xh\x1b', 'h'), ('', ''), ('g', 'g')],
)
def test_of_keys_that_are_typed_at_once_hold_comes_first_and_wins(typed: str, obeyed: str) -> None:
    assert ''.join(in_order(typed)) == obeyed


def test_a_warning_is_shown_beside_the_state() -> None:
    monitor = Monitor(0)
    status = DiagnosticStatus(
        level=DiagnosticStatus.WARN, name='/policy_node', message='the base policy is late'
    )
    status.values = [KeyValue(key='episode', value='3')]
    monitor._receive(DiagnosticArray(status=[status]))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(status_table(monitor, ['policy_node']))
    shown = console.export_text()
    assert 'episode 3' in shown
    assert 'the base policy is late' in shown


def test_the_console_runs_in_a_terminal_and_quits_on_q(domain_id: int) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, '-m', 'residual_rl_ros.cli.main', 'operator']
    command += ['--namespace', 'nobody']
    with subprocess.Popen(
        command, env=ros_environment(domain_id), stdin=follower, stdout=follower, stderr=follower
    ) as console:
        os.close(follower)
        shown = b''
        deadline = time.monotonic() + LIMIT_S
        while b'quit' not in shown and time.monotonic() < deadline:
            shown += os.read(leader, 65536)
        # Neither Alt+q nor a text that is pasted ends it, or does anything else.
        os.write(leader, b'\x1bq\x1b[200~quit, or press s\x1b[201~')
        while b'what is pasted does nothing' not in shown and time.monotonic() < deadline:
            shown += os.read(leader, 65536)
        os.write(leader, b'x')
        while b"'x' does nothing" not in shown and time.monotonic() < deadline:
            shown += os.read(leader, 65536)
        os.write(leader, b'q')
        try:
            code = console.wait(timeout=30.0)
        finally:
            console.kill()
    os.close(leader)
    assert code == 0
    assert b'[s] success' in shown
    assert b'success: ' not in shown
    assert b'nothing heard yet' in shown


def test_without_a_terminal_the_console_says_so(domain_id: int) -> None:
    finished = subprocess.run(
        [sys.executable, '-m', 'residual_rl_ros.cli.main', 'operator'],
        env=ros_environment(domain_id),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert finished.returncode == 2
    assert 'error: the operator console needs a terminal' in finished.stderr
