# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Topics carry nonsense, or an operator's wish: what is unusable is refused and counted."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from processes import wait_for
from simulated_robots import (
    LAYOUT,
    LIMIT_S,
    BadJointStates,
    Bystander,
    count,
    repeating,
    running,
)
from std_msgs.msg import Float64MultiArray, String
from transition_builders import random_transitions

from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import float_array

pytestmark = pytest.mark.ros


def test_bad_observations_alone_are_none(domain_id: int, tmp_path: Path) -> None:
    """A driver goes mad: what it publishes keeps no channel fresh."""
    with (
        running(domain_id, tmp_path) as (monitor, bringup, bystander),
        repeating(BadJointStates(bystander)),
    ):
        bringup.processes['mujoco_sim_node'].send_signal(signal.SIGKILL)
        # After max_age_s, hold_limit_s and a diagnostics period, together less than 2 s.
        wait_for(lambda: 'policy_node' in monitor.errors(), LIMIT_S, 'the fault')
        assert 'held for' in monitor.errors()['policy_node']
        assert not bringup.ended('policy_node')
        np.testing.assert_array_equal(bystander.commands[-1], bystander.commands[-2])
        bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


def test_what_the_middleware_loses_is_counted(domain_id: int, tmp_path: Path) -> None:
    """A learner stands still for longer than the 1000 transitions that wait for it."""
    learner = NodeSpec('learner_node', True, (), {'output_dir': str(tmp_path / 'learner')})
    sent = [
        replace(transition, terminated=False, truncated=False)
        for transition in random_transitions(LAYOUT, 3000, episode_decisions=3000)
    ]
    bystander = Bystander(domain_id)
    create = bystander.node.create_publisher
    layouts = create(String, '/policy_node/transition_layout', qos.LATCHED)
    transitions = create(Float64MultiArray, '/policy_node/transitions', qos.TRANSITIONS)
    with (
        Monitor(domain_id) as monitor,
        Bringup([learner], tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        layouts.publish(String(data=LAYOUT.to_yaml()))

        def send(some: slice) -> None:
            for transition in sent[some]:
                transitions.publish(float_array(LAYOUT.encode(transition), LAYOUT.label))

        # The bystander listens to the topic, too.
        wait_for(lambda: transitions.get_subscription_count() == 2, LIMIT_S, 'connection')
        send(slice(0, 20))
        wait_for(lambda: count(monitor, 'learner_node', 'transitions') == 20, LIMIT_S, 'a start')
        process = bringup.processes['learner_node']
        process.send_signal(signal.SIGSTOP)
        send(slice(20, 2999))
        process.send_signal(signal.SIGCONT)
        time.sleep(1.0)
        send(slice(2999, 3000))

        def known() -> float:
            arrived, missing = (
                count(monitor, 'learner_node', key) for key in ('transitions', 'missing')
            )
            return arrived + missing

        wait_for(lambda: known() == len(sent), LIMIT_S, 'an account of every transition')
        assert count(monitor, 'learner_node', 'missing') > 500
        assert count(monitor, 'learner_node', 'malformed') == 0
        bringup.check()
    bystander.close()
