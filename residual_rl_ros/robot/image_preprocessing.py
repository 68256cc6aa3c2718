# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is done to each image of a camera before anything sees it: undistort, crop, resize."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from residual_rl_ros.errors import ConfigError, FormatError, shown
from residual_rl_ros.files.yaml_text import read_yaml

RgbImage = npt.NDArray[np.uint8]
PLUMB_BOB = 'plumb_bob'
DISTORTION_SIZES = (4, 5)
"""k1, k2, p1, p2 and, if there are five, k3."""
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Rows and columns to add to a pixel for the four around a point."""


@dataclass(frozen=True)
class Calibration:
    """A pinhole camera with `plumb_bob` distortion, K and D of sensor_msgs/CameraInfo.

    The distortion is the radial and tangential one of Brown (1966). What is undistorted has the
    same K.
    """

    matrix: tuple[float, ...]
    """K, row by row (9): focal lengths and principal point [px]."""
    distortion: tuple[float, ...]
    """D: k1, k2, p1, p2[, k3]."""
    size: tuple[int, int] | None = None
    """Height and width of the calibrated images [px], None where that is not said."""

    def __post_init__(self) -> None:
        """Refuse numbers that no such camera has.

        Raises:
            ConfigError: it says why.
        """
        if len(self.matrix) != 9 or not np.isfinite(self.matrix).all():
            raise ConfigError(
                f'camera_matrix is {list(self.matrix)}, expected the 9 numbers of K, row by row'
            )
        if not (self.matrix[0] > 0.0 and self.matrix[4] > 0.0):
            raise ConfigError(
                f'camera_matrix has the focal lengths {self.matrix[0]:g} and {self.matrix[4]:g}, '
                'expected > 0'
            )
        sound = len(self.distortion) in DISTORTION_SIZES and np.isfinite(self.distortion).all()
        if not sound:
            raise ConfigError(
                f'distortion_coefficients is {list(self.distortion)}, expected the 4 or 5 numbers '
                f'k1, k2, p1, p2[, k3] of {PLUMB_BOB}'
            )


@dataclass(frozen=True)
class DepthScale:
    """Distances as grey levels: 0 for the nearest, 255 for the farthest."""

    nearest: float
    """What is nearer counts as this [m]."""
    farthest: float
    """What is farther counts as this [m]."""
    invalid: float = np.inf
    """What NaN, infinity and 0 count as [m], before it is clipped likewise."""

    def __post_init__(self) -> None:
        """Refuse a range with nothing in it.

        Raises:
            ConfigError: it says why.
        """
        if not 0.0 <= self.nearest < self.farthest < np.inf:
            raise ConfigError(
                f'depth_range is [{self.nearest:g}, {self.farthest:g}], expected 0 <= nearest < '
                'farthest [m]'
            )

    def image(self, distances: npt.NDArray[np.float32]) -> RgbImage:
        """Return a grey image, shape (height, width, 3), of distances, shape (height, width)."""
        known = np.isfinite(distances) & (distances > 0.0)
        metres = np.where(known, distances, self.invalid).clip(self.nearest, self.farthest)
        levels = np.rint((metres - self.nearest) * (255.0 / (self.farthest - self.nearest)))
        return np.repeat(levels.astype(np.uint8)[..., np.newaxis], 3, axis=-1)


@dataclass(frozen=True)
class ImagePreprocessing:
    """Keys of an image channel, in the order in which they act after `depth`."""

    calibration: Calibration | None = None
    """Images are undistorted by it; None: they are not."""
    crop: tuple[int, ...] = ()
    """`(top, left, height, width)`, or `(height, width)` about the centre [px]; empty: all."""
    resize: tuple[int, ...] = ()
    """`(height, width)` [px]; empty: as it is."""
    depth: DepthScale | None = None
    """How distances become an image; None: the messages hold images."""

    def __post_init__(self) -> None:
        """Refuse sizes that no image has.

        Raises:
            ConfigError: it says why.
        """
        for name, counts in (('crop', (0, 2, 4)), ('resize', (0, 2))):
            values = getattr(self, name)
            if len(values) not in counts or any(size < 1 for size in values[-2:]):
                raise ConfigError(
                    f'{name} is {list(values)}, expected [height, width]'
                    f'{" or [top, left, height, width]" if name == "crop" else ""}'
                )

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of what it makes [px]; None where the camera decides."""
        if self.resize or self.crop:
            height, width = (self.resize or self.crop)[-2:]
            return height, width
        return None if self.calibration is None else self.calibration.size


NO_PREPROCESSING = ImagePreprocessing()


