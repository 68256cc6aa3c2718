# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An image encoder is a function of the image, and one that is off the contract is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from base_policy_builders import write_onnx_encoder

from residual_rl_ros.errors import ConfigError, ResourceError
from residual_rl_ros.robot.image_encoder import ENCODER_METADATA_KEY, ImageEncoder, channel_encoder
from residual_rl_ros.robot.topics import IMAGE, Channel


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test writes its encoder."""
    return tmp_path / 'encoder.onnx'


def test_features_are_those_of_the_graph(path: Path) -> None:
    write_onnx_encoder(path, height=4, width=6)
    encoder = ImageEncoder(path)
    assert encoder.feature_names == ('red', 'green', 'blue')
    assert encoder.image_size == (4, 6)
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    features = encoder.encode(image)
    assert features.dtype == np.float64
    np.testing.assert_allclose(features, image.mean((0, 1)), rtol=1e-6)


def test_an_image_need_not_be_contiguous(path: Path) -> None:
    write_onnx_encoder(path, height=4, width=6)
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    features = ImageEncoder(path).encode(image[:, :, ::-1])
    np.testing.assert_allclose(features, image.mean((0, 1))[::-1], rtol=1e-6)


def test_a_graph_that_resizes_takes_any_size(path: Path) -> None:
    write_onnx_encoder(path, height=None, width=None)
    encoder = ImageEncoder(path)
    assert encoder.image_size == (None, None)
    np.testing.assert_array_equal(encoder.encode(np.full((9, 5, 3), 7, np.uint8)), [7.0] * 3)


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((4, 5, 3), np.uint8),
        np.zeros((4, 6, 4), np.uint8),
        np.zeros((4, 6), np.uint8),
        np.zeros((4, 6, 3), np.float32),
    ],
)
def test_an_image_of_another_size_or_type_is_refused(path: Path, image: np.ndarray) -> None:
    write_onnx_encoder(path, height=4, width=6)
    with pytest.raises(ConfigError, match=r'expects uint8 \[4, 6, 3\]; set the camera'):
        ImageEncoder(path).encode(image)


def test_a_non_finite_feature_is_refused_by_name(path: Path) -> None:
    write_onnx_encoder(path, bias=(0.0, np.nan, 0.0))
    with pytest.raises(ConfigError, match="returned nan for 'green'"):
        ImageEncoder(path).encode(np.zeros((4, 6, 3), np.uint8))


def test_a_missing_or_broken_file_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoder.onnx' does not exist"):
        ImageEncoder(path)
    path.write_bytes(b'not a model')
    with pytest.raises(ConfigError, match='no loadable ONNX model'):
        ImageEncoder(path)


def test_an_unknown_name_lists_the_shipped_encoders() -> None:
    with pytest.raises(ResourceError, match=r"unknown image encoder 'clip'; shipped: push_to_goal"):
        ImageEncoder('clip')


@pytest.mark.parametrize(
    ('metadata', 'message'),
    [
        (None, "has no 'residual_rl_encoder' metadata"),
        ('{', "metadata '{'"),
        ('[]', r"metadata '\[\]'"),
        (json.dumps({'names': ['a']}), 'feature_names'),
        (json.dumps({'feature_names': []}), 'expected a list of distinct names'),
        (json.dumps({'feature_names': ['a', 'a', 'b']}), 'expected a list of distinct names'),
        (json.dumps({'feature_names': ['a', 'b']}), r'features is tensor\(float\) \[1, 3\]'),
    ],
)
def test_metadata_off_the_contract_is_refused(
    path: Path, metadata: str | None, message: str
) -> None:
    write_onnx_encoder(path)
    model = onnx.load(str(path))
    del model.metadata_props[:]
    if metadata is not None:
        onnx.helper.set_model_props(model, {ENCODER_METADATA_KEY: metadata})
    onnx.save(model, str(path))
    with pytest.raises(ConfigError, match=message):
        ImageEncoder(path)


@pytest.mark.parametrize(
    ('names', 'message'),
    [(('frame', 'features'), 'has inputs'), (('image', 'action'), 'and outputs')],
)
def test_other_input_and_output_names_are_refused(
    path: Path, names: tuple[str, str], message: str
) -> None:
    write_onnx_encoder(path, names=names)
    with pytest.raises(ConfigError, match=f'{message}.*expected image and features'):
        ImageEncoder(path)


def test_a_channel_that_names_other_features_is_refused(path: Path) -> None:
    write_onnx_encoder(path)
    fields = ('red', 'green', 'depth')
    with pytest.raises(ConfigError, match=r"channel 'camera' has the fields \['red', 'green', 'd"):
        channel_encoder(Channel('camera', 'image_raw', IMAGE, fields, (), 0.1, str(path)))


def test_a_failure_of_the_runtime_is_one_of_the_encoder(path: Path) -> None:
    write_onnx_encoder(path)
    encoder = ImageEncoder(path)
    encoder._session = None  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r'failed: '):
        encoder.encode(np.zeros((4, 6, 3), dtype=np.uint8))


def test_only_the_pinned_encoder_is_accepted(path: Path) -> None:
    write_onnx_encoder(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    fields = ('red', 'green', 'blue')
    channel = Channel('camera', 'image_raw', IMAGE, fields, (), 0.1, str(path))
    channel_encoder(replace(channel, encoder_sha256=digest.upper()))
    with pytest.raises(ConfigError, match=rf'sha256 {digest}, expected {"0" * 64}'):
        channel_encoder(replace(channel, encoder_sha256='0' * 64))
