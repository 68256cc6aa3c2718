# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What everything sees of a camera is the same image: undistorted, then cropped, then resized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from scipy.ndimage import map_coordinates

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.image_preprocessing import (
    Calibration,
    ImagePreprocessing,
    ImagePreprocessor,
    read_camera_info,
)

K = (50.0, 0.0, 31.0, 0.0, 55.0, 23.0, 0.0, 0.0, 1.0)
D = (-0.25, 0.08, 0.004, -0.003, 0.02)
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
INFO = """
image_width: 64
image_height: 48
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [50, 0, 31, 0, 55, 23, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.25, 0.08, 0.004, -0.003, 0.02]}
"""


def made(**keys: object) -> np.ndarray:
    """Return what is made of the image."""
    return ImagePreprocessor(ImagePreprocessing(**keys))(PIXELS)  # type: ignore[arg-type]


def undistorted() -> np.ndarray:
    """Return the image undistorted, computed pixel by pixel."""
    rows, columns = np.zeros((48, 64)), np.zeros((48, 64))
    for v in range(48):
        for u in range(64):
            x, y = (u - 31.0) / 50.0, (v - 23.0) / 55.0
            r2 = x * x + y * y
            radial = 1.0 + D[0] * r2 + D[1] * r2**2 + D[4] * r2**3
            columns[v, u] = 50.0 * (x * radial + 2 * D[2] * x * y + D[3] * (r2 + 2 * x * x)) + 31.0
            rows[v, u] = 55.0 * (y * radial + D[2] * (r2 + 2 * y * y) + 2 * D[3] * x * y) + 23.0
    colours = [
        map_coordinates(
            PIXELS[..., colour].astype(float), [rows, columns], order=1, mode='grid-constant'
        )
        for colour in range(3)
    ]
    return np.stack(colours, axis=-1)


def test_a_image_without_keys_is_as_the_camera_took_it() -> None:
    assert made() is PIXELS


def test_undistorting_is_that_of_a_plumb_bob_camera_to_half_a_grey_level() -> None:
    image = made(calibration=Calibration(K, D))
    assert image.dtype == np.uint8
    assert np.abs(image - undistorted()).max() <= 0.501
    assert np.abs(image.astype(float) - PIXELS).mean() > 10.0  # It moves pixels indeed.


def test_a_camera_without_distortion_stays_as_it_is() -> None:
    np.testing.assert_array_equal(made(calibration=Calibration(K, (0.0,) * 4)), PIXELS)


def test_a_crop_is_about_the_centre_or_where_it_is_said() -> None:
    np.testing.assert_array_equal(made(crop=(40, 32)), PIXELS[4:44, 16:48])
    np.testing.assert_array_equal(made(crop=(3, 5, 20, 30)), PIXELS[3:23, 5:35])


def test_resizing_averages_where_it_makes_smaller() -> None:
    resized = made(resize=(12, 16))
    expected = PIL.Image.fromarray(PIXELS).resize((16, 12), PIL.Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.asarray(expected))
    assert abs(float(resized.mean()) - float(PIXELS.mean())) < 1.0


def test_the_order_is_undistort_crop_resize() -> None:
    calibration = Calibration(K, D, (48, 64))
    keys = ImagePreprocessing(calibration, (2, 4, 40, 50), (20, 25))
    assert keys.size == (20, 25)
    whole = ImagePreprocessor(ImagePreprocessing(calibration))(PIXELS)
    cut = PIL.Image.fromarray(np.ascontiguousarray(whole[2:42, 4:54]))
    expected = np.asarray(cut.resize((25, 20), PIL.Image.Resampling.BILINEAR))
    preprocess = ImagePreprocessor(keys)
    np.testing.assert_array_equal(preprocess(PIXELS), expected)
    np.testing.assert_array_equal(preprocess(PIXELS), expected)  # Its table is made once.


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        ({'crop': (49, 10)}, r'crop is \[49, 10\], which leaves an image of 48 x 64'),
        ({'crop': (0, 60, 10, 10)}, r'crop is \[0, 60, 10, 10\], which leaves'),
        ({'crop': (1, 2, 3)}, r'crop is \[1, 2, 3\], expected \[height, width\] or \[top'),
        ({'resize': (0, 4)}, r'resize is \[0, 4\], expected \[height, width\]'),
        (
            {'calibration': Calibration(K, D, (480, 640))},
            r'image is 48 x 64 .*, camera_info is of 480 x 640',
        ),
    ],
)
def test_what_no_image_has_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(**keys)


def test_a_calibration_file_is_that_of_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / 'front.yaml'
    path.write_text(INFO)
    assert read_camera_info(path) == Calibration(K, D, (48, 64))


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('plumb_bob', 'equidistant', "distortion_model is 'equidistant', expected plumb_bob"),
        ('image_width: 64', '', 'KeyError.*expected image_height, image_width'),
        ('-0.003, 0.02', '-0.003, 0.02, 1.0', 'distortion_coefficients is .*expected the 4 or 5'),
        ('data: [50,', 'data: [-50,', 'focal lengths -50 and 55, expected > 0'),
        ('data: [50, 0,', 'data: [50,', 'expected the 9 numbers of K'),
        ('data: [50,', 'data: [.nan,', 'camera_matrix is'),
    ],
)
def test_a_wrong_calibration_file_is_refused_with_its_name(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / 'front.yaml'
    path.write_text(INFO.replace(old, new))
    with pytest.raises(ConfigError, match=f"camera_info '.*front.yaml': .*{message}"):
        read_camera_info(path)
