# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The images in image messages, raw, compressed or of distances, and what calibrates them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from residual_rl_ros.errors import ConfigError, shown
from residual_rl_ros.robot.image_preprocessing import PLUMB_BOB, Calibration, RgbImage
from residual_rl_ros.robot.topics import COMPRESSED_IMAGE, Channel

MAX_PIXELS = 4096 * 4096
"""A larger compressed image is refused before it is decoded."""


def image_of(message: Any, channel: Channel) -> RgbImage:
    """Return the image of a message, shape (height, width, 3), RGB; of distances as grey levels.

    Args:
        message: of an image channel.
        channel: the channel.

    Raises:
        ValueError: it holds none.
    """
    if channel.preprocessing.depth is not None:
        return channel.preprocessing.depth.image(distances_of(message))
    return decompress(message) if channel.type == COMPRESSED_IMAGE else to_rgb(message)


COLOURS: dict[str, tuple[int, list[int]]] = {
    'rgb8': (3, [0, 1, 2]),
    'bgr8': (3, [2, 1, 0]),
    'rgba8': (4, [0, 1, 2]),
    'bgra8': (4, [2, 1, 0]),
    'mono8': (1, [0, 0, 0]),
}
"""Image encodings: bytes of a pixel, and which of them are red, green and blue."""
DISTANCES = {'16UC1': ('u2', 1e-3), '32FC1': ('f4', 1.0)}
"""Encodings of depth images (REP 118): type of a pixel, and its unit [m]."""


def to_rgb(message: Any) -> RgbImage:
    """Return an image message as RGB, shape (height, width, 3).

    Raises:
        ValueError: an encoding that is not 8-bit colour or grey, or sizes that contradict.
    """
    if message.encoding not in COLOURS:
        depth = '; for distances set depth_range in the robot YAML'
        raise ValueError(
            f'image encoding is {message.encoding!r}, expected one of {", ".join(COLOURS)}'
            f'{depth if message.encoding in DISTANCES else ""}'
        )
    channels, order = COLOURS[message.encoding]
    return _rows(message, channels).reshape(message.height, message.width, channels)[..., order]


def distances_of(message: Any) -> npt.NDArray[np.float32]:
    """Return the distances in a depth image [m], shape (height, width).

    Raises:
        ValueError: an encoding that is none of distances, or sizes that contradict.
    """
    if message.encoding not in DISTANCES:
        raise ValueError(
            f'image encoding is {message.encoding!r}, expected {" or ".join(DISTANCES)}, for the '
            'robot YAML has a depth_range'
        )
    kind, unit = DISTANCES[message.encoding]
    rows = np.ascontiguousarray(_rows(message, np.dtype(kind).itemsize))
    return rows.view(('>' if message.is_bigendian else '<') + kind) * np.float32(unit)


def _rows(message: Any, size: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of an image without what fills its rows, shape (height, width * size).

    Args:
        message: the image.
        size: bytes of a pixel.

    Raises:
        ValueError: sizes that contradict.
    """
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(message.data, dtype=np.uint8)
    if step < width * size or data.size != step * height:
        raise ValueError(
            f'image has {data.size} bytes for {height} rows of {step} bytes, {width} pixels of '
            f'{size}'
        )
    return data.reshape(height, step)[:, : width * size]


def decompress(message: Any) -> RgbImage:
    """Return a compressed image message (JPEG or PNG) as RGB, shape (height, width, 3).

    Raises:
        ValueError: not an image, or larger than `MAX_PIXELS`.
    """
    try:
        with PIL.Image.open(io.BytesIO(message.data), formats=('JPEG', 'PNG')) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f'image has {image.size} pixels, expected <= {MAX_PIXELS}')
            return np.asarray(image.convert('RGB'))
    except Exception as error:  # Pillow lists nowhere what its decoders raise on foreign bytes.
        raise ValueError(f'{len(message.data)} bytes are no JPEG or PNG: {error}') from error


def calibration_of(message: Any) -> Calibration:
    """Return what a CameraInfo says.

    Raises:
        ConfigError: it is of another distortion model, of a part of the image, or no calibration.
    """
    if message.distortion_model != PLUMB_BOB:
        raise ConfigError(
            f'distortion_model is {shown(message.distortion_model)}, expected {PLUMB_BOB}; '
            'calibrate the camera, or undistort its images in a node of its own (image_proc)'
        )
    size, roi = (int(message.height), int(message.width)), message.roi
    part = (roi.y_offset, roi.x_offset, roi.height or size[0], roi.width or size[1])
    if part != (0, 0, *size) or max(message.binning_x, message.binning_y) > 1:
        raise ConfigError(
            f'roi is {list(part)} (top, left, height, width) and binning {message.binning_x} x '
            f'{message.binning_y}, expected the whole image of {size[0]} x {size[1]} without '
            'binning'
        )
    return Calibration(tuple(map(float, message.k)), tuple(map(float, message.d)), size)
