# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Message conversion: joints by name, fields by path, numbers bit for bit."""

from __future__ import annotations

import array
import io
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from base_policy_builders import write_onnx_encoder
from hypothesis import assume, given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image, JointState, Joy, LaserScan

from residual_rl_ros.errors import CommandError, ConfigError, ObservationError
from residual_rl_ros.robot.codecs import Codec
from residual_rl_ros.robot.command import (
    INDEX_TYPES,
    TRAJECTORY,
    TWIST_STAMPED,
    Command,
    CommandDecoder,
    check_lockstep,
)
from residual_rl_ros.robot.decoders import CameraDecoder
from residual_rl_ros.robot.image_messages import COLOURS, to_rgb
from residual_rl_ros.robot.stamps import label_of, rounded, stamp_of, stamped_label, to_seconds
from residual_rl_ros.robot.topics import (
    BOOL,
    COMPRESSED_IMAGE,
    FLOAT,
    FLOAT_ARRAY,
    IMAGE,
    JOINT_STATE,
    JOY,
    LASER_SCAN,
    POSE_WITH_COVARIANCE,
    TF,
    Channel,
)
from residual_rl_ros.robot.transforms import ChannelTransform
from residual_rl_ros.ros.common import command_writers
from residual_rl_ros.ros.common.command_writers import CommandWriter
from residual_rl_ros.ros.common.encoders import (
    ChannelEncoder,
    ChannelReader,
    float_array,
    to_time,
)
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.transitions.cdr import labelled_array

VECTOR, PLAIN_VECTOR = 'geometry_msgs/msg/Vector3Stamped', 'geometry_msgs/msg/Vector3'
ARM = Channel('arm', 'joint_states', JOINT_STATE, ('position', 'velocity'), ('a', 'b'), 0.1)
POSE = Channel(
    'hole', 'hole_pose', 'geometry_msgs/msg/PoseStamped', ('position.x', 'orientation.w'), (), 0.1
)
STATE = Channel('state', 'observation', FLOAT_ARRAY, ('x0', 'x1', 'x2'), (), 0.1)


def received(message: Any, kind: str) -> Any:
    """Return what a subscription would get of a message, or of the bytes of one."""
    if not isinstance(message, bytes):
        message = serialize_message(message)
    return deserialize_message(message, message_class(kind))


def joint_state(names: list[str], positions: list[float], velocities: list[float]) -> JointState:
    return JointState(
        name=names,
        position=array.array('d', positions),
        velocity=array.array('d', velocities),
    )


def values_of(channel: Channel, message: Any) -> Any:
    """Return the values of a message that has all of them."""
    reading = ChannelReader(replace(channel, stamped_by='receipt')).decoder.read(
        message, lambda: 1.0
    )
    assert reading is not None
    assert (reading.stamp, reading.stamped) == (1.0, False)
    return reading.values


def test_joints_are_found_by_name_whatever_their_order() -> None:
    message = joint_state(['b', 'gripper', 'a'], [2.0, 9.0, 1.0], [20.0, 90.0, 10.0])
    np.testing.assert_array_equal(values_of(ARM, message), [1.0, 2.0, 10.0, 20.0])


def test_a_changed_joint_order_is_noticed_between_messages() -> None:
    reader = ChannelReader(ARM).decoder
    for names, sign in ((['a', 'b'], 1), (['b', 'a'], -1)):
        message = joint_state(names, [1.0, 2.0][::sign], [10.0, 20.0][::sign])
        message.header.stamp = to_time(1.0)
        reading = reader.read(message, lambda: 1.0)
        assert reading is not None
        np.testing.assert_array_equal(reading.values, [1.0, 2.0, 10.0, 20.0])


def test_a_joint_state_without_velocities_is_refused() -> None:
    with pytest.raises(ObservationError, match='velocity has 0 values for 2 joints'):
        values_of(ARM, joint_state(['a', 'b'], [1.0, 2.0], []))


def test_a_field_that_the_type_does_not_have_is_refused_at_start() -> None:
    wrong = Channel('hole', 't', 'geometry_msgs/msg/PoseStamped', ('position.q',), (), 0.1)
    with pytest.raises(ObservationError, match=r'position\.q'):
        ChannelReader(wrong)


def seen_by(channel: Channel) -> CameraDecoder:
    """Return the decoder of a live camera."""
    decoder = ChannelReader(channel).decoder
    assert isinstance(decoder, CameraDecoder)
    return decoder


@pytest.mark.parametrize('channel', [ARM, POSE, STATE])
def test_what_a_simulator_writes_is_what_a_policy_reads(channel: Channel) -> None:
    values = np.random.default_rng(0).standard_normal(len(channel.observation_names))
    message = received(ChannelEncoder(channel).message(values, 12.345), channel.type)
    reading = ChannelReader(channel).decoder.read(message, lambda: 13.0)
    assert reading is not None
    np.testing.assert_array_equal(reading.values, values)
    assert (reading.stamp, reading.stamped) == (rounded(12.345), True)


