# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A camera shows its base policy a picture and its residual the features of the same picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import write_onnx_encoder
from picture_policy import INPUTS, metadata_of, write_policy

from residual_rl_ros.base_policy.inputs import ImageInput
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.camera import Camera
from residual_rl_ros.robot.image_encoder import ImageEncoder
from residual_rl_ros.robot.image_preprocessing import ImagePreprocessing
from residual_rl_ros.robot.topics import IMAGE, NO_ENCODER, Channel

COLOURS = ('red', 'green', 'blue')
PICTURE = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)


def channel(encoder: str, fields: tuple[str, ...] = COLOURS, **keys: ImagePreprocessing) -> Channel:
    """Return an image channel."""
    return Channel('camera', 'image_raw', IMAGE, fields, (), 0.1, encoder, **keys)  # type: ignore[arg-type]


def test_features_of_a_base_policy_are_cut_out_of_its_graph(tmp_path: Path) -> None:
    path = write_policy(tmp_path / 'policy.onnx')
    encoder = ImageEncoder(path, channel='camera')
    assert encoder.feature_names == COLOURS
    assert encoder.image_size == (2, 3)
    np.testing.assert_allclose(encoder.encode(PICTURE), PICTURE.mean((0, 1)), rtol=1e-6)


def test_a_camera_gives_picture_and_features(tmp_path: Path) -> None:
    camera = Camera(channel(str(write_policy(tmp_path / 'policy.onnx'))), (2, 3))
    camera.warm_up()
    values, picture = camera.look(PICTURE)
    np.testing.assert_array_equal(picture, PICTURE)
    np.testing.assert_allclose(values, PICTURE.mean((0, 1)), rtol=1e-6)


def test_the_encoder_sees_what_the_base_policy_sees(tmp_path: Path) -> None:
    write_onnx_encoder(tmp_path / 'encoder.onnx', 2, 3)
    keys = ImagePreprocessing(crop=(1, 2, 2, 3))
    camera = Camera(channel(str(tmp_path / 'encoder.onnx'), preprocessing=keys), (2, 3))
    large = np.random.default_rng(1).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    values, picture = camera.look(large)
    np.testing.assert_array_equal(picture, large[1:3, 2:5])
    np.testing.assert_allclose(values, large[1:3, 2:5].mean((0, 1)), rtol=1e-6)


def test_a_camera_without_encoder_tells_no_values() -> None:
    values, picture = Camera(channel(NO_ENCODER, ()), (2, 3)).look(PICTURE)
    assert values.shape == (0,)
    np.testing.assert_array_equal(picture, PICTURE)


def test_pictures_that_nobody_wants_are_not_kept() -> None:
    assert Camera(channel(NO_ENCODER, ())).look(PICTURE).picture is None


def test_another_size_is_refused_when_it_is_known_and_else_at_the_first_picture() -> None:
    keys = ImagePreprocessing(resize=(4, 4))
    with pytest.raises(ConfigError, match=r"channel 'camera': a picture is 4 x 4 .* wants 2 x 3"):
        Camera(channel(NO_ENCODER, (), preprocessing=keys), (2, 3))
    with pytest.raises(ConfigError, match=r'the picture is 2 x 3 .* set resize: \[8, 8\]'):
        Camera(channel(NO_ENCODER, ()), (8, 8)).look(PICTURE)


@pytest.mark.parametrize(
    ('mixed', 'message'),
    [
        ('goal', r'camera.features depends on goal, expected on camera alone'),
        ('older', r'camera.features depends on older pictures than the newest of 2'),
    ],
)
def test_features_of_more_than_the_newest_picture_are_refused(
    tmp_path: Path, mixed: str, message: str
) -> None:
    path = write_policy(tmp_path / 'policy.onnx', mixed=mixed)
    with pytest.raises(ConfigError, match=message):
        ImageEncoder(path, channel='camera')


def test_a_base_policy_without_features_of_the_camera_is_no_encoder(tmp_path: Path) -> None:
    blind = metadata_of(inputs=(ImageInput('camera', 2, 3), *INPUTS[1:]))
    path = write_policy(tmp_path / 'policy.onnx', blind)
    for name in ('camera', 'wrist'):
        with pytest.raises(ConfigError, match=f"has no features of pictures '{name}'"):
            ImageEncoder(path, channel=name)
