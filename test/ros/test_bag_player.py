# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A learner takes a played bag for its robot."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from bag_builders import write_bag
from builders import make_layout, random_transitions
from processes import wait_for
from std_msgs.msg import Float64MultiArray

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.problems import BagError
from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.ros import qos
from residual_rl_ros.ros.bag_player import PlayOptions, play
from residual_rl_ros.ros.bringup import Bringup, ros_environment
from residual_rl_ros.ros.monitor import Monitor
from residual_rl_ros.ros.private_node import PrivateNode
from residual_rl_ros.ros.topology import NodeSpec
from residual_rl_ros.transition import Source

pytestmark = pytest.mark.ros

L = make_layout()


def test_a_learner_learns_from_a_played_bag(domain_id: int, tmp_path: Path) -> None:
    stream = [replace(t, source=Source.BASE) for t in random_transitions(L, 120)]
    bag = write_bag(tmp_path / 'bag', L, stream)
    overrides = {'warmup_transitions': 50, 'batch_size': 8, 'replay_capacity': 500}
    learner = NodeSpec(
        'learner_node', True, (), {'output_dir': str(tmp_path / 'out'), 'overrides': overrides}
    )
    with (
        Monitor(domain_id) as monitor,
        Bringup([learner], tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        sent = play([Bag(bag)], PlayOptions(rate_hz=200.0, domain_id=domain_id))
        wait_for(lambda: monitor.number('learner_node', 'transitions') == sent, 30.0, 'arrival')
        bringup.check()
    checkpoint = load_checkpoint(tmp_path / 'out' / 'checkpoints' / 'latest')
    assert sent == checkpoint.transitions == 120
    assert checkpoint.replay.composition()[Source.BASE] == 1.0
    assert checkpoint.updates > 0


def test_the_recorded_spacing_is_kept(domain_id: int, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', L, random_transitions(L, 11))
    slept: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        time.sleep(0.01)
        slept.append(seconds)
        now[0] += seconds

    with PrivateNode('listener', domain_id) as tool:
        tool.node.create_subscription(
            Float64MultiArray, 'policy_node/transitions', print, qos.TRANSITIONS
        )
        options = PlayOptions(domain_id=domain_id, wait_s=1000.0)
        assert play([Bag(bag)], options, clock=lambda: now[0], sleep=sleep) == 11
    assert slept[-10:] == pytest.approx([0.1] * 10)


def test_a_bag_that_nobody_listens_to_is_not_played(domain_id: int, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', L, random_transitions(L, 3))
    with pytest.raises(BagError, match='nobody subscribes to /policy_node/transitions'):
        play([Bag(bag)], PlayOptions(domain_id=domain_id, wait_s=0.2))