def test_an_unset_header_stamp_is_refused_unless_the_receipt_counts() -> None:
    message = joint_state(['a', 'b'], [0.0, 0.0], [0.0, 0.0])
    with pytest.raises(ObservationError, match=r"'arm' \(joint_states\): the header has no stamp"):
        ChannelReader(ARM).decoder.stamp(message)
    assert ChannelReader(replace(ARM, stamped_by='receipt')).decoder.stamp(message) is None
    assert ChannelReader(STATE).decoder.stamp(float_array([0.0, 0.0, 0.0])) is None


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=64))
def test_float_arrays_carry_every_bit(values: list[float]) -> None:
    message = float_array(values, 'label')
    np.testing.assert_array_equal(np.asarray(message.data), values)
    assert label_of(message) == 'label'


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=8), st.text(max_size=12))
def test_bytes_of_an_array_mean_what_those_of_ros_do(values: list[float], label: str) -> None:
    assume('\0' not in label)
    data = labelled_array(values, label)
    message = received(data, FLOAT_ARRAY)
    assert message == float_array(values, label)
    assert len(data) == len(serialize_message(message))  # Padding may hold anything.


@given(st.integers(min_value=1, max_value=10**9))
def test_a_stamp_survives_header_label_and_feedback_alike(tick: int) -> None:
    stamp = tick * 50_000_000 * 1e-9
    header = to_time(stamp)
    through_header = to_seconds(header.sec, header.nanosec)
    assert rounded(through_header) == rounded(stamp) == through_header
    assert stamped_label(through_header) == stamped_label(stamp)


PIXELS = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def camera(folder: Path, kind: str = IMAGE) -> Channel:
    """Return a channel whose features are the mean of each colour."""
    write_onnx_encoder(folder / 'encoder.onnx')
    fields = ('red', 'green', 'blue')
    return Channel('camera', 'image_raw', kind, fields, (), 0.1, str(folder / 'encoder.onnx'))


@pytest.mark.parametrize('kind', [IMAGE, COMPRESSED_IMAGE])
def test_an_image_arrives_as_its_features(tmp_path: Path, kind: str) -> None:
    channel = camera(tmp_path, kind)
    reader = seen_by(channel)
    message = ChannelEncoder(channel).message(PIXELS, 12.345)
    np.testing.assert_allclose(reader.look(message).values, PIXELS.mean((0, 1)), rtol=1e-6)
    assert reader.stamp(message) == rounded(12.345)


@pytest.mark.parametrize('encoding', COLOURS)
def test_every_encoding_becomes_rgb_and_padding_is_dropped(encoding: str) -> None:
    channels, order = COLOURS[encoding]
    image = PIXELS if channels > 1 else PIXELS[..., :1].repeat(3, axis=-1)
    rows = np.full((4, 6 * channels + 5), 99, np.uint8)
    pixels = rows[:, : 6 * channels].reshape(4, 6, channels)
    for colour, place in enumerate(order):
        pixels[..., place] = image[..., colour]
    rows[:, : 6 * channels] = pixels.reshape(4, -1)
    message = Image(height=4, width=6, encoding=encoding, step=rows.shape[1])
    message.data = array.array('B', rows.tobytes())
    np.testing.assert_array_equal(to_rgb(message), image)


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        ({'encoding': '16UC1'}, "encoding is '16UC1', expected one of rgb8, bgr8"),
        ({'step': 17}, 'image has 72 bytes for 4 rows of 17 bytes, 6 pixels of 3'),
        ({'height': 5}, 'image has 72 bytes for 5 rows'),
        ({'data': array.array('B', b'')}, 'image has 0 bytes for 4 rows'),
        ({'width': 3}, r'image is uint8 \[4, 3, 3\], encoder.onnx expects uint8 \[4, 6, 3\]'),
    ],
)
def test_an_image_that_contradicts_itself_or_the_encoder_is_refused(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    channel = camera(tmp_path)
    message = ChannelEncoder(channel).message(PIXELS, 1.0)
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ObservationError, match=rf"channel 'camera' \(image_raw\): .*{problem}"):
        seen_by(channel).look(message)


def test_a_truncated_or_foreign_compressed_image_is_refused(tmp_path: Path) -> None:
    reader = seen_by(camera(tmp_path, COMPRESSED_IMAGE))
    buffer = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(buffer, 'PNG')
    gif = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(gif, 'GIF')
    for data in (buffer.getvalue()[:-30], b'', b'junk', gif.getvalue()):
        with pytest.raises(ObservationError, match='are no JPEG or PNG'):
            reader.look(CompressedImage(data=array.array('B', data)))


