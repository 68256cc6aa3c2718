# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Distances become grey levels, and a CameraInfo undistorts; what is neither is named."""

from __future__ import annotations

import math
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest

from residual_rl_ros.errors import ConfigError, ObservationError
from residual_rl_ros.robot.camera import Camera
from residual_rl_ros.robot.decoders import message_decoder
from residual_rl_ros.robot.image_messages import calibration_of
from residual_rl_ros.robot.image_preprocessing import (
    Calibration,
    DepthScale,
    ImagePreprocessing,
    ImagePreprocessor,
)
from residual_rl_ros.robot.topics import IMAGE, NO_ENCODER, Channel

K = (50.0, 0.0, 31.0, 0.0, 55.0, 23.0, 0.0, 0.0, 1.0)
D = (-0.25, 0.08, 0.004, -0.003, 0.02)
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
WHOLE = {'x_offset': 0, 'y_offset': 0, 'height': 0, 'width': 0}


def image(encoding: str, pixels: np.ndarray, padding: int = 0) -> Any:
    """Return an Image of pixels whose rows end with some unused bytes."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    data = np.pad(rows, ((0, 0), (0, padding)))
    return Message(
        header=Message(stamp=Message(sec=1, nanosec=0), frame_id='camera'),
        **{'height': pixels.shape[0], 'width': pixels.shape[1], 'step': data.shape[1]},
        **{'encoding': encoding, 'is_bigendian': int(pixels.dtype.byteorder == '>')},
        data=data.tobytes(),
    )


def info(**changes: Any) -> Any:
    """Return a CameraInfo."""
    values = {'height': 48, 'width': 64, 'distortion_model': 'plumb_bob', 'k': K, 'd': D}
    values |= {'binning_x': 0, 'binning_y': 1, 'roi': Message(**WHOLE)}
    return Message(**{**values, **changes})


def seen(channel: Channel, message: Any, size: tuple[int, int]) -> np.ndarray:
    """Return the image that a policy sees."""
    reading = message_decoder(channel, image_size=size).read(message, lambda: 9.0)
    assert reading is not None
    assert reading.image is not None
    return reading.image


def camera(**keys: Any) -> Channel:
    """Return an image channel whose images the base policy alone sees."""
    return Channel('front', 'image', IMAGE, (), (), 0.1, NO_ENCODER, **keys)


DEPTH = camera(preprocessing=ImagePreprocessing(depth=DepthScale(0.5, 1.5)))


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('padding', [0, 3])
def test_millimetres_and_metres_are_the_same_grey_levels(order: str, padding: int) -> None:
    metres = np.array([[0.25, 0.5, 1.0], [1.5, 2.0, 0.0]])
    levels = [[0, 0, 128], [255, 255, 255]]
    for encoding, pixels in (
        ('16UC1', (1000.0 * metres).astype(f'{order}u2')),
        ('32FC1', metres.astype(f'{order}f4')),
    ):
        levelled = seen(DEPTH, image(encoding, pixels, padding), (2, 3))
        np.testing.assert_array_equal(levelled, np.repeat(np.array(levels)[..., None], 3, -1))


@pytest.mark.parametrize('unseen', [math.nan, math.inf, -math.inf, 0.0, -1.0])
@pytest.mark.parametrize(('counts_as', 'level'), [(math.inf, 255), (0.0, 0), (1.0, 128)])
def test_what_saw_nothing_counts_as_is_stated(unseen: float, counts_as: float, level: int) -> None:
    scale = DepthScale(0.5, 1.5, counts_as)
    assert scale.image(np.array([[unseen]], dtype=np.float32)).tolist() == [[[level] * 3]]


def test_distances_are_cropped_and_resized_as_images() -> None:
    keys = ImagePreprocessing(crop=(2, 2), resize=(1, 1), depth=DepthScale(0.0, 2.55))
    metres = np.zeros((4, 4), dtype=np.float32)
    metres[1:3, 1:3] = [[0.1, 0.3], [0.5, 0.7]]
    pixels = seen(camera(preprocessing=keys), image('32FC1', metres), (1, 1))
    assert pixels.tolist() == [[[40, 40, 40]]]


@pytest.mark.parametrize(
    ('channel', 'message', 'problem'),
    [
        (DEPTH, image('rgb8', PIXELS), "encoding is 'rgb8', expected 16UC1 or 32FC1"),
        (camera(), image('16UC1', PIXELS[..., :2]), "'16UC1', expected .* set depth_range in"),
        (DEPTH, image('32FC1', PIXELS[..., 0]), 'image has 3072 bytes for 48 rows of 64 bytes'),
    ],
)
def test_a_wrong_encoding_or_size_is_named(channel: Channel, message: Any, problem: str) -> None:
    with pytest.raises(ObservationError, match=rf"channel 'front' \(image\): .*{problem}"):
        seen(channel, message, (48, 64))


def test_images_are_undistorted_by_what_the_camera_publishes() -> None:
    channel = camera(camera_info_topic='camera_info')
    reader = message_decoder(channel, image_size=(48, 64))
    message = image('rgb8', PIXELS)
    assert reader.hint == 'waits for sensor_msgs/msg/CameraInfo on camera_info'
    assert reader.read(message, lambda: 9.0) is None
    assert reader.read(info(), lambda: 9.0, second=True) is None
    assert reader.hint == ''
    reading = reader.read(message, lambda: 9.0)
    assert reading is not None
    undistort = ImagePreprocessor(ImagePreprocessing(Calibration(K, D, (48, 64))))
    np.testing.assert_array_equal(reading.image, undistort(PIXELS))
    with pytest.raises(ObservationError, match=r'image is 24 x 64 .* is of 48 x 64'):
        reader.read(image('rgb8', PIXELS[:24]), lambda: 9.0)


def test_a_calibration_that_changes_is_said_and_the_first_one_stays() -> None:
    reader = message_decoder(camera(camera_info_topic='camera_info'), image_size=(48, 64))
    for _ in range(2):
        reader.read(info(), lambda: 9.0, second=True)
    before = reader.read(image('rgb8', PIXELS), lambda: 9.0)
    with pytest.raises(ObservationError, match=r"'front' \(camera_info\): CameraInfo has changed"):
        reader.read(info(d=(0.0,) * 5), lambda: 9.0, second=True)
    after = reader.read(image('rgb8', PIXELS), lambda: 9.0)
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before.image, after.image)


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        ({'distortion_model': 'rational_polynomial'}, 'expected plumb_bob; calibrate'),
        ({'distortion_model': ''}, "distortion_model is '', expected plumb_bob"),
        ({'k': (0.0,) * 9}, 'focal lengths 0 and 0, expected > 0'),
        ({'d': D[:3]}, 'distortion_coefficients is'),
        ({'binning_x': 2}, 'binning 2 x 1, expected the whole image of 48 x 64'),
        ({'roi': Message(**{**WHOLE, 'y_offset': 8})}, r'roi is \[8, 0, 48, 64\]'),
    ],
)
def test_a_camera_info_that_cannot_be_used_is_named(changes: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        calibration_of(info(**changes))


def test_a_camera_that_nobody_calibrates_shows_nothing() -> None:
    with pytest.raises(ConfigError, match=r"'front' waits for .*; where nobody publishes it"):
        Camera(camera(camera_info_topic='camera_info')).look(PIXELS)
    with pytest.raises(ConfigError, match='camera_info_topic is given, but in lockstep'):
        message_decoder(camera(camera_info_topic='camera_info'), lockstep=True)
