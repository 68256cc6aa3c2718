# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Camera images as observation channels: a frozen ONNX encoder, and a thread that runs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ConfigError, FormatError
from residual_rl_ros.files.json_text import parse_json
from residual_rl_ros.resources import find_file
from residual_rl_ros.robot.onnx_session import InferenceWorker, open_session, run_session
from residual_rl_ros.robot.topics import Channel

ENCODER_METADATA_KEY = 'residual_rl_encoder'
RgbImage = npt.NDArray[np.uint8]


class ImageEncoder:
    """Runs `image` uint8 [1, height, width, 3] (RGB) -> `features` float32 [1, f].

    Scaling, cropping and normalisation live inside the graph. `metadata_props` hold, under
    `residual_rl_encoder`, JSON with `feature_names`. Height and width of the input may be left open
    by a graph that resizes.

    Args:
        name_or_path: name of a shipped encoder, or path of an `.onnx` file.
        sha256: digest that the file must have, in hexadecimal digits; empty accepts any.

    Raises:
        ConfigError: missing, another or unreadable file, no metadata, input or output off the
            contract.
        ResourceError: no shipped encoder has the name.
    """

    def __init__(self, name_or_path: str | Path, sha256: str = '') -> None:
        self.path = find_encoder(str(name_or_path))
        self._session = open_session(self.path, 'image encoder', ConfigError, sha256=sha256)
        self.feature_names = self._read_names()
        inputs = {item.name: item for item in self._session.get_inputs()}
        outputs = {item.name: item for item in self._session.get_outputs()}
        if set(inputs) != {'image'} or 'features' not in outputs:
            raise ConfigError(
                f'{self.path.name} has inputs {sorted(inputs)} and outputs {sorted(outputs)}, '
                'expected image and features'
            )
        count = len(self.feature_names)
        for item, kind, shape in (
            (inputs['image'], 'tensor(uint8)', (1, None, None, 3)),
            (outputs['features'], 'tensor(float)', (1, count)),
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
            size if isinstance(size, int) else None for size in inputs['image'].shape[1:3]
        )
        self.image_size: tuple[int | None, int | None] = height, width
        """Height and width of an image, None where any will do [px]."""

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
        inputs = {'image': np.ascontiguousarray(image)[None]}
        features: npt.NDArray[np.float32] = run_session(
            self._session, ['features'], inputs, self.path.name, ConfigError
        )[0][0]
        if not np.isfinite(features).all():
            bad = int(np.flatnonzero(~np.isfinite(features))[0])
            raise ConfigError(
                f'{self.path.name} returned {features[bad]} for {self.feature_names[bad]!r}'
            )
        return features.astype(np.float64)

    def _read_names(self) -> tuple[str, ...]:
        text = self._session.get_modelmeta().custom_metadata_map.get(ENCODER_METADATA_KEY)
        if text is None:
            raise ConfigError(
                f'{self.path.name} has no {ENCODER_METADATA_KEY!r} metadata; '
                'docs/reference/onnx_contract.md says what it holds'
            )
        try:
            names = parse_json(text, 'metadata')['feature_names']
        except (FormatError, KeyError, TypeError) as error:
            raise ConfigError(f'{self.path.name}: metadata {text[:80]!r}: {error!r}') from error
        if not isinstance(names, list) or not names or len(set(map(str, names))) != len(names):
            raise ConfigError(
                f'{self.path.name}: feature_names is {names!r}, expected a list of distinct names'
            )
        return tuple(map(str, names))


def find_encoder(name: str) -> Path:
    """Return the path of an encoder: the path of an ONNX file, or a shipped encoder's name.

    Raises:
        ResourceError: neither; the message lists the shipped ones.
    """
    return find_file('image encoder', ('models', 'encoders'), name, '.onnx')


def channel_encoder(channel: Channel) -> ImageEncoder:
    """Return the encoder of an image channel.

    Raises:
        ConfigError: it is unusable or computes other features than the channel lists.
        ResourceError: no shipped encoder has the name.
    """
    encoder = ImageEncoder(channel.encoder, channel.encoder_sha256)
    if channel.fields != encoder.feature_names:
        raise ConfigError(
            f'channel {channel.name!r} has the fields {list(channel.fields)}, encoder '
            f'{encoder.path.name} computes {list(encoder.feature_names)}; copy these to the robot '
            'YAML'
        )
    return encoder


Array = npt.NDArray[np.float64]


class ImageWorker:
    """Reads the images of one channel in a thread of its own.

    An image that still waits when a newer one arrives is dropped.

    Args:
        read: returns the values of a message, or raises.
        warm_up: what is done once in that thread, so that no image pays for initialisation.
    """

    def __init__(self, read: Callable[[Any], Array], warm_up: Callable[[], None]) -> None:
        self._read = read
        self._worker = InferenceWorker('images')
        self._orders: deque[tuple[float, Future[Array]]] = deque()
        self._worker.submit(warm_up).result()

    def put(self, stamp: float, message: Any) -> None:
        """Request that an image is read.

        Args:
            stamp: its time [s].
            message: its message.
        """
        if self._orders and self._orders[-1][1].cancel():
            self._orders.pop()
        self._orders.append((stamp, self._worker.submit(self._read, message)))

    def take(self) -> tuple[float, Callable[[], Array]] | None:
        """Return the next image that has been read: its stamp, and what returns or raises.

        None if there is none; this never waits.
        """
        if not self._orders or not self._orders[0][1].done():
            return None
        stamp, order = self._orders.popleft()
        return stamp, order.result

    def close(self) -> None:
        """End the thread."""
        self._worker.close()
