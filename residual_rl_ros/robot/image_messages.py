# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pictures in image messages, raw and compressed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image

from residual_rl_ros.robot.image_preprocessing import RgbImage
from residual_rl_ros.robot.topics import COMPRESSED_IMAGE

MAX_PIXELS = 4096 * 4096
"""A larger compressed image is refused before it is decoded."""


def picture_of(message: Any, kind: str) -> RgbImage:
    """Return the picture of a message, shape (height, width, 3), RGB.

    Args:
        message: of an image channel.
        kind: its ROS type.

    Raises:
        ValueError: it holds none.
    """
    return decompress(message) if kind == COMPRESSED_IMAGE else to_rgb(message)


COLOURS: dict[str, tuple[int, list[int]]] = {
    'rgb8': (3, [0, 1, 2]),
    'bgr8': (3, [2, 1, 0]),
    'rgba8': (4, [0, 1, 2]),
    'bgra8': (4, [2, 1, 0]),
    'mono8': (1, [0, 0, 0]),
}
"""Image encodings: bytes of a pixel, and which of them are red, green and blue."""


def to_rgb(message: Any) -> RgbImage:
    """Return an image message as RGB, shape (height, width, 3).

    Raises:
        ValueError: an encoding that is not 8-bit colour or grey, or sizes that contradict.
    """
    if message.encoding not in COLOURS:
        raise ValueError(
            f'image encoding is {message.encoding!r}, expected one of {", ".join(COLOURS)}'
        )
    channels, order = COLOURS[message.encoding]
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(message.data, dtype=np.uint8)
    if step < width * channels or data.size != step * height:
        raise ValueError(
            f'image has {data.size} bytes for {height} rows of {step} bytes, {width} pixels of '
            f'{channels}'
        )
    rows = data.reshape(height, step)[:, : width * channels]
    return rows.reshape(height, width, channels)[..., order]


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
