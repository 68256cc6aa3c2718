# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A process that is told to stop stops, whoever tells it and whatever hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import rclpy
from processes import wait_for
from std_srvs.srv import Trigger

from residual_rl_ros.ros.common.managed_node import ManagedNode, _await_answers
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.ros.common.process import PARENT

LIMIT_S = 20.0
WAITS = """
import sys, threading, time
from residual_rl_ros.ros.common.process import StopRequest, end_within
stopping = StopRequest(limit_s=30.0)
stopping.listen()
told = threading.Event()
stopping.call(told.set)
print('ready', flush=True)
sys.exit(0 if told.wait(20.0) and stopping.is_set() else 3)
"""
"""A program that waits for a request to stop, then ends with code 0."""
HANGS = """
import threading, time
from residual_rl_ros.ros.common.process import StopRequest
stopping = StopRequest(limit_s=0.3)
stopping.listen()
threading.Thread(target=time.sleep, args=(60.0,), name='inference').start()
print('ready', flush=True)
"""
"""A program that would wait at its end for a thread that hangs."""
ENDS = """
import atexit, time
from residual_rl_ros.ros.common.process import end_at_exit, end_within
atexit.register(time.sleep, 60.0)
end_within(10.0)
end_at_exit(2)
print('said', end='')
"""
"""A program whose libraries take long to be taken apart."""
PARENTS = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, '-c', {WAITS!r}], env={{**os.environ,
    {PARENT!r}: str(os.getpid())}}, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
"""A program that starts one that waits, says which it is, and dies without a word."""


@contextmanager
def started(program: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program and wait for its first line, unless it ends before."""
    with subprocess.Popen(
        [sys.executable, '-c', program],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def _hangup_is_heard() -> Iterator[None]:
    """Whoever runs these tests may have used `nohup`, which programs inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize('sign', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_that_asks_to_stop_is_heard(sign: signal.Signals) -> None:
    with started(WAITS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'ready\n'
        process.send_signal(sign)
        assert process.wait(timeout=LIMIT_S) == 0


def test_a_program_under_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with started(WAITS) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=LIMIT_S) == 0


def test_the_death_of_the_parent_is_a_request_to_stop() -> None:
    """It is told within a tenth of a second; it then ends by itself, with no signal that kills."""
    with started(PARENTS) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.wait(timeout=LIMIT_S) == -signal.SIGKILL
        died = time.monotonic()
        wait_for(lambda: not Path(f'/proc/{child}/exe').exists(), LIMIT_S, 'the end of the child')
        assert time.monotonic() - died < 2.0


def test_a_parent_that_died_before_it_could_be_watched_counts_too() -> None:
    gone = subprocess.Popen([sys.executable, '-c', ''])
    gone.wait()
    with started(WAITS, **{PARENT: str(gone.pid)}) as process:
        assert process.wait(timeout=LIMIT_S) == 0


def test_a_debugger_between_a_node_and_its_parent_does_not_end_the_node() -> None:
    with started(WAITS, **{PARENT: str(os.getppid())}) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)


def test_what_hangs_keeps_no_process_alive_and_is_named() -> None:
    with started(HANGS) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 1
        assert 'Timeout' in said


def test_an_exit_code_does_not_depend_on_how_long_libraries_take_to_be_taken_apart() -> None:
    with started(ENDS) as process:
        said, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 2
        assert said == 'said'


class Asking(ManagedNode):
    """Has asked a service for something, and is to end."""

    def __init__(self) -> None:
        super().__init__('asking')
        client = self.create_client(Trigger, 'answer')
        client.wait_for_service(timeout_sec=20.0)
        self.answer = client.call_async(Trigger.Request())

    def configure(self) -> None:
        """Have nothing."""

    def unanswered(self) -> list[str]:
        return [] if self.answer.done() else ['the service']


@pytest.mark.ros
@pytest.mark.parametrize('answers', [True, False])
def test_a_node_that_ends_waits_for_answers_within_reason(
    domain_id: int, answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('residual_rl_ros.ros.common.managed_node.ANSWER_LIMIT_S', 0.3)
    rclpy.init(domain_id=domain_id)
    with NodeHost('answering', domain_id) as host:
        host.node.create_service(Trigger, 'answer', lambda request, response: response)
        node = Asking()
        thread = threading.Thread(target=lambda: host.executor.spin_once(timeout_sec=5.0))
        if answers:
            thread.start()
        _await_answers(node)
        assert node.answer.done() is answers
        if answers:
            thread.join()
        node.destroy_node()
    rclpy.try_shutdown()
