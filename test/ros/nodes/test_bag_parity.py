# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A raw bag must give the very transitions that the live system made."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import lifecycle_msgs.msg
import numpy as np
import pytest
from lifecycle_msgs.srv import ChangeState
from processes import wait_for
from ros_fixtures import Caller

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.rebuild.rebuild import Rebuilder, RebuildOptions
from residual_rl_ros.bags.transitions.reader import TransitionReader
from residual_rl_ros.config.run import load_run
from residual_rl_ros.ros.bringup.demo import quick
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.transitions.transition import Transition

pytestmark = pytest.mark.ros

SEED = 7


def test_rebuilt_transitions_equal_the_live_ones_number_for_number(
    domain_id: int, tmp_path: Path, call: Caller
) -> None:
    config = replace(quick(load_run('peg_insert')), control_steps=400)
    resolved = config.resolve()
    base, robot, robot_file = resolved.policy, resolved.robot, resolved.robot_file
    _, policy, simulator = finetune_topology(
        config, robot_file, base.path, tmp_path, SEED, config.control_steps
    )
    # Of an actor that never comes.
    policy = replace(policy, parameters={**policy.parameters, 'actor_timeout_s': 0.1})
    folder = tmp_path / 'bag'
    recorder = NodeSpec(
        'recorder_node', False, (robot_file,), {'output_dir': str(folder), 'raw': True}
    )
    environment = ros_environment(domain_id)

    def change(transition_id: int) -> None:
        transition = lifecycle_msgs.msg.Transition(id=transition_id)
        assert call(ChangeState, 'policy_node/change_state', transition=transition).success

    with (
        Monitor(domain_id) as monitor,
        Bringup([recorder], tmp_path / 'log', environment),
        Bringup([policy], tmp_path / 'logs', environment) as bringup,
    ):
        heard = partial(monitor.number, 'recorder_node', 'messages')
        wait_for(lambda: heard() > 0, 60.0, 'a record of the layout')
        change(lifecycle_msgs.msg.Transition.TRANSITION_DEACTIVATE)
        bringup.start(simulator)  # Which repeats its first stamp until it is answered.
        wait_for(lambda: heard() > 4 * len(robot.channels), 60.0, 'a record of every channel')
        change(lifecycle_msgs.msg.Transition.TRANSITION_ACTIVATE)
        wait_for(lambda: bringup.ended('mujoco_sim_node'), 90.0, 'end of the run')
        bringup.check()
    live: list[Transition] = []
    for block in TransitionReader(Bag(folder)).blocks():
        live += block.table
    options = RebuildOptions(config.controller_config(SEED, explore=True, scheduled=False), True)
    bag = Bag(folder)
    rebuilder = Rebuilder(bag, robot, base, options)
    rebuilt = list(rebuilder.transitions())
    assert [str(problem) for problem in bag.problems] == []
    assert len(rebuilt) == len(live) > 90
    for one, other in zip(rebuilt, live, strict=True):
        for field in fields(Transition):
            np.testing.assert_array_equal(
                getattr(one, field.name), getattr(other, field.name), err_msg=field.name
            )
    assert all(report.stamped == report.messages for report in rebuilder.channels.values())
