# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an imported policy observes, as the readers of checkpoints tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from residual_rl_ros.importing.mapping import Array
from residual_rl_ros.importing.networks.window_encoder import WindowEncoder


@dataclass(frozen=True)
class Observations:
    """Names and sizes of what a policy observes, and the encoder."""

    encoder: WindowEncoder
    size: int
    """Numbers of the features of one observation."""
    names: tuple[str, ...]
    """Of the state's numbers."""
    centre: Array
    spread: Array
    """Usual state and its standard deviation, shape (n,) each."""
    cameras: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Height and width of each [px]."""
    features: Mapping[str, int] = field(default_factory=dict)
    """Numbers of the features of each."""
    remarks: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    """Beginnings of the names of the encoder's weights."""
