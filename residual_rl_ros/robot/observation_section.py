# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read `robot.observation` of a robot YAML: the channels, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.codecs import find_codec
from residual_rl_ros.robot.image_preprocessing import (
    NO_PREPROCESSING,
    Calibration,
    DepthScale,
    ImagePreprocessing,
    read_camera_info,
)
from residual_rl_ros.robot.keys import (
    CHANNEL_KEYS,
    INFINITY,
    ChannelKeys,
    CodecChannelKeys,
    ImageChannelKeys,
    JointChannelKeys,
    LaserChannelKeys,
    OrientationChannelKeys,
    TfChannelKeys,
)
from residual_rl_ros.robot.topics import (
    ANGLE_TYPES,
    CHANNEL_TYPES,
    HEADERLESS_TYPES,
    IMAGE,
    JOY,
    LASER_SCAN,
    NO_ENCODER,
    TF,
    Channel,
)
from residual_rl_ros.robot.transforms import NO_TRANSFORM, ChannelTransform, orientation_places
from residual_rl_ros.schema import from_mapping

JOY_FIELD = re.compile(r'(axes|buttons)\.[0-9]{1,3}')


@dataclass
class ObservationSection:
    """What `robot.observation` says, and what is wrong with it."""

    problems: list[str]
    """Get what is wrong."""
    channels: list[Channel] = field(default_factory=list)

    def read(self, mapping: Mapping[str, Any]) -> None:
        """Read the section.

        Args:
            mapping: `channels`, and a map for each of the names in it.
        """
        values = dict(mapping)
        names = values.pop('channels', None)
        path = 'robot.observation'
        if isinstance(names, str) or not hasattr(names, '__iter__') or not list(names):
            self.problems.append(
                f'{path}.channels is {names!r}, expected a list of the names of channels'
            )
            return
        for name in map(str, names):
            if name not in values:
                self.problems.append(
                    f'{path}.channels names {name!r}, expected each name once and a map of its own'
                )
                continue
            own = values.pop(name)
            if isinstance(own, Mapping):
                self._add(name, dict(own), f'{path}.{name}')
            else:
                said = 'missing' if own is None else repr(own)
                self.problems.append(f'{path}.{name} is {said}, expected a map')
        for name in values:
            self.problems.append(
                f'{path}.{name} is not in {path}.channels; list it there, or remove it'
            )

    def _add(self, name: str, values: dict[str, Any], path: str) -> None:
        """Read one channel."""
        said = str(values.get('type'))
        kind = CHANNEL_KEYS.get(said, ChannelKeys)
        try:
            if said.count('/') == 2 and said not in CHANNEL_TYPES:
                find_codec(said)
                kind = CodecChannelKeys
            keys = from_mapping(kind, values, path)
        except ConfigError as error:
            problems = error.problems or (f'type: {error}',)
            self.problems += [f'{path}.{problem}' for problem in problems]
            return
        own = self._own_of_kind(keys, path)
        self._check_fields(keys, path)
        self._check_age(keys, path)
        channel = Channel(
            name,
            keys.topic,
            TF if isinstance(keys, TfChannelKeys) else keys.type,
            keys.fields,
            keys.joints if isinstance(keys, JointChannelKeys) else (),
            keys.max_age_s,
            # Whoever gives a goal by hand gives no time.
            stamped_by='receipt' if keys.latched else keys.stamped_by,
            lower=keys.lower,
            upper=keys.upper,
            transform=self._transform(keys, path),
            frame_id=keys.frame_id,
            latched=keys.latched,
            takes_effect=keys.takes_effect,
            **own,
        )
        self._check_sizes(channel, path)
        self._check_range(channel, path)
        self.channels.append(channel)

    def _own_of_kind(self, keys: ChannelKeys, path: str) -> dict[str, Any]:
        """Return what a channel of a kind has beside what every channel has."""
        match keys:
            case ImageChannelKeys():
                return self._image_options(keys, path)
            case TfChannelKeys():
                return self._frames(keys, path)
            case LaserChannelKeys():
                return {'beams': keys.beams}
        return {}

    def _check_fields(self, keys: ChannelKeys, path: str) -> None:
        """Refuse fields, and a frame, that the type does not have."""
        if keys.type == LASER_SCAN and keys.fields:
            self.problems.append(
                f'{path}.fields is {list(keys.fields)}, expected none: beams names them'
            )
        wrong = [each for each in keys.fields if not JOY_FIELD.fullmatch(each)]
        if keys.type == JOY and wrong:
            self.problems.append(f'{path}.fields has {wrong}, expected axes.0, buttons.1 and so on')
        if keys.type in HEADERLESS_TYPES and keys.frame_id:
            self.problems.append(
                f'{path}.frame_id is {keys.frame_id!r}, but {keys.type} has no header; remove it'
            )

    def _check_age(self, keys: ChannelKeys, path: str) -> None:
        """Refuse an age of what has none, and none of the rest."""
        aged = keys.max_age_s < INFINITY
        if keys.latched and isinstance(keys, ImageChannelKeys):
            self.problems.append(f'{path}.latched is true, expected false for a camera')
        elif keys.latched and aged:
            self.problems.append(
                f'{path}.max_age_s is {keys.max_age_s:g}, but latched is true; remove one of them'
            )
        elif not (keys.latched or aged):
            self.problems.append(f'{path}.max_age_s is missing, expected a number > 0.0')
        if keys.takes_effect != ChannelKeys.takes_effect and not keys.latched:
            self.problems.append(
                f'{path}.takes_effect is {keys.takes_effect!r}, which only a latched channel has; '
                'set latched: true or remove it'
            )

    def _frames(self, keys: TfChannelKeys, path: str) -> dict[str, str]:
        """Return the frames of a channel of transforms."""
        source, target = keys.source_frame.strip('/'), keys.target_frame.strip('/')
        if source == target:
            self.problems.append(f'{path}.source_frame and target_frame are both {source!r}')
        if keys.frame_id:
            self.problems.append(
                f'{path}.frame_id is {keys.frame_id!r}, but target_frame says it; remove it'
            )
        return {'source_frame': source, 'target_frame': target}

    def _transform(self, keys: ChannelKeys, path: str) -> ChannelTransform:
        """Return what is done to the numbers of a channel."""
        rotation = keys.rotation if isinstance(keys, OrientationChannelKeys) else ''
        made = ChannelTransform(keys.scale, keys.offset, keys.degrees, keys.wrap, rotation)
        if isinstance(keys, ImageChannelKeys) and made != NO_TRANSFORM:
            self.problems.append(
                f'{path} has transforms, expected none for a camera; remove degrees, scale, offset '
                'and wrap'
            )
            return NO_TRANSFORM
        angles = keys.type in ANGLE_TYPES or isinstance(keys, CodecChannelKeys)
        if keys.degrees and not angles:
            self.problems.append(
                f'{path}.degrees is true, expected it for {", ".join(ANGLE_TYPES)}; use scale'
            )
        if 0.0 in keys.scale:
            self.problems.append(f'{path}.scale is {list(keys.scale)}, expected no 0')
        if rotation and not orientation_places(keys.fields):
            self.problems.append(
                f'{path}.rotation is {rotation!r}, expected orientation.x, y, z and w in fields, '
                f'which has {list(keys.fields)}'
            )
            return NO_TRANSFORM
        return made

    def _check_sizes(self, channel: Channel, path: str) -> None:
        """Refuse transforms of values that the channel does not have."""
        names = [name.removeprefix(f'{channel.name}.') for name in channel.observation_names]
        transform = channel.transform
        for key, values in (('scale', transform.scale), ('offset', transform.offset)):
            size = len(values)
            if size not in (0, 1, len(names)):
                self.problems.append(f'{path}.{key} has {size} values, expected 1 or {len(names)}')
        known = {*channel.value_fields, *names}
        unknown = [each for each in transform.wrap if each not in known]
        if unknown:
            self.problems.append(
                f'{path}.wrap names {unknown}, expected some of {", ".join(names)}'
            )

    def _image_options(self, keys: ImageChannelKeys, path: str) -> dict[str, Any]:
        """Return the encoder of a camera, and what is done to its images."""
        if (keys.encoder == NO_ENCODER) == bool(keys.fields):
            expected = 'none' if keys.fields else 'the feature_names of the encoder'
            self.problems.append(
                f'{path}.fields is {list(keys.fields)}, with encoder {keys.encoder!r} expected '
                f'{expected}'
            )
        return {
            'encoder': keys.encoder,
            'encoder_sha256': keys.encoder_sha256,
            'preprocessing': self._preprocessing(keys, path),
            'camera_info_topic': keys.camera_info_topic,
        }

    def _preprocessing(self, keys: ImageChannelKeys, path: str) -> ImagePreprocessing:
        """Return what is done to the images of a camera."""
        stated = bool(keys.camera_matrix or keys.distortion_coefficients)
        try:
            if stated and keys.camera_info:
                raise ConfigError('camera_info is given beside the calibration itself; remove one')
            if keys.camera_info_topic and (stated or keys.camera_info):
                raise ConfigError(
                    'camera_info_topic is given beside another calibration; remove one'
                )
            calibration = None
            if stated:
                calibration = Calibration(keys.camera_matrix, keys.distortion_coefficients)
            elif keys.camera_info:
                calibration = read_camera_info(Path(keys.camera_info))
            return ImagePreprocessing(calibration, keys.crop, keys.resize, _depth(keys))
        except ConfigError as error:
            self.problems.append(f'{path}.{error}')
            return NO_PREPROCESSING

    def _check_range(self, channel: Channel, path: str) -> None:
        """Refuse ranges of the wrong size or with nothing in them."""
        sound, size = True, len(channel.value_fields)
        for key, values in (('lower', channel.lower), ('upper', channel.upper)):
            if len(values) not in (0, 1, size):
                sound = False
                self.problems.append(f'{path}.{key} has {len(values)} values, expected 1 or {size}')
        pairs = sound and channel.lower and channel.upper
        if pairs and not (np.array(channel.lower) < np.array(channel.upper)).all():
            self.problems.append(
                f'{path}.lower {list(channel.lower)} is not below upper {list(channel.upper)}'
            )


def _depth(keys: ImageChannelKeys) -> DepthScale | None:
    """Return how the distances of a depth camera become an image, None for other cameras.

    Raises:
        ConfigError: the keys do not fit together.
    """
    if not keys.depth_range:
        if keys.depth_invalid < INFINITY:
            raise ConfigError(f'depth_invalid is {keys.depth_invalid:g} without a depth_range')
        return None
    if len(keys.depth_range) != 2:
        raise ConfigError(
            f'depth_range is {list(keys.depth_range)}, expected [nearest, farthest] [m]'
        )
    if keys.type != IMAGE:
        raise ConfigError(
            f'depth_range is given, but {keys.type} holds no distances: take the topic of {IMAGE}, '
            'or have image_transport republish it'
        )
    return DepthScale(*keys.depth_range, keys.depth_invalid)
