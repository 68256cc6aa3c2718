# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Images as numbers: a frozen ONNX encoder, of its own or cut out of a base policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ConfigError, FormatError, ResourceError, shown
from residual_rl_ros.files.json_text import parse_json
from residual_rl_ros.resources import find_file
from residual_rl_ros.robot.image_preprocessing import RgbImage
from residual_rl_ros.robot.onnx_model import OnnxModel, extract, read_model
from residual_rl_ros.robot.onnx_session import load_session, run_session
from residual_rl_ros.robot.topics import Channel

ENCODER_METADATA_KEY = 'residual_rl_encoder'
POLICY_METADATA_KEY = 'residual_rl'
FEATURES = '.features'
"""End of the name of the output with the features of an image."""
IMAGE = 'image'


class ImageEncoder:
    """Runs `image` uint8 [1, height, width, 3] (RGB) -> `features` float32 [1, f].

    Scaling, cropping and normalisation live inside the graph. `metadata_props` hold, under
    `residual_rl_encoder`, JSON with `feature_names`. Height and width of the input may be left open
    by a graph that resizes.

    A base policy with the output `CHANNEL.features` is an encoder too: what computes them from its
    images `CHANNEL`, uint8 [1, n_obs_steps, height, width, 3], is cut out of its graph.

    Args:
        name_or_path: name of a shipped encoder or base policy, or path of an `.onnx` file.
        sha256: digest that the file must have, in hexadecimal digits; empty accepts any.
        channel: name of the image channel, for which a base policy has features.

    Raises:
        ConfigError: missing, another or unreadable file, no metadata, input or output off the
            contract, features that depend on more than the newest image.
        ResourceError: no shipped model has the name.
    """

    def __init__(self, name_or_path: str | Path, sha256: str = '', channel: str = IMAGE) -> None:
        self.path = find_encoder(str(name_or_path))
        model = read_model(self.path, 'image encoder', ConfigError, sha256.lower())
        self._input, self._output = IMAGE, 'features'
        own = model.metadata.get(ENCODER_METADATA_KEY)
        policy = model.metadata.get(POLICY_METADATA_KEY)
        if own is not None:
            self.feature_names = _distinct(_metadata(own, 'feature_names'), self.path.name)
        elif policy is not None:
            self._input, self._output = channel, channel + FEATURES
            self.feature_names = self._policy_features(policy)
            model = self._cut(model)
        else:
            raise ConfigError(
                f'{self.path.name} has no {ENCODER_METADATA_KEY!r} metadata and, as a base policy, '
                f'no {POLICY_METADATA_KEY!r}; docs/reference/onnx_contract.md says what they hold'
            )
        self._session = load_session(model, ConfigError)
        self._window: tuple[int, ...] = () if own is not None else self._steps()
        height, width = self._check_signature()
        self.image_size: tuple[int | None, int | None] = height, width
        """Height and width of an image, None where any will do [px]."""
        self._check_newest()

    def _policy_features(self, text: str) -> tuple[str, ...]:
        """Return the names of the features that a base policy has of the channel."""
        inputs = _metadata(text, 'inputs', {})
        described = inputs.get(self._input) if isinstance(inputs, Mapping) else None
        names = described.get('features') if isinstance(described, Mapping) else None
        if not names:
            raise ConfigError(
                f'base policy {self.path.name} has no features of images {self._input!r} '
                f'(metadata inputs.{self._input}.features); set encoder: none, or name an encoder'
            )
        return _distinct(names, self.path.name)

    def _cut(self, model: OnnxModel) -> OnnxModel:
        """Return the part of a base policy that computes the features."""
        try:
            content, needed = extract(model, self._input, self._output)
        except ValueError as error:
            raise ConfigError(
                f'{self.path.name}: {self._output} cannot be cut out: {error}'
            ) from error
        if needed:
            raise ConfigError(
                f'{self.path.name}: {self._output} depends on {", ".join(needed)}, expected on '
                f'{self._input} alone; export it so, or set encoder: none'
            )
        return replace(model, content=content)

    def _steps(self) -> tuple[int, ...]:
        """Return how many images a window of a base policy has, as the shape of it."""
        shape = self._session.get_inputs()[0].shape
        if len(shape) != 5 or not isinstance(shape[1], int):
            raise ConfigError(
                f'{self.path.name}: {self._input} has shape {list(shape)}, expected [batch, '
                'n_obs_steps, height, width, 3]'
            )
        return (shape[1],)

    def _check_signature(self) -> tuple[int | None, int | None]:
        """Compare input and output with the contract; return height and width of the input."""
        inputs = {item.name: item for item in self._session.get_inputs()}
        outputs = {item.name: item for item in self._session.get_outputs()}
        if set(inputs) != {self._input} or self._output not in outputs:
            raise ConfigError(
                f'{self.path.name} has inputs {sorted(inputs)} and outputs {sorted(outputs)}, '
                f'expected {self._input} and {self._output}'
            )
        window: tuple[int | None, ...] = self._window
        for item, kind, shape in (
            (inputs[self._input], 'tensor(uint8)', (1, *window, None, None, 3)),
            (outputs[self._output], 'tensor(float)', (1, len(self.feature_names))),
        ):
            found = tuple(size if isinstance(size, int) else None for size in item.shape)
            fits = len(found) == len(shape) and all(
                size in (None, want) or want is None
                for size, want in zip(found, shape, strict=True)
            )
            if item.type != kind or not fits:
                raise ConfigError(
                    f'{self.path.name}: {item.name} is {item.type} {list(item.shape)}, expected '
                    f'{kind} {list(shape)}'
                )
        height, width = (
            size if isinstance(size, int) else None for size in inputs[self._input].shape[-3:-1]
        )
        return height, width

    def _check_newest(self) -> None:
        """Refuse features that depend on older images than the newest.

        Each image is encoded once, when it comes, and not again with those that follow.
        """
        height, width = self.image_size
        if self._window <= (1,) or height is None or width is None:
            return
        rng = np.random.default_rng(0)
        windows = rng.integers(0, 256, (2, 1, *self._window, height, width, 3), dtype=np.uint8)
        windows[1, :, -1] = windows[0, :, -1]
        first, second = (self._run(window) for window in windows)
        if not np.array_equal(first, second):
            raise ConfigError(
                f'{self.path.name}: {self._output} depends on older images than the newest of '
                f'{self._window[0]}; export it so that it does not, or set encoder: none'
            )

    def _run(self, images: RgbImage) -> npt.NDArray[np.float32]:
        """Return the features of a batch of one, shape (f,)."""
        features: npt.NDArray[np.float32] = run_session(
            self._session, [self._output], {self._input: images}, self.path.name, ConfigError
        )[0][0]
        return features

    def warm_up(self) -> None:
        """Encode a black image, if the graph fixes the size of images.

        Raises:
            ConfigError: the network failed, or its features are not finite.
        """
        height, width = self.image_size
        if height is not None and width is not None:
            self.encode(np.zeros((height, width, 3), dtype=np.uint8))

    def encode(self, image: RgbImage) -> npt.NDArray[np.float64]:
        """Return the features of an RGB image.

        Args:
            image: shape (height, width, 3).

        Raises:
            ConfigError: the image has another size or type, the network failed, or the features
                are not finite.
        """
        height, width = self.image_size
        fits = image.ndim == 3 and all(
            want in (None, size) for size, want in zip(image.shape, (height, width, 3), strict=True)
        )
        if image.dtype != np.uint8 or not fits:
            raise ConfigError(
                f'image is {image.dtype} {list(image.shape)}, {self.path.name} expects uint8 '
                f'{[height or "height", width or "width", 3]}; set the camera to this size'
            )
        features = self._run(np.broadcast_to(image, (1, *self._window, *image.shape)))
        if not np.isfinite(features).all():
            bad = int(np.flatnonzero(~np.isfinite(features))[0])
            raise ConfigError(
                f'{self.path.name} returned {features[bad]} for {self.feature_names[bad]!r}'
            )
        return features.astype(np.float64)


