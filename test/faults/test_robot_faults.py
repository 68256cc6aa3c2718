# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A simulated robot in real time loses what it depends on: it goes on, or it holds; never worse."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from processes import wait_for
from ros_fixtures import Caller
from simulated_robots import CONFIG, LIMIT_S, count, goes_on, nothing_lost, running
from std_srvs.srv import Trigger

from residual_rl_ros.config import DEFAULT_PRESET
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment

pytestmark = pytest.mark.ros


def test_a_dead_simulator_is_held_for_and_then_a_fault(domain_id: int, tmp_path: Path) -> None:
    with running(domain_id, tmp_path) as (monitor, bringup, bystander):
        wait_for(bystander.early_in_an_episode, LIMIT_S, 'an episode')
        bringup.processes['mujoco_sim_node'].send_signal(signal.SIGKILL)
        # The age limit of a channel, the hold limit of 1 s, and the period of the diagnostics are
        # less than 2 s; the machine may be busy.
        wait_for(lambda: 'policy_node' in monitor.errors(), LIMIT_S, 'the fault')
        assert 'held for' in monitor.errors()['policy_node']
        assert monitor.values('policy_node')['active'] == 'False'
        assert not bringup.ended('policy_node')
        np.testing.assert_array_equal(bystander.commands[-1], bystander.commands[-2])
        bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


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
            'preset': DEFAULT_PRESET,
            'output_dir': str(folder / 'learner'),
            'resume': True,
            'overrides': CONFIG.overrides,
        },
    )
