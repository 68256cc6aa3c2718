# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The topics that a robot listens to: what it observes, and what must stop it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residual_rl_ros.robot.image_preprocessing import NO_PREPROCESSING, ImagePreprocessing
from residual_rl_ros.robot.laser_scan import beam_names
from residual_rl_ros.robot.transforms import NO_TRANSFORM, ChannelTransform

JOINT_STATE = 'sensor_msgs/msg/JointState'
FLOAT_ARRAY = 'std_msgs/msg/Float64MultiArray'
IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
LASER_SCAN = 'sensor_msgs/msg/LaserScan'
JOY = 'sensor_msgs/msg/Joy'
FLOAT = 'std_msgs/msg/Float64'
BOOL = 'std_msgs/msg/Bool'
POSE = 'geometry_msgs/msg/PoseStamped'
POSE_WITH_COVARIANCE = 'geometry_msgs/msg/PoseWithCovarianceStamped'
ODOMETRY = 'nav_msgs/msg/Odometry'
IMU = 'sensor_msgs/msg/Imu'
TF = 'tf2_msgs/msg/TFMessage'
CHANNEL_TYPES = (
    JOINT_STATE,
    FLOAT_ARRAY,
    IMAGE,
    COMPRESSED_IMAGE,
    POSE,
    POSE_WITH_COVARIANCE,
    'geometry_msgs/msg/TwistStamped',
    'geometry_msgs/msg/WrenchStamped',
    ODOMETRY,
    IMU,
    LASER_SCAN,
    JOY,
    FLOAT,
    BOOL,
    TF,
)
"""Types that are read here; `codecs` knows those of other packages."""
SERIALIZED_TYPES = (TF,)
"""Types whose messages are read as they travel and are recorded, in CDR."""
SCALAR_TYPES = (FLOAT, BOOL)
"""One number without a stamp: the time of receipt counts."""
HEADERLESS_TYPES = (FLOAT_ARRAY, *SCALAR_TYPES)
ANGLE_TYPES = (JOINT_STATE, FLOAT_ARRAY, FLOAT)
"""Types whose numbers may be angles in degrees."""
ORIENTATION_TYPES = (POSE, POSE_WITH_COVARIANCE, ODOMETRY, IMU)
NO_ENCODER = 'none'
"""Encoder of a camera whose images the base policy alone sees."""
EPISODE, AT_ONCE = TAKES_EFFECT = ('episode', 'at_once')
"""When a latched value that has changed is observed: from the next episode on, or at once."""
STATIC = '_static'
"""What the topic of transforms that never change has after that of the others."""
TF_DEPTH = 100
"""Messages of transforms that may wait: many nodes publish on their topics."""


@dataclass(frozen=True)
class ChannelTopic:
    """A topic that a channel listens to."""

    topic: str
    """Topic name; relative names follow the node's namespace."""
    type: str
    """ROS message type."""
    latched: bool = False
    """What it says is given once, maybe before anybody listens."""
    depth: int = 5
    """Messages that may wait."""


@dataclass(frozen=True)
class Channel:
    """A topic that fills a part of the observation."""

    name: str
    """Prefix of the observation names, for example `arm`."""
    topic: str
    """Topic name; relative names follow the node's namespace."""
    type: str
    """ROS message type: one of `CHANNEL_TYPES`, or one with a codec."""
    fields: tuple[str, ...]
    """JointState: `position`, `velocity`, `effort`. Float64MultiArray: a name per element.
    Images: the encoder's features. LaserScan: none, `beams` names them. Joy: `axes.0`,
    `buttons.1`. Others: dotted fields such as `position.x`; of a codec, what it calls them."""
    joints: tuple[str, ...]
    """JointState: joint names, matched by name. Others: empty."""
    max_age_s: float
    """Older data is stale and refused [s]; infinite where it is latched."""
    encoder: str = ''
    """Images: ONNX encoder, or base policy with features, by path or by the name of a shipped one;
    or `NO_ENCODER`. Others: empty."""
    stamped_by: str = 'header'
    """Which time counts: that in the `header` or, for a clock that is not ours, that of `receipt`.
    """
    encoder_sha256: str = ''
    """Images: digest that the encoder's file must have; empty accepts any."""
    lower: tuple[float, ...] = ()
    """Smallest believable value, of each field or of all; smaller ones are refused. Empty: any."""
    upper: tuple[float, ...] = ()
    """Largest believable value, likewise."""
    preprocessing: ImagePreprocessing = NO_PREPROCESSING
    """Images: what is done to each image first."""
    beams: int = 0
    """LaserScan: number of equal sectors, each with its smallest range."""
    transform: ChannelTransform = NO_TRANSFORM
    """What is done to the numbers."""
    frame_id: str = ''
    """Frame that the header must name; empty accepts any."""
    source_frame: str = ''
    """Transforms: frame whose pose is observed."""
    target_frame: str = ''
    """Transforms: frame in which it is observed."""
    latched: bool = False
    """It is given once, such as a goal, and has no age."""
    takes_effect: str = EPISODE
    """Latched: when a change is observed, one of `TAKES_EFFECT`."""
    camera_info_topic: str = ''
    """Images: CameraInfo by which they are undistorted; empty: by the preprocessing, if at all."""

    @property
    def lockstep_problem(self) -> str:
        """Why its messages do not say which observation they belong to; empty if they do."""
        if self.type in SCALAR_TYPES:
            return f'type is {self.type}, which has no stamp; lockstep needs one: use {FLOAT_ARRAY}'
        if self.latched or len(self.sources) > 1:
            several = 'camera_info_topic is given' if self.is_image else f'type is {self.type}'
            return (
                f'{"latched is true" if self.latched else several}, but in lockstep each '
                'observation has one message; set lockstep to false'
            )
        return ''

    @property
    def sources(self) -> tuple[ChannelTopic, ...]:
        """The topics that it listens to: its own, then what that one needs."""
        if self.type == TF:
            static = ChannelTopic(self.topic + STATIC, TF, latched=True, depth=TF_DEPTH)
            return ChannelTopic(self.topic, TF, depth=TF_DEPTH), static
        own = ChannelTopic(self.topic, self.type, self.latched, 1 if self.latched else 5)
        if self.camera_info_topic:
            return own, ChannelTopic(self.camera_info_topic, CAMERA_INFO)
        return (own,)

    def bounds(self, limits: tuple[float, ...], default: float) -> npt.NDArray[np.float64]:
        """Return `lower` or `upper` for each observation name of the channel."""
        if len(limits) <= 1:
            return np.full(len(self.observation_names), limits[0] if limits else default)
        return np.repeat(np.array(limits), max(len(self.joints), 1))

    @property
    def value_fields(self) -> tuple[str, ...]:
        """Fields of the observation, which are those of the message but for some types."""
        if self.type == LASER_SCAN:
            return beam_names(self.beams)
        return self.transform.fields(self.fields)

    @property
    def is_image(self) -> bool:
        """Whether the messages are images."""
        return self.type in (IMAGE, COMPRESSED_IMAGE)

    @property
    def has_encoder(self) -> bool:
        """Whether an encoder turns the images into values."""
        return self.is_image and self.encoder != NO_ENCODER

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Names of the values that this channel contributes, in order."""
        if self.joints:
            return tuple(
                f'{self.name}.{field}.{joint}'
                for field in self.value_fields
                for joint in self.joints
            )
        return tuple(f'{self.name}.{field}' for field in self.value_fields)
