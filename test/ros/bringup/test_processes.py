# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The bring-up leaves no process behind, even one that answers no polite signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from processes import wait_for

from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, _Started, ros_environment
from residual_rl_ros.ros.common.process import ACTIVE_LIMIT_S, SAVE_LIMIT_S

pytestmark = pytest.mark.ros


def simulator(**parameters: object) -> NodeSpec:
    """Return a simulator that waits for a policy for ever."""
    _, robot_file = load_robot(load_run('push_to_goal').robot)
    return NodeSpec('mujoco_sim_node', False, (robot_file,), {'task': 'push_to_goal', **parameters})


def test_a_node_that_answers_no_signal_is_killed(
    domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('STOPPING_S', 'KILL_S'):
        monkeypatch.setattr(f'residual_rl_ros.ros.bringup.processes.{name}', 0.5)
    with Bringup([simulator()], tmp_path, ros_environment(domain_id)) as bringup:
        process = bringup.processes['mujoco_sim_node']
        # Without a handler the kernel would end even a stopped process with the first signal.
        wait_for(lambda: catches(process.pid, signal.SIGTERM), 60.0, 'signal handler')
        os.kill(process.pid, signal.SIGSTOP)
    assert process.returncode == -signal.SIGKILL


class Saving:
    """A process that ends so long after the first signal [s]; a stuck one with SIGKILL."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self.signals: list[int] = []
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, sign: int) -> None:
        self.signals.append(sign)
        if sign == signal.SIGKILL:
            self.returncode = -sign

    def wait(self, timeout: float) -> None:
        self._left -= timeout
        if self._left <= 0.0:
            self.returncode = 0
        raise subprocess.TimeoutExpired('node', timeout)


@pytest.mark.parametrize(
    ('executable', 'seconds', 'signals'),
    [
        ('learner_node', 0.98 * SAVE_LIMIT_S, ['SIGINT']),
        ('learner_node', 1e9, ['SIGINT', 'SIGTERM', 'SIGKILL']),
        ('recorder_node', 0.98 * SAVE_LIMIT_S, ['SIGINT']),
        ('policy_node', 0.98 * ACTIVE_LIMIT_S, ['SIGINT']),
        ('policy_node', SAVE_LIMIT_S, ['SIGINT', 'SIGTERM', 'SIGKILL']),
    ],
)
def test_a_node_has_the_time_that_it_may_take_to_save(
    tmp_path: Path, executable: str, seconds: float, signals: list[str]
) -> None:
    process, now = Saving(seconds), count(0.0, 0.1)
    node = NodeSpec(executable, False, (), {})
    bringup = Bringup([], tmp_path, {}, clock=now.__next__)
    bringup._started[node.name] = _Started(node, process, 0)  # type: ignore[arg-type]
    bringup.stop()
    assert [signal.Signals(sign).name for sign in process.signals] == signals


def test_a_healthy_node_ends_on_the_first_signal_with_code_zero(
    domain_id: int, tmp_path: Path
) -> None:
    with Bringup([simulator()], tmp_path, ros_environment(domain_id)) as bringup:
        process = bringup.processes['mujoco_sim_node']
        wait_for(lambda: catches(process.pid, signal.SIGTERM), 60.0, 'signal handler')
    assert process.returncode == 0


def test_a_node_that_fails_is_reported_with_its_own_words_and_no_log_is_ever_erased(
    domain_id: int, tmp_path: Path
) -> None:
    nodes = [simulator(task='peg_inzert')]
    with Bringup(nodes, tmp_path, ros_environment(domain_id)) as bringup:
        wait_for(lambda: bringup.ended('mujoco_sim_node'), 60.0, 'failure')
        with pytest.raises(ResidualRLError, match="with code 2: error: unknown task 'peg_inzert'"):
            bringup.check()
        bringup.start(simulator(task='peg_inzzert'))
        wait_for(lambda: bringup.ended('mujoco_sim_node'), 60.0, 'failure')
        with pytest.raises(ResidualRLError, match="error: unknown task 'peg_inzzert'"):
            bringup.check()
    first, _, second = (tmp_path / 'mujoco_sim_node.log').read_text().partition('--- started again')
    assert "unknown task 'peg_inzert'" in first
    assert "unknown task 'peg_inzzert'" in second


def test_an_unwritable_log_folder_is_one_clear_error(domain_id: int, tmp_path: Path) -> None:
    blocked = tmp_path / 'file'
    blocked.write_text('')
    with (
        pytest.raises(ResidualRLError, match='cannot start a node or write its log'),
        Bringup([simulator()], blocked / 'logs', ros_environment(domain_id)),
    ):
        pass


def status(pid: int) -> bytes:
    return Path(f'/proc/{pid}/status').read_bytes()


def catches(pid: int, sign: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal."""
    mask = next(line for line in status(pid).splitlines() if line.startswith(b'SigCgt:'))
    return bool(int(mask.split()[1], 16) >> (sign - 1) & 1)


WITHOUT_TORCH = (
    'nodes.policy_node',
    'nodes.reward_node',
    'nodes.recorder_node',
    'nodes.mujoco_sim_node',
    'bringup.up',
    'bringup.topology',
    'tools.operator',
    'tools.live_check',
    'tools.bag_player',
)


def test_only_what_trains_loads_torch() -> None:
    """It costs two seconds at the start and 190 MB."""
    names = ', '.join(f'residual_rl_ros.ros.{name}' for name in WITHOUT_TORCH)
    code = f'import sys, {names}; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
