# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A reward node judges the episodes of a running robot, and shows what add-ons are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bag_builders import write_bag
from base_policy_builders import write_classifier
from processes import wait_for
from transition_builders import make_layout, random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.reader import TransitionReader
from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.rewards.composition import AddOns, decision_reward
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.demo import quick
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.bringup.topology import reward_spec
from residual_rl_ros.ros.nodes.reward_node import ADD_ON_HEAD, ShownAddOns
from residual_rl_ros.transitions.cdr import deserialize, labelled_array

ARRAY = 'std_msgs/msg/Float64MultiArray'
LIMIT_S = 60.0
LAYOUT = make_layout()
WATCHED = LAYOUT.observation_names[0]
ASKED = f"""
- {{name: smoothness, weight: 0.3}}
- {{name: keep_out_box, point: [{WATCHED}], lower: [-1], upper: [0.2], margin: 1}}
"""


@pytest.fixture
def shown() -> ShownAddOns:
    problems = list[str]()
    made = ShownAddOns(load_robot('peg_insert')[0], problems.append)
    made.take_layout(LAYOUT.to_yaml())
    made.ask(ASKED)
    assert problems == []
    return made


def test_what_is_shown_live_is_what_the_bag_is_replayed_to_bit_for_bit(
    shown: ShownAddOns, tmp_path: Path
) -> None:
    stream = random_transitions(LAYOUT, 200)
    live = []
    for transition in stream:
        sent = deserialize(labelled_array(LAYOUT.encode(transition)), ARRAY)
        message = shown.of(sent.data, LAYOUT.label)
        assert message is not None
        told = deserialize(message, ARRAY)
        live.append(told.data)
        assert told.layout.dim[0].label == ','.join((*ADD_ON_HEAD, 'smoothness', 'keep_out_box'))
    bag = Bag(write_bag(tmp_path / 'bag', LAYOUT, stream))
    reward, (block,) = (
        decision_reward(AddOns.from_yaml(ASKED), LAYOUT),
        TransitionReader(bag).blocks(),
    )
    total, smoothness, box = np.array(live).T[len(ADD_ON_HEAD) - 1 :]
    np.testing.assert_array_equal(total, reward.of_table(block.table))
    np.testing.assert_array_equal(total, smoothness + box)
    assert smoothness.any()
    assert box.any()
    assert shown.failures == 0


def test_a_message_that_is_no_transition_is_counted_and_shows_nothing(shown: ShownAddOns) -> None:
    assert shown.of([1.0, 2.0], LAYOUT.label) is None
    assert shown.failures == 1


def test_add_ons_of_another_robot_are_refused_and_those_before_stay(shown: ShownAddOns) -> None:
    with pytest.raises(ConfigError, match='no action'):
        shown.ask('[{name: smoothness, actions: [wing]}]')
    (transition,) = random_transitions(LAYOUT, 1)
    assert shown.of(LAYOUT.encode(transition), LAYOUT.label) is not None
    waiting = ShownAddOns(load_robot('peg_insert')[0], str)
    with pytest.raises(ConfigError, match='no action'):
        waiting.ask('[{name: smoothness, actions: [wing]}]')


@pytest.mark.ros
def test_a_lasting_success_ends_one_episode(domain_id: int, tmp_path: Path) -> None:
    config = quick(load_run('push_to_goal'))
    resolved = config.resolve()
    base, robot, robot_file = resolved.policy, resolved.robot, resolved.robot_file
    classifier = tmp_path / 'success.onnx'
    write_classifier(classifier, robot.observation_names, gain=0.0, bias=10.0)
    _, policy, simulator = finetune_topology(
        config, robot_file, base.path, tmp_path, 0, 0, lockstep=False
    )
    reward = reward_spec(robot_file, classifier, '', '')
    add_on = {'add_on': '[{name: smoothness}]'}
    reward = replace(reward, parameters={**reward.parameters, **add_on})
    with (
        Monitor(domain_id) as monitor,
        Bringup([policy, simulator, reward], tmp_path / 'logs', ros_environment(domain_id)),
    ):
        wait_for(lambda: monitor.number('reward_node', 'asked') > 40, LIMIT_S, 'judgement')
        wait_for(lambda: monitor.number('policy_node', 'episode') >= 1, LIMIT_S, 'the end')
        assert monitor.number('reward_node', 'successes') == 1
        assert monitor.number('reward_node', 'answered') == 1
        wait_for(
            lambda: monitor.number('reward_node', 'add_on_reward') < 0.0, LIMIT_S, 'the add-on'
        )
        assert monitor.number('reward_node', 'add_on_failures') == 0


@pytest.mark.ros
def test_a_node_with_nothing_to_ask_says_so(domain_id: int, tmp_path: Path) -> None:
    resolved = load_run('push_to_goal').resolve()
    robot_file = resolved.robot_file
    node = replace(reward_spec(robot_file, None, '', ''), parameters={})
    with Bringup([node], tmp_path, ros_environment(domain_id)) as bringup:
        wait_for(lambda: bringup.ended('reward_node'), LIMIT_S, 'refusal')
        assert bringup.processes['reward_node'].returncode == 2
    assert (
        'needs classifier or function, or add_on alone'
        in (tmp_path / 'reward_node.log').read_text()
    )
