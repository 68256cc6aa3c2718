# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`residual-rl up` loses its learner, and the robot loses `up`: it holds, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from processes import node_processes, wait_for
from simulated_robots import BASE, CONFIG, LIMIT_S, ROBOT_FILE, Bystander, count

from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.common.process import PARENT

pytestmark = pytest.mark.ros

MOST_COMMANDS = 10
"""Commands that a robot (20 Hz) still gets after the death of `up`: those of 0.3 s, and some room.
Time alone would say how busy this machine is."""


def nodes_of(parent: int) -> dict[str, int]:
    """Return the processes of the nodes that a program has started, by the node's name."""
    found = {}
    for pid in node_processes():
        process = Path(f'/proc/{pid}')
        with suppress(OSError, IndexError):  # It has ended meanwhile.
            variables = (process / 'environ').read_bytes().split(b'\0')
            if f'{PARENT}={parent}'.encode() in variables:
                module = (process / 'cmdline').read_bytes().split(b'\0')[2].decode()
                found[module.rsplit('.', 1)[-1]] = pid
    return found


def test_a_killed_learner_is_started_again_and_when_up_is_killed_the_robot_holds(
    domain_id: int, tmp_path: Path
) -> None:
    environment, out = ros_environment(domain_id), tmp_path / 'run'
    simulator = finetune_topology(CONFIG, ROBOT_FILE, BASE.path, out, 0, 0, lockstep=False)[-1]
    command = [sys.executable, '-m', 'residual_rl_ros.cli.main', 'up', str(ROBOT_FILE)]
    command += ['--base', str(BASE.path), '--out', str(out), '--auto-start']
    bystander = Bystander(domain_id)
    try:
        with (
            Monitor(domain_id) as monitor,
            Bringup([simulator], tmp_path / 'sim', environment),
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as up,
        ):
            try:
                wait_for(lambda: 'learner_node' in nodes_of(up.pid), LIMIT_S, 'a learner')
                os.kill(nodes_of(up.pid)['learner_node'], signal.SIGKILL)
                wait_for(lambda: count(monitor, 'learner_node', 'transitions') > 3, LIMIT_S, 'work')
                wait_for(bystander.early_in_an_episode, LIMIT_S, 'an episode')
                learned = count(monitor, 'learner_node', 'transitions')
                up.kill()
                commands = len(bystander.commands)
                wait_for(lambda: not bystander.is_commanded(), LIMIT_S, 'the end of the policy')
                assert len(bystander.commands) - commands <= MOST_COMMANDS
                bystander.check_hold()
                wait_for(lambda: not nodes_of(up.pid), LIMIT_S, 'the end of the learner')
                said = up.stderr.read() if up.stderr is not None else ''
            finally:
                up.kill()
    finally:
        bystander.close()
    assert 'learner_node ended with code -9' in said
    assert 'started again (1 of 3 times in 10 minutes)' in said
    assert load_checkpoint(out / 'checkpoints' / 'latest').transitions >= learned
