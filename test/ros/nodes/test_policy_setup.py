# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a policy node is made of: what is given and would not be used is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from base_policy_builders import LinearPolicy
from robot_builders import make_action_spec, make_metadata
from std_msgs.msg import String
from urdf_builders import two_links

from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.ros.bringup.sros2_policy import required_access
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.node_parameters import PolicyParameters
from residual_rl_ros.ros.nodes.policy_setup import make_controller, open_base_policy, open_robot
from residual_rl_ros.ros.tools.file_check import check_limits


def test_a_digest_of_a_policy_that_runs_elsewhere_is_refused() -> None:
    robot, _ = load_robot('push_to_goal')
    parameters = PolicyParameters(
        base_policy='topic', base_policy_metadata='served.yaml', base_policy_sha256='ab'
    )
    with pytest.raises(ConfigError, match="base_policy_sha256 is 'ab' with base_policy topic"):
        open_base_policy(parameters, robot, lambda: 0.0, lambda reason: None)


@pytest.mark.parametrize(('said', 'steps'), [(0, 4), (2, 2)])
def test_decisions_are_near_twenty_a_second_where_nobody_says_otherwise(
    said: int, steps: int
) -> None:
    robot, _ = load_robot('push_to_goal')
    policy = LinearPolicy(make_metadata(rate_hz=80.0, horizon=16, exec_steps=8))
    parameters = PolicyParameters(decision_steps=said, lockstep=True, prefetch_steps=0)
    action = replace(robot, action=make_action_spec())
    assert make_controller(parameters, policy, action).layout.decision_steps == steps


@pytest.mark.ros
def test_limits_of_the_body_come_from_the_urdf_that_is_published(
    domain_id: int, tmp_path: Path
) -> None:
    pytest.importorskip('pinocchio', reason='needs pinocchio: residual_rl_ros[urdf]')
    tree: dict[str, Any] = {
        'name': 'bench',
        'control_rate_hz': 20.0,
        'robot_description': {'urdf': 'topic', 'joints': ['a', 'b']},
        'command': {'topic': 'commands', 'type': FLOAT_ARRAY},
        'action': {
            **{key: ['arm.a', 'arm.b'] for key in ('names', 'measured_by')},
            **{'lower': [-1.0, -1.0], 'upper': [1.0, 1.0], 'max_velocity': [1.0, 1.0]},
            'workspace': {'point': 'tip', 'lower': [-9.0] * 3, 'upper': [9.0] * 3},
        },
        'observation': {
            'channels': ['arm'],
            'arm': {'topic': 'x', 'type': FLOAT_ARRAY, 'fields': ['a', 'b'], 'max_age_s': 0.2},
        },
    }
    rclpy.init(domain_id=domain_id)
    try:
        node = rclpy.create_node('policy_node', namespace='cell')
        with pytest.raises(ConfigError, match=r'nobody has published /cell/robot_description'):
            open_robot(node, tree, 0.1)
        publisher = node.create_publisher(String, 'robot_description', qos.LATCHED)
        publisher.publish(String(data=two_links()))
        robot = open_robot(node, tree)
        SafetyFilter(robot.action)
        (policy,) = [each for each in required_access(robot) if each.node == 'policy_node']
        assert 'robot_description' in policy.subscribes
        # It narrows the limits that are written, and gives none to a node.
        bare = {**tree, 'action': {**tree['action'], 'lower': [], 'max_velocity': []}}
        with pytest.raises(ConfigError, match=r'lower is missing, .* from a file alone: `check-r'):
            open_robot(node, bare)
        file, limits = tmp_path / 'bench.yaml', 'lower: [-3.0, -3.0], max_velocity: [1.0, 1.0]'
        file.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'robot': bare}}}))
        with pytest.raises(
            ConfigError,
            match=re.escape(
                f'action lacks lower, max_velocity; write '
                f'what the URDF on the topic has, for every tool to know: {limits}'
            ),
        ):
            check_limits(file, 'cell', domain_id)
        file.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'robot': tree}}}))
        check_limits(file, 'cell', domain_id)
        publisher.publish(String(data='<robot/>'))
        with pytest.raises(ConfigError, match='<robot>, 0 links'):
            open_robot(node, tree)
    finally:
        rclpy.try_shutdown()