def _metadata(text: str, key: str, default: Any = None) -> Any:
    """Return an entry of metadata.

    Raises:
        ConfigError: it is no JSON, or lacks an entry without default.
    """
    try:
        mapping = parse_json(text, 'metadata')
        return mapping[key] if default is None else mapping.get(key, default)
    except (FormatError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError(f'metadata {text[:80]!r}: {error!r}') from error


def _distinct(names: Any, file: str) -> tuple[str, ...]:
    """Return names of features as text.

    Raises:
        ConfigError: they are no list of different names.
    """
    if not isinstance(names, list) or not names or len(set(map(str, names))) != len(names):
        raise ConfigError(
            f'{file}: feature_names is {shown(names)}, expected a list of distinct names'
        )
    return tuple(map(str, names))


def find_encoder(name: str) -> Path:
    """Return the path of an encoder: that of an ONNX file, or a shipped model's name.

    An encoder comes before a base policy of the same name.

    Raises:
        ResourceError: neither; the message lists the shipped encoders.
    """
    try:
        return find_file('image encoder', ('models', 'encoders'), name, '.onnx')
    except ResourceError:
        try:
            return find_file('base policy', ('models',), name, '.onnx')
        except ResourceError:
            pass
        raise


def channel_encoder(channel: Channel) -> ImageEncoder:
    """Return the encoder of an image channel.

    Raises:
        ConfigError: it is unusable or computes other features than the channel lists.
        ResourceError: no shipped encoder has the name.
    """
    encoder = ImageEncoder(channel.encoder, channel.encoder_sha256, channel.name)
    if channel.fields != encoder.feature_names:
        raise ConfigError(
            f'channel {channel.name!r} has the fields {list(channel.fields)}, encoder '
            f'{encoder.path.name} computes {list(encoder.feature_names)}; copy these to the robot '
            'YAML'
        )
    return encoder
