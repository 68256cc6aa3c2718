# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""RViz markers of an arm with a workspace: boxes, points, the chunk and the composed motion."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA

from residual_rl_ros.control.decision import CommandedStep
from residual_rl_ros.control.workspace import Workspace
from residual_rl_ros.numerics import Array
from residual_rl_ros.ros.common.managed_node import ManagedNode
from residual_rl_ros.ros.common.message_types import message_class

MARKERS = 'visualization_msgs/msg/MarkerArray'
BOX, TOOL, CHUNK, PLANNED = ('workspace', 'tool', 'chunk', 'planned')
"""Namespaces of the markers, which RViz switches on and off."""
FARTHEST_M = 2.0
"""A side of the box that is farther away, as an infinite one, is drawn here [m]."""
LINE_M, TOOL_M = 0.004, 0.02
"""Width of the lines, and diameter of the tool [m]."""
LIFETIME_S = 2
"""What is not published any more disappears after this time [s]."""
COLOURS = {
    BOX: (0.6, 0.6, 0.6, 0.15),
    TOOL: (0.9, 0.3, 0.1, 1.0),
    CHUNK: (0.1, 0.4, 0.9, 1.0),
    PLANNED: (0.9, 0.5, 0.1, 1.0),
}
"""Red, green, blue, opacity."""


class WorkspaceMarkers:
    """Publishes `~/markers`.

    Args:
        node: gets the publisher.
        workspace: boxes and kinematic model.
        frame: frame of the model's base.

    Raises:
        ConfigError: visualization_msgs is not installed.
    """

    def __init__(self, node: ManagedNode, workspace: Workspace, frame: str) -> None:
        self._array = message_class(MARKERS)
        self._marker = message_class('visualization_msgs/msg/Marker')
        self._workspace = workspace
        self._frame = frame
        self._publisher = node.create_lifecycle_publisher(self._array, '~/markers', 1)

    def publish(
        self, command: Array, commanded: CommandedStep | None, coming: npt.ArrayLike, stamp: Any
    ) -> None:
        """Show a control step, if somebody looks.

        Args:
            command: what was sent, shape (m,).
            commanded: what it was made of; None shows no motion.
            coming: base actions of the chunk after the decision, shape (rows, m).
            stamp: message of its time.
        """
        if not self._publisher.get_subscription_count():
            return
        points = self._workspace.positions(command)
        markers = self._boxes(stamp) + self._spheres(points, stamp)
        if commanded is not None:
            chunk = np.concatenate([commanded.ahead, np.asarray(coming, dtype=np.float64)])
            ways = ((CHUNK, chunk), (PLANNED, commanded.planned))
            markers += [self._line(name, way, stamp) for name, way in ways if len(way) > 1]
        self._publisher.publish(self._array(markers=markers))

    def _new(self, name: str, kind: int, size: npt.ArrayLike, stamp: Any, number: int = 0) -> Any:
        marker = self._marker(ns=name, id=number, type=kind, action=self._marker.ADD)
        marker.header.frame_id, marker.header.stamp = self._frame, stamp
        marker.pose.orientation.w = 1.0
        x, y, z = np.broadcast_to(np.asarray(size, dtype=np.float64), (3,)).tolist()
        marker.scale = Vector3(x=x, y=y, z=z)
        red, green, blue, opacity = COLOURS[name]
        marker.color = ColorRGBA(r=red, g=green, b=blue, a=opacity)
        marker.lifetime.sec = LIFETIME_S
        return marker

    def _boxes(self, stamp: Any) -> list[Any]:
        lower = np.maximum(self._workspace.spec.lower, -FARTHEST_M)
        upper = np.minimum(self._workspace.spec.upper, FARTHEST_M)
        made = []
        for number, (low, high) in enumerate(zip(lower, upper, strict=True)):
            size = np.maximum(high - low, LINE_M)
            made.append(self._new(BOX, self._marker.CUBE, size, stamp, number))
            made[-1].pose.position = _point((low + high) / 2.0)
        return made

    def _spheres(self, positions: Array, stamp: Any) -> list[Any]:
        made = []
        for number, position in enumerate(positions):
            made.append(self._new(TOOL, self._marker.SPHERE, TOOL_M, stamp, number))
            made[-1].pose.position = _point(position)
        return made

    def _line(self, name: str, joints: Array, stamp: Any) -> Any:
        """Return the way of the first point through joint positions, shape (rows, m)."""
        marker = self._new(name, self._marker.LINE_STRIP, LINE_M, stamp)
        marker.points = [_point(self._workspace.positions(row)[0]) for row in joints]
        return marker


def _point(position: Array) -> Point:
    x, y, z = position.tolist()
    return Point(x=x, y=y, z=z)
