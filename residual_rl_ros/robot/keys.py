# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The keys of a robot YAML, with their defaults and ranges; `description` makes a robot of them."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from residual_rl_ros.robot.action_spec import (
    FOLLOWING_PERIODS,
    FOLLOWING_S,
    KINDS,
    STANDS_STILL,
    START_PERIODS,
    START_S,
    UNITS,
)
from residual_rl_ros.robot.command import (
    COMMAND_TYPES,
    FIELDS,
    GRIPPER,
    INDEX_TYPES,
    INTERPOLATIONS,
    PARALLEL_GRIPPER,
    TRAJECTORY,
    TWIST,
    TWIST_STAMPED,
    WRENCH,
)
from residual_rl_ros.robot.topics import (
    CHANNEL_TYPES,
    COMPRESSED_IMAGE,
    FLOAT,
    FLOAT_ARRAY,
    IMAGE,
    JOINT_STATE,
    LASER_SCAN,
    ORIENTATION_TYPES,
    POSE,
    SCALAR_TYPES,
    TAKES_EFFECT,
    TF,
)
from residual_rl_ros.robot.transforms import ROTATIONS
from residual_rl_ros.schema import parameter

INFINITY = float('inf')
CODEC = 'a type with a codec'
"""Stands for every message type that another package reads or makes."""
TF_ALIAS = 'tf'
"""Short name of the type of transforms."""
POSE_FIELDS = tuple(each for each in FIELDS[POSE] if not each.startswith('rotation_vector'))


@dataclass(frozen=True, kw_only=True)
class RobotKeys:
    """Of `robot` itself."""

    name: str = parameter(MISSING, 'name of the robot', filled=True)
    control_rate_hz: float = parameter(MISSING, 'control rate [Hz]', 0.01, 10_000.0)


@dataclass(frozen=True, kw_only=True)
class CommandKeys:
    """Of `robot.command`, or of each of its `channels`, of any type."""

    topic: str = parameter(
        MISSING, 'topic or action that moves the robot', filled=True, ros_name=True
    )
    type: str = parameter(MISSING, 'ROS message or action type', choices=COMMAND_TYPES)
    actions: tuple[str, ...] = parameter(
        (), 'names of the actions that it carries, in its order; default: all of them'
    )
    hold: str = parameter(
        '',
        'how it holds; default: by the units, positions repeat and everything else goes to zero',
        choices=('', 'last', 'zero'),
    )
    rate_hz: float = parameter(
        0.0,
        'how often it is sent: a whole fraction of the control rate or, in between, a multiple of '
        'it; 0: each control step',
        0.0,
        1000.0,
    )
    interpolation: str = parameter(
        '',
        'what is sent between two control steps; default: cubic, or limited with max_acceleration '
        'and max_jerk',
        choices=('', *INTERPOLATIONS),
    )
    max_acceleration: tuple[float, ...] = parameter(
        (), 'largest acceleration of the commands, one for each of its actions [1/s^2]', above=0.0
    )
    max_jerk: tuple[float, ...] = parameter(
        (), 'largest jerk of the commands, one for each of its actions [1/s^3]', above=0.0
    )


@dataclass(frozen=True, kw_only=True)
class JointCommandKeys(CommandKeys):
    """Of a command that names joints."""

    joints: tuple[str, ...] = parameter(MISSING, 'joint of each action', filled=True)


@dataclass(frozen=True, kw_only=True)
class TrajectoryKeys(JointCommandKeys):
    """Of a command that is a trajectory."""

    horizon_steps: int = parameter(
        0,
        'points of each message, one for each coming control step, with velocities, as far as they '
        'are known; 0: one point without a velocity',
        0,
        1000,
    )


@dataclass(frozen=True, kw_only=True)
class TwistKeys(CommandKeys):
    """Of a command that is a twist without a header."""

    fields: tuple[str, ...] = parameter(
        MISSING, 'field of each action', choices=list(FIELDS[TWIST])
    )


@dataclass(frozen=True, kw_only=True)
class TwistStampedKeys(TwistKeys):
    """Of a command that is a twist with a header."""

    frame_id: str = parameter(MISSING, 'frame of the command', filled=True)


@dataclass(frozen=True, kw_only=True)
class WrenchKeys(CommandKeys):
    """Of a command that is a wrench."""

    fields: tuple[str, ...] = parameter(
        MISSING, 'field of each action', choices=list(FIELDS[WRENCH])
    )
    frame_id: str = parameter(MISSING, 'frame of the command', filled=True)


@dataclass(frozen=True, kw_only=True)
class CodecKeys(CommandKeys):
    """Of a command of a type of another package, which has a codec for it."""

    type: str = parameter(MISSING, 'ROS message type', filled=True)
    fields: tuple[str, ...] = parameter((), 'field of each action; default: the actions')
    frame_id: str = parameter('', 'frame of the command, if it has a header')