class ImagePreprocessor:
    """Makes of a camera's images those that everything else sees.

    Undistorting interpolates between the four nearest pixels; what the camera has not seen is
    black. Resizing is Pillow's bilinear filter, which averages where it makes smaller.

    Args:
        keys: what is done.
    """

    def __init__(self, keys: ImagePreprocessing) -> None:
        self._keys = keys
        self._table: _Remapping | None = None

    def __call__(self, image: RgbImage) -> RgbImage:
        """Return what is made of an image, shape (height, width, 3).

        Raises:
            ConfigError: the image is smaller than what is cut out, or not the calibrated camera's
                size.
        """
        keys = self._keys
        if keys == NO_PREPROCESSING:
            return image
        top, left, height, width = _window(image, keys.crop)
        if keys.calibration is None:
            image = image[top : top + height, left : left + width]
        else:
            # Of what is cut off, nothing need be known.
            wanted = image.shape[:2], (top, left, height, width)
            if self._table is None or self._table.of != wanted:
                self._table = _Remapping(keys.calibration, *wanted)
            image = self._table(image)
        if keys.resize and keys.resize != image.shape[:2]:
            made = PIL.Image.fromarray(np.ascontiguousarray(image))
            size = keys.resize[1], keys.resize[0]
            image = np.asarray(made.resize(size, PIL.Image.Resampling.BILINEAR))
        return np.ascontiguousarray(image)


def _window(image: RgbImage, crop: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of what is cut out [px]."""
    height, width = image.shape[:2]
    if not crop:
        return 0, 0, height, width
    tall, wide = crop[-2:]
    top, left = crop[:2] if len(crop) == 4 else ((height - tall) // 2, (width - wide) // 2)
    if top < 0 or left < 0 or top + tall > height or left + wide > width:
        raise ConfigError(
            f'crop is {list(crop)}, which leaves an image of {height} x {width} (height x width); '
            'correct crop in the robot YAML, or set the camera to another size'
        )
    return top, left, tall, wide


class _Remapping:
    """Where each pixel of an undistorted image comes from."""

    def __init__(
        self, calibration: Calibration, size: tuple[int, ...], window: tuple[int, int, int, int]
    ) -> None:
        self.of = size, window
        height, width = size
        if calibration.size not in (None, (height, width)):
            raise ConfigError(
                f'image is {height} x {width} (height x width), camera_info is of '
                f'{calibration.size[0]} x {calibration.size[1]}; set the camera to this size, or '
                'calibrate it again'
            )
        top, left, tall, wide = window
        rows, columns = np.mgrid[top : top + tall, left : left + wide].astype(np.float64)
        rows, columns = _distorted(calibration, rows, columns)
        # What is far outside is as black as what is just outside, and has an index.
        rows = np.nan_to_num(rows, nan=-2.0).clip(-2.0, height + 1.0)
        columns = np.nan_to_num(columns, nan=-2.0).clip(-2.0, width + 1.0)
        self._pixels, self._shares = [], []
        for down, right in CORNERS:
            row, column = np.floor(rows) + down, np.floor(columns) + right
            share = (1.0 - np.abs(rows - row)) * (1.0 - np.abs(columns - column))
            share[(row < 0) | (row >= height) | (column < 0) | (column >= width)] = 0.0
            pixel = row.clip(0, height - 1) * width + column.clip(0, width - 1)
            self._pixels.append(pixel.astype(np.intp).ravel())
            self._shares.append(share.astype(np.float32).reshape(-1, 1))
        self._shape = tall, wide, 3

    def __call__(self, image: RgbImage) -> RgbImage:
        flat = image.reshape(-1, 3)
        pairs = zip(self._pixels, self._shares, strict=True)
        made = np.zeros((len(self._shares[0]), 3), dtype=np.float32)
        for pixel, share in pairs:
            made += share * flat[pixel]
        return np.rint(made).clip(0, 255).astype(np.uint8).reshape(self._shape)


def _distorted(
    calibration: Calibration, rows: npt.NDArray[Any], columns: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return rows and columns at which the camera shows the pixels of an undistorted image."""
    fx, skew, cx, _, fy, cy = calibration.matrix[:6]
    k1, k2, p1, p2, k3 = (*calibration.distortion, 0.0)[:5]
    y = (rows - cy) / fy
    x = (columns - cx - skew * y) / fx
    square = x * x + y * y
    radial = 1.0 + square * (k1 + square * (k2 + square * k3))
    bent_x = x * radial + 2.0 * p1 * x * y + p2 * (square + 2.0 * x * x)
    bent_y = y * radial + p1 * (square + 2.0 * y * y) + 2.0 * p2 * x * y
    return fy * bent_y + cy, fx * bent_x + skew * bent_y + cx


def read_camera_info(path: Path) -> Calibration:
    """Read a calibration as `camera_calibration` writes it (camera_info_manager's YAML).

    Raises:
        ConfigError: the file cannot be read, or is of another distortion model.
    """
    try:
        mapping = read_yaml(path)
        model = mapping.get('distortion_model', PLUMB_BOB)
        if model != PLUMB_BOB:
            raise ConfigError(f'distortion_model is {shown(model)}, expected {PLUMB_BOB}')
        return Calibration(
            tuple(float(each) for each in mapping['camera_matrix']['data']),
            tuple(float(each) for each in mapping['distortion_coefficients']['data']),
            (int(mapping['image_height']), int(mapping['image_width'])),
        )
    except (FormatError, ConfigError) as error:
        raise ConfigError(f'camera_info {str(path)!r}: {error}') from error
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f'camera_info {str(path)!r}: {error!r}; expected image_height, image_width, '
            'camera_matrix.data and distortion_coefficients.data'
        ) from error
