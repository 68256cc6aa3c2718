# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the body of an arm must not do: leave a workspace, touch itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.names import check_names
from residual_rl_ros.robot.urdf import Urdf


@dataclass(frozen=True)
class WorkspaceSpec:
    """The boxes that points of an arm must not leave."""

    model: str
    """Kinematic model, MJCF or URDF: a path, or the name of a shipped one in `sim/`."""
    points: tuple[str, ...]
    """Sites or bodies (URDF: links) of the model (k)."""
    joints: tuple[str, ...]
    """Joint of each action, whose position is commanded (m); empty for one that moves no joint of
    the arm, as a gripper's."""
    lower: Array
    """Smallest coordinates of each point, base frame of the model, shape (k, 3) [m]."""
    upper: Array
    """Largest coordinates, shape (k, 3) [m]."""
    urdf: Urdf | None = None
    """The robot's own URDF, instead of `model`."""
    frame: str = ''
    """With it: link whose frame the coordinates are in; empty is its base."""

    def __post_init__(self) -> None:
        """Check names and sizes."""
        check_names('workspace joint', tuple(filter(None, self.joints)))
        check_names('workspace point', self.points)
        for label in ('lower', 'upper'):
            value = np.asarray(getattr(self, label), dtype=np.float64)
            if value.shape not in ((3,), (len(self.points), 3)) or np.isnan(value).any():
                raise ConfigError(
                    f'workspace {label} is {value.tolist()}, expected 3 numbers x, y, z [m]'
                )
            object.__setattr__(self, label, value.reshape(-1, 3))
        for point, lower, upper in zip(self.points, self.lower, self.upper, strict=True):
            if not (lower < upper).all():
                raise ConfigError(
                    f'workspace of {point!r}: lower {lower.tolist()} is not below upper '
                    f'{upper.tolist()}'
                )


@dataclass(frozen=True)
class SelfCollisionSpec:
    """The distance that links of an arm keep from one another."""

    urdf: Urdf
    """The robot's URDF, whose collision geometries count."""
    distance: float
    """Smallest distance [m]."""
    ignore: tuple[tuple[str, str], ...] = ()
    """Pairs of links that may be nearer."""
