# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A policy node waits for what is given once, and keeps what came before it was activated."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from base_policy_builders import write_onnx_policy
from geometry_msgs.msg import PoseStamped
from raw_bag_builders import transforms
from robot_builders import ACTIONS, make_metadata
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float64MultiArray

from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.errors import ObservationError
from residual_rl_ros.robot.topics import FLOAT_ARRAY, IMAGE, POSE, TF
from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology
from residual_rl_ros.ros.common import encoders
from residual_rl_ros.ros.common.encoders import to_time
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.common.process import unlock_memory
from residual_rl_ros.ros.nodes.policy_node import PolicyNode

pytestmark = pytest.mark.ros
ROBOT = {
    'name': 'bench',
    'control_rate_hz': 20.0,
    'command': {'topic': 'command', 'type': FLOAT_ARRAY},
    'action': {
        'names': list(ACTIONS),
        **{'lower': [-2.0, -2.0], 'upper': [2.0, 2.0], 'max_velocity': [40.0, 40.0]},
    },
    'observation': {
        'channels': ['arm', 'hand', 'goal', 'front'],
        'arm': {
            **{'topic': 'arm', 'type': FLOAT_ARRAY, 'fields': ['z'], 'max_age_s': 5.0},
            'stamped_by': 'receipt',
        },
        'hand': {
            **{'type': 'tf', 'source_frame': 'hand', 'target_frame': 'camera'},
            **{'fields': ['position.x'], 'max_age_s': 5.0},
        },
        'goal': {'topic': 'goal', 'type': POSE, 'fields': ['position.x'], 'latched': True},
        'front': {
            **{'topic': 'image', 'type': IMAGE, 'encoder': 'none', 'max_age_s': 5.0},
            **{'camera_info_topic': 'info', 'depth_range': [0.0, 2.0]},
        },
    },
}
NAMES = ('arm.z', 'hand.position.x', 'goal.position.x')


@pytest.fixture
def node(domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PolicyNode]:
    """Return a configured policy node of this process; tests bring its messages to it."""

    def known(name: str) -> Any:
        # Where tf2_msgs is not installed, another type stands for it: nothing is sent.
        return PoseStamped if name == TF else message_class(name)

    monkeypatch.setattr(encoders, 'message_class', known)
    robot, model = tmp_path / 'robot.yaml', tmp_path / 'policy.onnx'
    robot.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'robot': ROBOT}}}))
    write_onnx_policy(model, make_metadata(observation_names=NAMES))
    (spec,) = robot_topology(RobotRun(robot, model, None, decision_steps=1))
    rclpy.init(args=spec.ros_arguments(), domain_id=domain_id)
    made = PolicyNode()
    made.trigger_configure()
    assert made.failure is None
    yield made
    made.destroy_node()
    rclpy.try_shutdown()
    gc.unfreeze()
    unlock_memory()


def hear(node: PolicyNode, topic: str, message: Any, source_ns: int = 0) -> None:
    """Bring a message to every subscription of a topic."""
    heard = [each for each in node.subscriptions if each.topic_name == topic]
    assert heard, topic
    for subscription in heard:
        subscription.callback(message, {'source_timestamp': source_ns})


def look(node: PolicyNode, image: Image) -> None:
    """Bring an image to the node, and let a control step pass when it has been read."""
    hear(node, '/image', image)
    ((_, images),) = node._image_workers
    images._orders[-1][1].result(timeout=10.0)
    assert isinstance(node._loop, RealTimeLoop)
    node._tick(node._loop)


def moved(child: str, parent: str, stamp: float, x: float) -> bytes:
    """Return a TFMessage."""
    return transforms((child, parent, stamp, (x, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)))


def missing(node: PolicyNode) -> str:
    """Return what the node waits for."""
    with pytest.raises(ObservationError) as raised:
        node._loop.assembler.assemble(node._now())
    return str(raised.value)


def test_what_is_missing_is_named_until_all_is_there(node: PolicyNode) -> None:
    hear(node, '/tf_static', moved('camera', 'base', 0.0, 1.0))
    goal = PoseStamped()
    goal.pose.position.x = 7.0
    hear(node, '/goal', goal)  # Before the activation, as a latched topic is heard.
    node.trigger_activate()
    hear(node, '/arm', Float64MultiArray(data=[0.5]))
    assert missing(node) == (
        "channel 'hand': nothing received on /tf; no transform between 'hand' and 'base' has come "
        "('camera' is known up to 'base')"
    )
    hear(node, '/tf', moved('hand', 'base', node._now(), 3.0))
    image = Image(height=1, width=1, step=2, encoding='16UC1', data=[0, 4])
    image.header.stamp = to_time(node._now())
    hear(node, '/image', image)
    waits = 'waits for sensor_msgs/msg/CameraInfo on info'
    assert missing(node) == f"channel 'front': nothing received on image; {waits}"
    info = CameraInfo(height=1, width=1, distortion_model='plumb_bob', d=[0.0] * 5)
    info.k[0] = info.k[4] = 1.0
    hear(node, '/info', info)
    look(node, image)
    assert node._loop.assembler.assemble(node._now()).tolist() == [0.5, 2.0, 7.0]
    assert node._loop.counts['refused_observations'] == 0
    node.trigger_deactivate()
    node.trigger_activate()
    hear(node, '/arm', Float64MultiArray(data=[0.5]))
    hear(node, '/tf', moved('hand', 'base', node._now(), 4.0))
    look(node, image)
    assert node._loop.assembler.assemble(node._now()).tolist() == [0.5, 3.0, 7.0]


def test_a_goal_is_heard_from_publishers_that_keep_it_and_from_those_that_do_not(
    node: PolicyNode,
) -> None:
    goals = [each.qos_profile for each in node.subscriptions if each.topic_name == '/goal']
    assert [(each.reliability.name, each.durability.name) for each in goals] == [
        ('RELIABLE', 'TRANSIENT_LOCAL'),
        ('RELIABLE', 'VOLATILE'),
        ('BEST_EFFORT', 'VOLATILE'),
    ]
    node.trigger_activate()
    hear(node, '/arm', Float64MultiArray(data=[0.5]))
    hear(node, '/tf', moved('hand', 'camera', node._now(), 3.0))
    assert missing(node) == "channel 'goal': nothing received on goal"


def test_a_late_copy_of_an_older_goal_replaces_no_newer_one(node: PolicyNode) -> None:
    node.trigger_activate()
    goal = PoseStamped()
    for source_ns, goal.pose.position.x in ((10, 1.0), (20, 2.0), (10, 1.0)):
        hear(node, '/goal', goal, source_ns)
    (given,) = node._loop.assembler._given.values()
    assert given.tolist() == [2.0]
