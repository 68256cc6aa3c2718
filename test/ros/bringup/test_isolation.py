# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A simulator that is started alone, in whatever domain, speaks and listens in its namespace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy

from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.nodes.mujoco_sim_node import MujocoSimNode

pytestmark = pytest.mark.ros

GLOBAL = {'/rosout', '/parameter_events', '/diagnostics'}
"""What every node has, and by which nothing moves."""


@pytest.fixture
def robot_file(tmp_path: Path) -> Path:
    """Return a robot with the topics of a real one, some of them absolute."""
    text = load_robot('push_to_goal')[1].read_text()
    for topic in ('forward_position_controller/commands', 'joint_states'):
        text = text.replace(f'topic: {topic}', f'topic: /{topic}')
    path = tmp_path / 'robot.yaml'
    path.write_text(text)
    return path


@pytest.fixture
def node(
    domain_id: int, robot_file: Path, request: pytest.FixtureRequest
) -> Iterator[MujocoSimNode]:
    arguments = ['--ros-args', '--params-file', str(robot_file), '-p', 'task:=push_to_goal']
    rclpy.init(args=[*arguments, '-p', 'lockstep:=false', *request.param], domain_id=domain_id)
    made = MujocoSimNode()
    yield made
    made.destroy_node()
    rclpy.try_shutdown()


@pytest.mark.parametrize(
    ('node', 'namespace'), [([], '/sim'), (['-r', '__ns:=/cell'], '/cell')], indirect=['node']
)
def test_every_topic_of_a_simulator_is_in_its_namespace(
    node: MujocoSimNode, namespace: str
) -> None:
    assert node.get_namespace() == namespace
    topics = {endpoint.topic_name for endpoint in (*node.publishers, *node.subscriptions)} - GLOBAL
    assert {f'{namespace}/joint_states', f'{namespace}/clock'} < topics
    assert f'{namespace}/forward_position_controller/commands' in topics
    assert all(topic.startswith(f'{namespace}/') for topic in topics)