COMMANDS = [
    Command('c', FLOAT_ARRAY),
    Command('c', TRAJECTORY, joints=('a', 'b')),
    Command('c', JOINT_STATE, joints=('a', 'b')),
    Command('c', TWIST_STAMPED, fields=('linear.x', 'angular.z'), frame_id='base_link'),
]


@pytest.mark.parametrize('command', COMMANDS, ids=lambda command: command.type)
def test_what_a_policy_commands_is_what_a_simulator_reads(command: Command) -> None:
    values = np.array([0.1, -1.0 / 3.0])
    reader = CommandDecoder(command, 2)
    writer = CommandWriter(command, 0.05, lockstep=True)
    message = received(writer.message(values, 12.345), command.type)
    np.testing.assert_array_equal(reader.values(message), values)
    assert reader.answers(message, 12.345)
    assert not reader.answers(message, 12.395)


@pytest.mark.parametrize('kind', INDEX_TYPES)
def test_a_discrete_action_goes_as_its_index(kind: str) -> None:
    command = Command('c', kind)
    reader, writer = CommandDecoder(command, 3), CommandWriter(command, 0.05, lockstep=False)
    for index, values in enumerate(np.eye(3)):
        message = received(writer.message(values, 12.0), kind)
        assert message.data == index
        np.testing.assert_array_equal(reader.values(message), values)
    for wrong in (-1, 3):
        with pytest.raises(CommandError, match=f'on c: {wrong} is no index of an action, expected'):
            reader.values(message_class(kind)(data=wrong))


def test_an_index_answers_no_stamp_and_is_refused_in_lockstep() -> None:
    with pytest.raises(ConfigError, match=r'carry no stamp, but in lockstep a command answers'):
        check_lockstep([Command('c', INDEX_TYPES[0])])
    message = CommandWriter(Command('c', INDEX_TYPES[0]), 0.05, False).message(np.eye(3)[1], 1.0)
    assert not CommandDecoder(Command('c', INDEX_TYPES[0]), 3).answers(message, 1.0)


def test_a_robot_starts_a_trajectory_at_once_and_reaches_it_within_a_period() -> None:
    message = CommandWriter(COMMANDS[1], 0.05, lockstep=False).message(np.array([1.0, 2.0]), 12.3)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (0, 0)
    (point,) = message.points
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 50_000_000)
    assert message.joint_names == ['a', 'b']


def test_a_twist_has_its_frame_and_is_zero_elsewhere() -> None:
    message = CommandWriter(COMMANDS[3], 0.05, lockstep=False).message(np.array([0.5, -1.0]), 12.0)
    assert message.header.frame_id == 'base_link'
    assert message.header.stamp == to_time(12.0)
    assert (message.twist.linear.x, message.twist.angular.z) == (0.5, -1.0)
    assert (message.twist.linear.y, message.twist.linear.z, message.twist.angular.x) == (0, 0, 0)


def test_commanded_joints_are_found_by_name() -> None:
    message = CommandWriter(COMMANDS[2], 0.05, lockstep=True).message(np.array([1.0, 2.0]), 1.0)
    swapped = Command('c', JOINT_STATE, joints=('b', 'a'))
    np.testing.assert_array_equal(CommandDecoder(swapped, 2).values(message), [2.0, 1.0])


@pytest.mark.parametrize('command', COMMANDS, ids=lambda command: command.type)
def test_a_command_that_cannot_be_used_is_refused(command: Command) -> None:
    reader = CommandDecoder(command, 2)
    empty = message_class(command.type)()
    good = CommandWriter(command, 0.05, lockstep=True)
    infinite = received(good.message(np.array([1.0, np.inf]), 1.0), command.type)
    for message in [infinite] if command.type == TWIST_STAMPED else [empty, infinite]:
        with pytest.raises(CommandError, match='command on c'):
            reader.values(message)


def test_a_channel_stamped_by_receipt_ignores_the_header() -> None:
    channel = Channel(
        'hole',
        'hole_pose',
        'geometry_msgs/msg/PoseStamped',
        ('position.x',),
        (),
        0.1,
        stamped_by='receipt',
    )
    message = ChannelEncoder(channel).message(np.array([0.5]), 12.345)
    assert ChannelReader(channel).decoder.stamp(message) is None


@pytest.mark.parametrize('digits', ['9' * 20, '1' + '0' * 399, '7' * 5000, '-1', 'now'])
def test_a_label_that_is_no_stamp_is_refused_by_topic(digits: str) -> None:
    message = float_array([0.0, 0.0, 0.0], f'stamp_ns:{digits}')
    problem = r"'state' \(observation\): label 'stamp_ns:.* no stamp"
    with pytest.raises(ObservationError, match=problem):
        ChannelReader(STATE).decoder.stamp(message)
    assert stamp_of(message) is None