@dataclass(frozen=True, kw_only=True)
class PoseKeys(CommandKeys):
    """Of a command that is a pose."""

    fields: tuple[str, ...] = parameter(MISSING, 'field of each action', choices=list(FIELDS[POSE]))
    frame_id: str = parameter(MISSING, 'frame of the command', filled=True)
    orientation: tuple[float, ...] = parameter(
        (0.0, 0.0, 0.0, 1.0), 'orientation that no action commands, quaternion x, y, z, w'
    )


@dataclass(frozen=True, kw_only=True)
class GripperKeys(CommandKeys):
    """Of a gripper's action."""

    max_effort: float = parameter(0.0, 'largest effort [N]; 0: none is stated', 0.0)
    threshold: float = parameter(0.0, 'smaller changes make no goal', 0.0)
    min_interval_s: float = parameter(0.2, 'shortest time between two goals [s]', 0.0)


@dataclass(frozen=True, kw_only=True)
class ParallelGripperKeys(GripperKeys):
    """Of a gripper's action that names its joint."""

    joints: tuple[str, ...] = parameter(MISSING, 'joint of the gripper', filled=True)


@dataclass(frozen=True, kw_only=True)
class AnyActionKeys:
    """Of `robot.action`, of any kind."""

    names: tuple[str, ...] = parameter(MISSING, 'action names', filled=True)
    kind: str = parameter(KINDS[0], 'kind of the actions', choices=KINDS)


@dataclass(frozen=True, kw_only=True)
class DiscreteActionKeys(AnyActionKeys):
    """Of discrete actions."""

    hold_action: str = parameter('', 'action with which it holds; default: the last one again')


@dataclass(frozen=True, kw_only=True)
class ActionKeys(AnyActionKeys):
    """Of continuous actions."""

    lower: tuple[float, ...] = parameter(
        (), 'smallest commands; required without `robot_description`, whose limits it narrows'
    )
    upper: tuple[float, ...] = parameter((), 'largest commands; likewise')
    max_velocity: tuple[float, ...] = parameter((), 'largest changes of a command [1/s]; likewise')
    measured_by: tuple[str, ...] = parameter((), 'observation name that measures each action')
    units: tuple[str, ...] = parameter((), 'unit of each action', choices=UNITS)
    following_limit: tuple[float, ...] = parameter(
        (),
        'largest distance between command and measurement while the robot moves; default: '
        f'max_velocity x the larger of {FOLLOWING_S:g} s and {FOLLOWING_PERIODS} control periods; '
        f'of a velocity twice that, and at most {STANDS_STILL:g} of the largest one',
    )
    start_limit: tuple[float, ...] = parameter(
        (),
        "largest distance of an episode's first command from the measurement; default: "
        f'max_velocity x the larger of {START_S:g} s and {START_PERIODS} control periods',
    )


@dataclass(frozen=True, kw_only=True)
class ChannelKeys:
    """Of a channel, of any type."""

    topic: str = parameter(MISSING, 'topic of the channel', filled=True, ros_name=True)
    type: str = parameter(MISSING, 'ROS message type', choices=CHANNEL_TYPES)
    fields: tuple[str, ...] = parameter(MISSING, 'values that are read', filled=True)
    max_age_s: float = parameter(
        INFINITY,
        'older data is stale [s]; required, but not with latched',
        maximum=3600.0,
        above=0.0,
    )
    stamped_by: str = parameter('header', 'which time counts', choices=('header', 'receipt'))
    lower: tuple[float, ...] = parameter((), 'smallest believable values: one, or one per field')
    upper: tuple[float, ...] = parameter((), 'largest believable values: one, or one per field')
    frame_id: str = parameter('', 'frame that the header must name; default: any')
    degrees: bool = parameter(False, 'angles are in degrees and become radians')
    scale: tuple[float, ...] = parameter(
        (), 'then multiplied by: one value, or one per observation name'
    )
    offset: tuple[float, ...] = parameter((), 'then added: one value, or one per observation name')
    wrap: tuple[str, ...] = parameter(
        (), 'then wrapped to [-pi, pi]: fields, or with joints also field.joint'
    )
    latched: bool = parameter(
        False, 'given once, such as a goal: the robot waits for the first one, and it has no age'
    )
    takes_effect: str = parameter(
        TAKES_EFFECT[0],
        'when a latched value that has changed is observed: from the next episode on, or at once',
        choices=TAKES_EFFECT,
    )


@dataclass(frozen=True, kw_only=True)
class StopInputKeys:
    """Of a map in `robot.stop_inputs`."""

    topic: str = parameter(MISSING, 'topic that says when to hold', filled=True, ros_name=True)
    type: str = parameter(MISSING, 'ROS message type: package/msg/Name', filled=True)
    field: str = parameter('data', 'dotted field of the message', filled=True)
    bad: tuple[str, ...] = parameter((), 'values at which the robot holds')
    limit: float = parameter(INFINITY, 'hold while the absolute value is larger', above=0.0)
    max_age_s: float = parameter(
        0.0, 'hold without a message of this age [s]; 0: silence is fine', 0.0, 3600.0
    )
    required: bool = parameter(False, 'hold until it has been heard once: for latched topics')


