# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pose of a frame in another one, as tf2 composes it; what is missing or loops is named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from residual_rl_ros.errors import ConfigError, ObservationError
from residual_rl_ros.robot import transform_tree
from residual_rl_ros.robot.decoders import message_decoder
from residual_rl_ros.robot.message_decoder import MessageDecoder, Reading
from residual_rl_ros.robot.stamps import to_nanoseconds
from residual_rl_ros.robot.topics import TF, Channel
from residual_rl_ros.robot.transforms import ROTATION_6D, ChannelTransform
from residual_rl_ros.transitions.cdr import deserialize, serialize, typestore

FIELDS = (
    *(f'position.{axis}' for axis in 'xyz'),
    *(f'orientation.{axis}' for axis in 'xyzw'),
)
STILL = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
RNG = np.random.default_rng(0)


def channel(**keys: Any) -> Channel:
    """Return a channel that observes the tool in the camera."""
    frames = {'source_frame': 'tool', 'target_frame': 'camera'}
    return Channel('tool', '/tf', TF, FIELDS, (), **{'max_age_s': 0.5, **frames, **keys})


def pose() -> tuple[float, ...]:
    """Return a random pose."""
    return (*RNG.normal(size=3), *Rotation.random(random_state=RNG).as_quat())


def message(*transforms: tuple[str, str, float, tuple[float, ...]]) -> Any:
    """Return a TFMessage of (frame, its parent, stamp, pose), after its way through a bag."""
    types = typestore().types
    made = []
    for child, parent, stamp, (x, y, z, *turn) in transforms:
        time = types['builtin_interfaces/msg/Time'](*divmod(to_nanoseconds(stamp), 10**9))
        header = types['std_msgs/msg/Header'](stamp=time, frame_id=parent)
        moved = types['geometry_msgs/msg/Vector3'](x, y, z)
        turned = types['geometry_msgs/msg/Quaternion'](*turn)
        inner = types['geometry_msgs/msg/Transform'](translation=moved, rotation=turned)
        stamped = types['geometry_msgs/msg/TransformStamped']
        made.append(stamped(header=header, child_frame_id=child, transform=inner))
    return deserialize(serialize(types[TF](transforms=made), TF), TF)


def hear(reader: MessageDecoder, *transforms: Any, static: bool = False) -> Reading | None:
    """Return what a reader makes of a message."""
    return reader.read(message(*transforms), lambda: 9.0, second=static)


def matrix(values: Any) -> np.ndarray:
    """Return a pose as a homogeneous matrix."""
    made = np.eye(4)
    made[:3, :3], made[:3, 3] = Rotation.from_quat(values[3:]).as_matrix(), values[:3]
    return made


def test_a_pose_is_composed_across_the_tree_at_the_newest_common_time() -> None:
    mount, arm, first, second = (pose() for _ in range(4))
    reader = message_decoder(channel())
    assert hear(reader, ('camera', 'mount', 0.0, mount), static=True) is None
    assert hear(reader, ('mount', 'base', 0.0, STILL), static=True) is None
    assert hear(reader, ('arm', 'base', 1.0, arm), ('unrelated', 'arm', 1.0, STILL)) is None
    hear(reader, ('tool', 'arm', 1.0, first))
    hear(reader, ('tool', 'arm', 1.2, second))
    reading = hear(reader, ('arm', 'base', 1.15, arm))
    assert reading is not None
    assert (reading.stamp, reading.stamped) == (1.15, True)
    between = matrix((*np.array(first[:3]) * 0.25 + np.array(second[:3]) * 0.75, *STILL[3:]))
    turn = Slerp([1.0, 1.2], Rotation.from_quat([first[3:], second[3:]]))([1.15])
    between[:3, :3] = turn.as_matrix()[0]
    expected = np.linalg.inv(matrix(mount)) @ matrix(arm) @ between
    np.testing.assert_allclose(matrix(reading.values), expected, atol=1e-12)


def test_an_orientation_takes_the_form_that_the_policy_wants() -> None:
    turn = Rotation.random(random_state=RNG)
    half = channel(target_frame='base', transform=ChannelTransform(rotation=ROTATION_6D))
    assert half.observation_names[3:] == tuple(f'tool.rotation_6d.{i}' for i in range(6))
    reading = hear(message_decoder(half), ('tool', 'base', 1.0, (1.0, 2.0, 3.0, *-turn.as_quat())))
    assert reading is not None
    np.testing.assert_allclose(reading.values[3:], turn.as_matrix()[:, :2].T.ravel(), atol=1e-12)


