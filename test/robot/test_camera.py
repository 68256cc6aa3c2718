# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A camera shows its base policy an image and its residual the features of the same image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from base_policy_builders import write_onnx_encoder
from image_policy import INPUTS, metadata_of, write_policy

from residual_rl_ros.base_policy.inputs import ImageInput
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.camera import Camera
from residual_rl_ros.robot.image_encoder import ImageEncoder
from residual_rl_ros.robot.image_preprocessing import ImagePreprocessing
from residual_rl_ros.robot.topics import IMAGE, NO_ENCODER, Channel

COLOURS = ('red', 'green', 'blue')
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)


def channel(encoder: str, fields: tuple[str, ...] = COLOURS, **keys: ImagePreprocessing) -> Channel:
    """Return an image channel."""
    return Channel('camera', 'image_raw', IMAGE, fields, (), 0.1, encoder, **keys)  # type: ignore[arg-type]


def test_features_of_a_base_policy_are_cut_out_of_its_graph(tmp_path: Path) -> None:
    path = write_policy(tmp_path / 'policy.onnx')
    encoder = ImageEncoder(path, channel='camera')
    assert encoder.feature_names == COLOURS
    assert encoder.image_size == (2, 3)
    np.testing.assert_allclose(encoder.encode(PIXELS), PIXELS.mean((0, 1)), rtol=1e-6)


def test_a_camera_gives_image_and_features(tmp_path: Path) -> None:
    camera = Camera(channel(str(write_policy(tmp_path / 'policy.onnx'))), (2, 3))
    camera.warm_up()
    values, image = camera.look(PIXELS)
    np.testing.assert_array_equal(image, PIXELS)
    np.testing.assert_allclose(values, PIXELS.mean((0, 1)), rtol=1e-6)


def test_the_encoder_sees_what_the_base_policy_sees(tmp_path: Path) -> None:
    write_onnx_encoder(tmp_path / 'encoder.onnx', 2, 3)
    keys = ImagePreprocessing(crop=(1, 2, 2, 3))
    camera = Camera(channel(str(tmp_path / 'encoder.onnx'), preprocessing=keys), (2, 3))
    large = np.random.default_rng(1).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    values, image = camera.look(large)
    np.testing.assert_array_equal(image, large[1:3, 2:5])
    np.testing.assert_allclose(values, large[1:3, 2:5].mean((0, 1)), rtol=1e-6)


def test_a_camera_without_encoder_tells_no_values() -> None:
    values, image = Camera(channel(NO_ENCODER, ()), (2, 3)).look(PIXELS)
    assert values.shape == (0,)
    np.testing.assert_array_equal(image, PIXELS)


def test_images_that_nobody_wants_are_not_kept() -> None:
    assert Camera(channel(NO_ENCODER, ())).look(PIXELS).image is None


def test_another_size_is_refused_when_it_is_known_and_else_at_the_first_image() -> None:
    keys = ImagePreprocessing(resize=(4, 4))
    with pytest.raises(ConfigError, match=r"channel 'camera': an image is 4 x 4 .* wants 2 x 3"):
        Camera(channel(NO_ENCODER, (), preprocessing=keys), (2, 3))
    with pytest.raises(ConfigError, match=r'the image is 2 x 3 .* set resize: \[8, 8\]'):
        Camera(channel(NO_ENCODER, ()), (8, 8)).look(PIXELS)


@pytest.mark.parametrize(
    ('mixed', 'message'),
    [
        ('goal', r'camera.features depends on goal, expected on camera alone'),
        ('older', r'camera.features depends on older images than the newest of 2'),
    ],
)
def test_features_of_more_than_the_newest_image_are_refused(
    tmp_path: Path, mixed: str, message: str
) -> None:
    path = write_policy(tmp_path / 'policy.onnx', mixed=mixed)
    with pytest.raises(ConfigError, match=message):
        ImageEncoder(path, channel='camera')


def test_a_base_policy_without_features_of_the_camera_is_no_encoder(tmp_path: Path) -> None:
    blind = metadata_of(inputs=(ImageInput('camera', 2, 3), *INPUTS[1:]))
    path = write_policy(tmp_path / 'policy.onnx', blind)
    for name in ('camera', 'wrist'):
        with pytest.raises(ConfigError, match=f"has no features of images '{name}'"):
            ImageEncoder(path, channel=name)
