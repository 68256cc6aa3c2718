# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A learner takes a played bag for its robot."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bag_builders import open_recorder, write_bag, write_layout, write_transitions
from processes import wait_for
from rclpy.publisher import Publisher
from std_msgs.msg import Float64MultiArray
from transition_builders import make_layout, random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.cli.main import main
from residual_rl_ros.errors import BagError
from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.ros.tools.bag_player import PlayOptions, play
from residual_rl_ros.transitions.transition import Source

pytestmark = pytest.mark.ros

L = make_layout()


def test_a_learner_learns_from_a_played_bag(domain_id: int, tmp_path: Path) -> None:
    stream = [replace(t, source=Source.BASE) for t in random_transitions(L, 120)]
    bag = write_bag(tmp_path / 'bag', L, stream)
    overrides = {
        **{'warmup_transitions': 50, 'warmup_episodes': 0, 'anchor_updates': 0},
        **{'batch_size': 8, 'replay_capacity': 500},
    }
    learner = NodeSpec(
        'learner_node', True, (), {'output_dir': str(tmp_path / 'out'), 'overrides': overrides}
    )
    with (
        Monitor(domain_id) as monitor,
        Bringup([learner], tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        sent = play([Bag(bag)], PlayOptions(rate_hz=200.0, domain_id=domain_id))
        wait_for(lambda: monitor.number('learner_node', 'transitions') == sent, 60.0, 'arrival')
        bringup.check()
    checkpoint = load_checkpoint(tmp_path / 'out' / 'checkpoints' / 'latest')
    assert sent == checkpoint.transitions == 120
    assert checkpoint.rule.memory.composition()[Source.BASE] == 1.0
    assert checkpoint.updates.online > 0


def pretended_sleep() -> tuple[list[float], Callable[[float], None]]:
    """Return what was slept so far [s], which is the time too, and what sleeps."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        time.sleep(0.01)
        slept.append(seconds)

    return slept, sleep


def test_the_recorded_spacing_is_kept(domain_id: int, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', L, random_transitions(L, 11))
    slept, sleep = pretended_sleep()
    with NodeHost('listener', domain_id) as tool:
        tool.node.create_subscription(
            Float64MultiArray, 'policy_node/transitions', print, qos.TRANSITIONS
        )
        options = PlayOptions(domain_id=domain_id, wait_s=1000.0)
        assert play([Bag(bag)], options, clock=lambda: sum(slept), sleep=sleep) == 11
    assert slept[-10:] == pytest.approx([0.1] * 10)


def test_the_robots_of_a_bag_are_played_at_the_same_time(domain_id: int, tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag', 'a', 'b')
    for robot in ('a', 'b'):
        write_layout(recorder, L, robot)
    for transition in random_transitions(L, 5):
        for robot in ('a', 'b'):
            write_transitions(recorder, L, [transition], robot)
    recorder.close()
    slept, sleep = pretended_sleep()
    with NodeHost('listener', domain_id) as tool:
        for robot in ('a', 'b'):
            tool.node.create_subscription(
                Float64MultiArray, f'{robot}/policy_node/transitions', print, qos.TRANSITIONS
            )
        options = PlayOptions(domain_id=domain_id, wait_s=1000.0)
        assert play([Bag(tmp_path / 'bag')], options, clock=lambda: sum(slept), sleep=sleep) == 10
    assert slept[-9:] == pytest.approx([0.1] * 9)


def test_what_was_not_acknowledged_is_a_problem(
    domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Publisher, 'wait_for_all_acked', lambda self, timeout: False)
    bag = Bag(write_bag(tmp_path / 'bag', L, random_transitions(L, 3)))
    with NodeHost('listener', domain_id) as tool:
        tool.node.create_subscription(
            Float64MultiArray, 'policy_node/transitions', print, qos.TRANSITIONS
        )
        assert play([bag], PlayOptions(domain_id=domain_id)) == 3
    (problem,) = bag.problems
    assert '/policy_node/transitions: not every transition was acknowledged' in str(problem)


def test_a_bag_that_nobody_listens_to_is_not_played(domain_id: int, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', L, random_transitions(L, 3))
    with pytest.raises(BagError, match='nobody subscribes to /policy_node/transitions'):
        play([Bag(bag)], PlayOptions(domain_id=domain_id, wait_s=0.2))


def test_the_command_plays_past_a_stray_file(
    domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = write_bag(tmp_path / 'bag', L, random_transitions(L, 3))
    (tmp_path / 'notes.txt').touch()
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain_id))
    arguments = ['bag', 'play', str(tmp_path / 'notes.txt'), str(bag), '--rate', '1000']
    monkeypatch.setattr('sys.argv', ['residual-rl', *arguments])
    with NodeHost('listener', domain_id) as tool:
        tool.node.create_subscription(
            Float64MultiArray, 'policy_node/transitions', print, qos.TRANSITIONS
        )
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 1