def test_a_slow_transform_is_waited_for_and_named_as_the_oldest() -> None:
    reader = message_decoder(channel(target_frame='base'))
    hear(reader, ('arm', 'base', 1.0, STILL), ('tool', 'arm', 1.0, STILL))
    for step in range(2000):
        reading = hear(reader, ('tool', 'arm', 1.001 + step * 0.001, STILL))
        assert reading is None or reading.stamp == 1.0
    assert reader.hint == "the oldest transform is that of 'arm' in 'base'"
    reading = hear(reader, ('arm', 'base', 2.9, STILL))
    assert reading is not None
    assert reading.stamp == 2.9


@pytest.mark.parametrize(
    ('heard', 'missing'),
    [
        ([], "no transform between 'tool' and 'camera' has come"),
        (
            [('tool', 'wrist', 1.0, STILL), ('wrist', 'arm', 1.0, STILL)],
            "no transform between 'arm' and 'camera' has come ('tool' is known up to 'arm')",
        ),
        (
            [('tool', 'arm', 1.0, STILL), ('camera', 'map', 1.0, STILL)],
            "between 'arm' and 'map' has come ('tool' is known up to 'arm', 'camera' is known up "
            "to 'map')",
        ),
    ],
)
def test_the_transform_that_never_came_is_named(heard: list[Any], missing: str) -> None:
    reader = message_decoder(channel())
    assert hear(reader, *heard) is None
    assert missing in reader.hint


def test_a_loop_is_refused_by_its_frames() -> None:
    reader = message_decoder(channel())
    hear(reader, ('tool', 'arm', 1.0, STILL))
    with pytest.raises(ObservationError, match='frames tool in arm in wrist in tool form a loop'):
        hear(reader, ('arm', 'wrist', 1.0, STILL), ('wrist', 'tool', 1.0, STILL))
    assert hear(reader, ('tool', 'arm', 1.1, STILL)) is None
    assert 'form a loop' in reader.hint
    hear(reader, ('wrist', 'camera', 1.1, STILL))
    assert hear(reader, ('arm', 'wrist', 1.2, STILL)) is not None


@pytest.mark.parametrize(
    ('transform', 'problem'),
    [
        (('tool', 'camera', 1.0, (math.nan, *STILL[1:])), 'expected finite numbers'),
        (('tool', 'camera', 1.0, (0.0,) * 7), 'a unit quaternion'),
        (('tool', 'tool', 1.0, STILL), "is in 'tool', expected two different frames"),
        (('tool', '', 1.0, STILL), 'expected two different frames'),
        (('tool', 'camera', 0.0, STILL), 'has no stamp; .* stamped_by: receipt'),
    ],
)
def test_a_transform_that_is_none_is_refused_by_name(transform: Any, problem: str) -> None:
    reader = message_decoder(channel())
    with pytest.raises(
        ObservationError, match=rf"'tool' \(/tf\): the transform of 'tool' .*{problem}"
    ):
        hear(reader, transform)
    assert hear(reader, ('tool', 'camera', 1.0, STILL)) is not None
    # What is wrong elsewhere in the tree is no matter of this robot.
    assert hear(reader, ('other', 'map', 1.0, (0.0,) * 7)) is not None


def test_a_tree_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transform_tree, 'MAX_FRAMES', 3)
    reader = message_decoder(channel())
    with pytest.raises(ObservationError, match="'3' is one too many: 3 frames are known"):
        hear(reader, *((str(n), 'map', 1.0, STILL) for n in range(4)))
    known = message_decoder(channel())
    hear(known, ('tool', 'camera', 1.0, STILL))
    assert hear(known, *((str(n), 'map', 1.0, STILL) for n in range(9))) is not None


def test_a_clock_that_was_set_back_begins_anew_and_a_late_message_does_not() -> None:
    reader = message_decoder(channel())
    stamps = []
    for stamp in (5.0, 4.9, 5.0, 5.1, 1.0, 1.1):
        reading = hear(reader, ('tool', 'camera', stamp, STILL))
        assert reading is not None
        stamps.append(reading.stamp)
    assert stamps == [5.0, 5.0, 5.0, 5.1, 1.0, 1.1]


def test_the_time_of_receipt_counts_where_the_robot_yaml_says_so() -> None:
    reader = message_decoder(channel(stamped_by='receipt'))
    reading = hear(reader, ('tool', 'camera', 0.0, STILL))
    assert reading is not None
    assert (reading.stamp, reading.stamped) == (9.0, False)


def test_a_pose_that_nothing_renews_has_to_be_latched() -> None:
    with pytest.raises(ObservationError, match=r'are static, .* set latched: true instead'):
        hear(message_decoder(channel()), ('tool', 'camera', 0.0, STILL), static=True)
    latched = message_decoder(channel(max_age_s=math.inf, latched=True))
    assert hear(latched, ('tool', 'camera', 0.0, STILL), static=True) is not None


def test_lockstep_refuses_what_has_no_message_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r'robot.observation.tool.type is tf2_msgs/msg/TFMessage'):
        message_decoder(channel(), lockstep=True)