@dataclass(frozen=True, kw_only=True)
class JointChannelKeys(ChannelKeys):
    """Of a channel with joints."""

    fields: tuple[str, ...] = parameter(
        MISSING, 'values that are read', choices=('position', 'velocity', 'effort'), filled=True
    )
    joints: tuple[str, ...] = parameter(MISSING, 'joints, matched by name', filled=True)


@dataclass(frozen=True, kw_only=True)
class OrientationChannelKeys(ChannelKeys):
    """Of a channel with an orientation."""

    rotation: str = parameter(
        '',
        'form of the orientation, of which fields names all four: quaternion of length 1 with '
        'w >= 0, or the first two columns of its matrix; default: as it comes',
        choices=('', *ROTATIONS),
    )


@dataclass(frozen=True, kw_only=True)
class TfChannelKeys(OrientationChannelKeys):
    """Of the pose of a frame in another one, by transforms."""

    topic: str = parameter(
        '/tf', 'topic of transforms; static ones are on it + _static', filled=True, ros_name=True
    )
    type: str = parameter(MISSING, 'transforms', choices=(TF_ALIAS, TF))
    fields: tuple[str, ...] = parameter(
        MISSING, 'values of the pose', choices=POSE_FIELDS, filled=True
    )
    source_frame: str = parameter(MISSING, 'frame whose pose is observed', filled=True)
    target_frame: str = parameter(MISSING, 'frame in which it is observed', filled=True)


@dataclass(frozen=True, kw_only=True)
class CodecChannelKeys(OrientationChannelKeys):
    """Of a type of another package, which has a codec for it."""

    type: str = parameter(MISSING, 'ROS message type', filled=True)


@dataclass(frozen=True, kw_only=True)
class LaserChannelKeys(ChannelKeys):
    """Of a laser scan."""

    fields: tuple[str, ...] = parameter((), 'none: they are range0, range1 and so on')
    beams: int = parameter(
        MISSING, 'number of equal sectors, each with its smallest range', 1, 4096
    )


@dataclass(frozen=True, kw_only=True)
class ScalarChannelKeys(ChannelKeys):
    """Of a single number."""

    fields: tuple[str, ...] = parameter(('data',), 'value that is read', choices=('data',))
    stamped_by: str = parameter('receipt', 'which time counts', choices=('receipt',))


@dataclass(frozen=True, kw_only=True)
class ImageChannelKeys(ChannelKeys):
    """Of a camera."""

    fields: tuple[str, ...] = parameter((), "the encoder's features; none without encoder")
    encoder: str = parameter(
        MISSING,
        'ONNX encoder, or base policy with features of this camera: a path, or a shipped one; '
        '`none`: only the base policy sees the images',
        filled=True,
    )
    encoder_sha256: str = parameter('', "digest that the encoder's file must have")
    depth_range: tuple[float, ...] = parameter(
        (), 'depth images (16UC1, 32FC1): [nearest, farthest] [m], which become 0 and 255', 0.0
    )
    depth_invalid: float = parameter(
        INFINITY, 'what NaN, infinity and 0 count as [m]; default: the farthest', 0.0
    )
    camera_info: str = parameter(
        '', 'calibration file of camera_calibration, by which images are undistorted'
    )
    camera_info_topic: str = parameter(
        '',
        'topic of sensor_msgs/CameraInfo, for which the robot waits, instead of the file',
        ros_name=True,
    )
    camera_matrix: tuple[float, ...] = parameter(
        (), 'K of sensor_msgs/CameraInfo, row by row [px], instead of camera_info'
    )
    distortion_coefficients: tuple[float, ...] = parameter(
        (), 'D of sensor_msgs/CameraInfo (plumb_bob): k1, k2, p1, p2 and, if not 0, k3'
    )
    crop: tuple[int, ...] = parameter(
        (), 'then cut out: [top, left, height, width], or [height, width] at the centre [px]', 0
    )
    resize: tuple[int, ...] = parameter((), 'then made [height, width] [px]', 1, 4096)


COMMAND_KEYS: dict[str, type[CommandKeys]] = {
    **dict.fromkeys((FLOAT_ARRAY, FLOAT, *INDEX_TYPES), CommandKeys),
    TRAJECTORY: TrajectoryKeys,
    JOINT_STATE: JointCommandKeys,
    TWIST: TwistKeys,
    TWIST_STAMPED: TwistStampedKeys,
    WRENCH: WrenchKeys,
    POSE: PoseKeys,
    GRIPPER: GripperKeys,
    PARALLEL_GRIPPER: ParallelGripperKeys,
    CODEC: CodecKeys,
}
CHANNEL_KEYS: dict[str, type[ChannelKeys]] = {
    JOINT_STATE: JointChannelKeys,
    **dict.fromkeys(ORIENTATION_TYPES, OrientationChannelKeys),
    LASER_SCAN: LaserChannelKeys,
    **dict.fromkeys(SCALAR_TYPES, ScalarChannelKeys),
    IMAGE: ImageChannelKeys,
    COMPRESSED_IMAGE: ImageChannelKeys,
    **dict.fromkeys((TF_ALIAS, TF), TfChannelKeys),
    CODEC: CodecChannelKeys,
}
