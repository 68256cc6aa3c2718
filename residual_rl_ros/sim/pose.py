# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Planar pose: a position and a yaw, all a task on a level table needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pose:
    """A gravity-aligned frame: z points up, x points along `yaw` about the vertical.

    The tool's frame in this sense is the tool centre point with the heading of the tool's x axis.
    The small tilt of the wrist is left out, as by a camera that levels with its accelerometer.
    """

    position: NDArray[np.float64]
    """Origin, shape (3,), [m], in the frame the pose is expressed in."""
    yaw: float
    """Rotation about the vertical, [rad]."""

    def relative_to(self, frame: Pose) -> Pose:
        """Express this pose in `frame`, both given in the same parent frame.

        Args:
            frame: The new frame of reference.

        Returns:
            The same pose seen from `frame`, its yaw wrapped to [-pi, pi].
        """
        cosine, sine = math.cos(frame.yaw), math.sin(frame.yaw)
        x, y, z = self.position - frame.position
        position = np.array([cosine * x + sine * y, cosine * y - sine * x, z])
        return Pose(position, wrap_angle(self.yaw - frame.yaw))

    def locate(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """Express a point given in this frame, shape (3,), [m], in the parent frame."""
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        x, y, z = point
        turned: NDArray[np.float64] = np.array([cosine * x - sine * y, sine * x + cosine * y, z])
        return turned + self.position


def wrap_angle(angle: float) -> float:
    """Wrap an angle [rad] to [-pi, pi]."""
    return math.remainder(angle, math.tau)
