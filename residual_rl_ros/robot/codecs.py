# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Message types of other packages: how they are read and made.

A package declares an entry point in the group `residual_rl_ros.codecs`: its name is the ROS type,
its value a `Codec`. It is code, and is run: install only what you trust.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from types import MappingProxyType
from typing import Any

import numpy as np

from residual_rl_ros.errors import ConfigError, ResourceError, shown
from residual_rl_ros.numerics import Array
from residual_rl_ros.resources import load_entry_point

ENTRY_POINTS = 'residual_rl_ros.codecs'


@dataclass(frozen=True)
class Codec:
    """How messages of one type are read and made."""

    decode: Callable[[Any, Sequence[str]], Iterable[float]]
    """Called with a message and the fields of its channel or command; returns a number for each."""
    encode: Callable[[Any, Array, Sequence[str]], object] | None = None
    """Called with a new message, values and their fields; fills the message. None: the type is
    observed and not commanded."""
    definition: str = ''
    """Text of the `.msg` file, by which bags hold the type; empty: they do not."""

    def numbers(self, message: Any, fields: Sequence[str]) -> Array:
        """Return the values of fields, shape (number of fields,).

        Raises:
            ValueError: it failed, or returned something else.
        """
        try:
            values = np.array(list(self.decode(message, fields)), dtype=np.float64)
        except Exception as error:
            raise ValueError(f'its codec failed: {type(error).__name__}: {error}') from error
        if values.shape != (len(fields),):
            raise ValueError(f'its codec returned shape {values.shape}, expected ({len(fields)},)')
        return values


@cache
def installed_codecs() -> Mapping[str, metadata.EntryPoint]:
    """Return the entry points by ROS type. The first look, at every package's files, takes long."""
    found = metadata.entry_points(group=ENTRY_POINTS)
    return MappingProxyType({entry.name: entry for entry in found})


@cache
def find_codec(kind: str) -> Codec:
    """Return the codec of a ROS type.

    Raises:
        ConfigError: no installed package has one, or it cannot be loaded.
    """
    entry = installed_codecs().get(kind)
    if entry is None:
        known = ', '.join(sorted(installed_codecs())) or 'none'
        raise ConfigError(
            f'{shown(kind)} is not a type that is known here, and no installed package has a codec '
            f'for it; install the one that declares it (entry points {ENTRY_POINTS}, installed: '
            f'{known}), or correct the type'
        )
    try:
        codec = load_entry_point(entry)
    except ResourceError as error:
        raise ConfigError(f'codec of {kind}: {error}') from error
    if not isinstance(codec, Codec):
        raise ConfigError(
            f'codec of {kind}: {entry.value} of the package {entry.dist and entry.dist.name} is '
            f'{shown(codec)}, expected a Codec of {__name__}'
        )
    return codec
