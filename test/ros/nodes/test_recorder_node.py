# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What goes over the middleware is what the bag holds, however the recorder ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from processes import wait_for
from rclpy.duration import Duration
from std_msgs.msg import Float64MultiArray, String
from transition_builders import make_layout, random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.reader import TransitionReader
from residual_rl_ros.bags.transitions.summary import summarise
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import ChannelEncoder, float_array
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.ros.nodes.recorder_node import RecorderNode

pytestmark = pytest.mark.ros

L = make_layout()
RATE_HZ = 200.0


def record(folder: Path, robot: str | None = None, **parameters: object) -> NodeSpec:
    files = () if robot is None else (load_robot(robot)[1],)
    return NodeSpec(
        'recorder_node', False, files, {'output_dir': str(folder), **parameters}, 'cell'
    )


class Publisher(NodeHost):
    """Sends transitions as the policy node does."""

    def __init__(self, domain_id: int) -> None:
        super().__init__('publisher', domain_id, 'cell')
        self.sent: list[np.ndarray] = []

    def listen(self) -> None:
        create = self.node.create_publisher
        self._layout = create(String, 'policy_node/transition_layout', qos.LATCHED)
        self.transitions = create(Float64MultiArray, 'policy_node/transitions', qos.TRANSITIONS)
        self._layout.publish(String(data=L.to_yaml()))

    def send_for(self, seconds: float) -> None:
        """Send transitions at 200 Hz."""
        for transition in random_transitions(L, int(seconds * RATE_HZ), seed=len(self.sent)):
            row = L.encode(transition)
            self.transitions.publish(float_array(row, L.label))
            self.sent.append(row)
            time.sleep(1.0 / RATE_HZ)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_recording_holds_every_transition_that_was_sent(
    storage: str, domain_id: int, tmp_path: Path
) -> None:
    folder = tmp_path / 'bag'
    environment = ros_environment(domain_id)
    node = record(folder, 'peg_insert', storage=storage, base_policy='peg_insert')
    with (
        Publisher(domain_id) as publisher,
        Bringup([node], tmp_path / 'logs', environment) as bringup,
    ):
        wait_for(lambda: publisher.transitions.get_subscription_count() > 0, 60.0, 'recorder')
        publisher.send_for(1.0)
        assert publisher.transitions.wait_for_all_acked(Duration(seconds=30.0))
        bringup.check()
    bag = Bag(folder)
    blocks = list(TransitionReader(bag).blocks())
    assert [str(problem) for problem in bag.problems] == []
    assert {block.robot for block in blocks} == {'cell'}
    values = np.concatenate([block.table.values for block in blocks])
    np.testing.assert_array_equal(values, publisher.sent)
    data = bag.custom_data
    assert len(data['base_policy_sha256']) == 64
    (tmp_path / 'robot.yaml').write_text(data['robot'])
    assert load_robot(str(tmp_path / 'robot.yaml'))[0].name == load_robot('peg_insert')[0].name


def test_a_killed_recorder_node_has_kept_what_had_come_before(
    domain_id: int, tmp_path: Path
) -> None:
    """`test_recorder` says after which time it is in the file."""
    folder = tmp_path / 'bag'
    node = record(folder)

    def kept() -> int:
        return sum(robot.transitions for robot in summarise(Bag(folder)).robots)

    with (
        Publisher(domain_id) as publisher,
        Bringup([node], tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        wait_for(lambda: publisher.transitions.get_subscription_count() > 0, 60.0, 'recorder')
        publisher.send_for(0.5)
        wait_for(lambda: kept() == len(publisher.sent), 60.0, 'a file that holds them')
        bringup.processes['cell/recorder_node'].send_signal(signal.SIGKILL)
    assert kept() == len(publisher.sent)


def test_whoever_knows_the_listener_of_a_layout_knows_every_other(
    domain_id: int, tmp_path: Path
) -> None:
    """Nodes learn of subscriptions in the order in which these are made."""
    spec = record(tmp_path / 'bag', 'push_to_goal', raw=True)
    rclpy.init(args=spec.ros_arguments(), domain_id=domain_id)
    try:
        node = RecorderNode()
        heard = [each.topic_name.removeprefix('/cell/') for each in node.subscriptions]
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    assert heard[0] == 'policy_node/transitions'
    assert set(heard[-2:]) == {'policy_node/transition_layout', 'policy_node/customisation'}
    assert heard.index('step_feedback') < heard.index('joint_states')


def test_raw_topics_of_the_robot_are_recorded_too(domain_id: int, tmp_path: Path) -> None:
    robot, _ = load_robot('ur_forward_position')
    folder = tmp_path / 'bag'
    node = record(folder, 'ur_forward_position', raw=True, transitions=False)
    channel = robot.channels[0]
    writer = ChannelEncoder(channel)
    with (
        NodeHost('robot', domain_id, 'cell') as tool,
        Bringup([node], tmp_path / 'logs', ros_environment(domain_id)),
    ):
        publisher = tool.node.create_publisher(writer.message_type, channel.topic, qos.SENSOR)
        wait_for(lambda: publisher.get_subscription_count() > 0, 60.0, 'recorder')
        for step in range(20):
            values = np.full(len(channel.observation_names), float(step))
            publisher.publish(writer.message(values, 100.0 + step))
            time.sleep(0.02)
        time.sleep(0.3)
    messages = list(Bag(folder).messages())
    assert 10 <= len(messages) <= 20  # Best effort: the first ones may find no reader yet.
    assert {message.topic.type for message in messages} == {channel.type}


def test_a_recorder_without_a_folder_says_so(domain_id: int, tmp_path: Path) -> None:
    with Bringup([record(Path())], tmp_path / 'logs', ros_environment(domain_id)) as bringup:
        wait_for(lambda: bringup.ended('cell/recorder_node'), 60.0, 'refusal')
        assert bringup.processes['cell/recorder_node'].returncode == 2
    assert 'exists already' in (tmp_path / 'logs' / 'cell.recorder_node.log').read_text()


@pytest.mark.parametrize('module', ['recorder_node', 'mujoco_sim_node'])
def test_a_parameter_without_a_value_is_one_line(
    module: str, domain_id: int, tmp_path: Path
) -> None:
    file = tmp_path / 'empty.yaml'
    file.write_text('/**: {ros__parameters: {robot: {channels: []}}}')
    ended = subprocess.run(
        [
            *(sys.executable, '-m', f'residual_rl_ros.ros.nodes.{module}'),
            *('--ros-args', '--params-file', str(file)),
        ],
        capture_output=True,
        text=True,
        timeout=60.0,
        env=ros_environment(domain_id),
        check=False,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line == (
        f'error: {module} cannot start: a parameter has no value, such as an empty list; leave it '
        'out'
    )