@pytest.mark.parametrize('stamp', [1e300, -1e300, np.inf, np.nan])
def test_a_stamp_beyond_all_clocks_stays_as_it_is(stamp: float) -> None:
    np.testing.assert_equal(rounded(stamp), stamp)


def test_an_image_that_claims_to_be_giant_is_refused_unread(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PIL.Image.new('1', (1, 1)).save(buffer, 'PNG')
    png = bytearray(buffer.getvalue())
    png[16:24] = struct.pack('>II', 60_000, 60_000)  # In its header, which has a checksum.
    png[29:33] = struct.pack('>I', zlib.crc32(png[12:29]))
    message = CompressedImage(format='png', data=array.array('B', png))
    with pytest.raises(ObservationError, match=r'3600000000 pixels'):
        seen_by(camera(tmp_path, COMPRESSED_IMAGE)).look(message)


@pytest.mark.parametrize('kind', [LASER_SCAN, JOY, FLOAT, BOOL, TF, 'my_msgs/msg/Pads'])
def test_types_that_no_simulated_robot_sends_are_refused_by_name(kind: str) -> None:
    channel = Channel('extra', 'extra', kind, ('data',), (), 0.1, beams=1)
    with pytest.raises(ConfigError, match=rf'observation.extra.type is {kind}, which no simulated'):
        ChannelEncoder(channel)


def test_a_simulated_robot_gives_no_goal() -> None:
    with pytest.raises(ConfigError, match=r'observation.hole has latched, .* which no simulated'):
        ChannelEncoder(replace(POSE, latched=True))


def test_a_command_of_another_package_has_time_and_frame_where_its_type_has_a_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fill(message: Any, values: Any, fields: Any) -> None:
        for field, value in zip(fields, values.tolist(), strict=True):
            setattr(message.vector, field, value)

    codecs = {VECTOR: Codec(lambda message, fields: [], fill)}
    monkeypatch.setattr(command_writers, 'find_codec', codecs.__getitem__)
    command = Command('c', VECTOR, fields=('x', 'z'), frame_id='tool')
    message = CommandWriter(command, 0.05, False).message(np.array([1.0, 2.0]), 3.0)
    assert (message.vector.x, message.vector.y, message.vector.z) == (1.0, 0.0, 2.0)
    assert (message.header.stamp, message.header.frame_id) == (to_time(3.0), 'tool')
    codecs[VECTOR] = Codec(lambda message, fields: [], lambda *given: {}['speed'])
    with pytest.raises(ConfigError, match=rf"'command': the codec of {VECTOR} failed: KeyError"):
        CommandWriter(command, 0.05, False)
    codecs[PLAIN_VECTOR] = Codec(lambda message, fields: [], lambda *given: None)
    with pytest.raises(ConfigError, match=r"has frame_id 'tool', but .*Vector3 has no header"):
        CommandWriter(replace(command, type=PLAIN_VECTOR), 0.05, False)


def test_a_simulated_robot_does_not_undo_transforms() -> None:
    channel = replace(ARM, transform=ChannelTransform(degrees=True))
    with pytest.raises(ConfigError, match=r'observation.arm has transforms, .* remove degrees'):
        ChannelEncoder(channel)


def test_a_simulated_robot_names_the_frame_that_is_expected() -> None:
    channel = replace(POSE, frame_id='base_link')
    message = received(ChannelEncoder(channel).message(np.array([1.0, 2.0]), 1.0), channel.type)
    assert values_of(channel, message).tolist() == [1.0, 2.0]
    message.header.frame_id = 'map'
    with pytest.raises(ObservationError, match="frame_id is 'map', expected 'base_link'"):
        ChannelReader(channel).decoder.read(message, lambda: 1.0)


def test_live_messages_of_scans_gamepads_and_numbers_are_read() -> None:
    scan = Channel('scan', 'scan', LASER_SCAN, (), (), 0.1, beams=2)
    seen = LaserScan(range_min=0.5, range_max=8.0, ranges=[1.0, math.inf, math.nan, 0.25])
    assert values_of(scan, received(seen, LASER_SCAN)).tolist() == [1.0, 0.5]
    pad = Channel('pad', 'joy', JOY, ('axes.0', 'buttons.1'), (), 0.1)
    assert values_of(pad, received(Joy(axes=[0.5], buttons=[0, 1]), JOY)).tolist() == [0.5, 1.0]
    for kind, said in ((FLOAT, 2.0), (BOOL, True)):
        channel = Channel('one', 'one', kind, ('data',), (), 0.1)
        message = received(message_class(kind)(data=said), kind)
        assert values_of(channel, message).tolist() == [float(said)]
    estimated = replace(POSE, type=POSE_WITH_COVARIANCE)
    assert values_of(estimated, message_class(estimated.type)()).tolist() == [0.0, 1.0]
