# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pose of a frame in another one, composed of the transforms on /tf and /tf_static.

As tf2 does it: at the newest time that all moving transforms on the way have in common, between two
samples by linear and spherical interpolation. It is done here so that a bag gives the same numbers
as the robot did, without ROS.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from residual_rl_ros.errors import ObservationError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.topics import Channel
from residual_rl_ros.robot.transforms import UNIT_TOLERANCE

Pose = tuple[float, ...]
"""Position x, y, z [m] and unit quaternion x, y, z, w; arrays of so few numbers cost more."""
MAX_FRAMES = 1000
"""Frames of a tree; transforms of others are refused."""
MAX_SAMPLES = 1000
"""Samples of a transform; what waits longer for a slower one has no time in common with it."""
SET_BACK_S = 1.0
"""Stamps that are further back than this are of a clock that was set back, not of a late message
[s]."""
AXES = {
    **{f'position.{axis}': index for index, axis in enumerate('xyz')},
    **{f'orientation.{axis}': index for index, axis in enumerate('xyzw', 3)},
}
"""Where the fields of a channel are in a pose."""


class Transform(NamedTuple):
    """What a message says of a frame."""

    child: str
    parent: str
    stamp: float
    """[s]."""
    pose: Pose
    """As it was sent."""


def transforms_of(data: bytes) -> list[Transform]:
    """Return the transforms of a TFMessage in CDR, as it travels and is recorded.

    To have rclpy make objects of them takes ten times as long, and most are of frames that
    nobody asked for.

    Raises:
        ValueError: the bytes are no such message.
    """
    try:
        layout, body, at = LAYOUTS[bytes(data[:2])], data[4:], 4
        found = []
        for _ in range(layout.count.unpack_from(body)[0]):
            sec, nanosec, length = layout.header.unpack_from(body, at)
            end = at + 12 + length
            parent = str(body[at + 12 : end - 1], 'utf-8').strip('/')
            at = end + -end % 4
            end = at + 4 + layout.count.unpack_from(body, at)[0]
            child = str(body[at + 4 : end - 1], 'utf-8').strip('/')
            at = end + -end % 8
            pose = layout.pose.unpack_from(body, at)
            found.append(Transform(child, parent, sec + 1e-9 * nanosec, pose))
            at += layout.pose.size
    except (KeyError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f'{len(data)} bytes are no TFMessage: {error!r}') from error
    return found


class _Layout:
    """Numbers in CDR.

    Args:
        order: of their bytes, as `struct` names it.
    """

    def __init__(self, order: str) -> None:
        self.count = struct.Struct(f'{order}I')
        self.header = struct.Struct(f'{order}iII')
        """Seconds, nanoseconds and the length of a name."""
        self.pose = struct.Struct(f'{order}7d')


LAYOUTS = {b'\0\0': _Layout('>'), b'\0\1': _Layout('<')}
"""By the first bytes of a message."""


class Sample(NamedTuple):
    """Pose of a frame in its parent at a time."""

    stamp: float
    """[s]."""
    pose: Pose


@dataclass
class _Link:
    """A frame in its parent."""

    parent: str
    static: bool
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))
    """Of ascending stamps."""

    def put(self, sample: Sample, keep: bool) -> None:
        """Take in a sample.

        Args:
            sample: a late one is dropped; one long before the newest begins anew.
            keep: older ones are needed, until a slower transform has caught up.
        """
        behind = self.samples[-1].stamp - sample.stamp if self.samples else 0.0
        if not keep or behind > SET_BACK_S:
            self.samples.clear()
        elif behind >= 0.0 and self.samples:
            return
        self.samples.append(sample)

    def at(self, stamp: float) -> Pose | None:
        """Return the pose at a time not after the newest, and forget what is older.

        None if that is before the oldest sample.
        """
        if self.static:
            return self.samples[-1].pose
        while len(self.samples) > 1 and self.samples[1].stamp <= stamp:
            self.samples.popleft()
        first = self.samples[0]
        if first.stamp >= stamp:
            return first.pose if first.stamp == stamp else None
        second = self.samples[1]
        share = (stamp - first.stamp) / (second.stamp - first.stamp)
        return between(first.pose, second.pose, share)


class TransformReader:
    """Reads a channel of transforms.

    Args:
        channel: names the two frames and the fields of the pose.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._where = f'channel {channel.name!r} ({channel.topic})'
        self._places = [AXES[each] for each in channel.fields]
        self._links: dict[str, _Link] = {}
        self._up: list[str] = []
        """Frames from the observed one to the one below the common ancestor."""
        self._down: list[str] = []
        """Likewise from the frame in which it is observed."""
        self._way: frozenset[str] = frozenset()
        """All of these."""
        self._whole = False
        self.hint = ''
        """What is missing or, where nothing is, which transform is the oldest."""
        self._find_way()

    def read(
        self, message: bytes, received: float | None, static: bool
    ) -> tuple[float, Array] | None:
        """Return the time and the values of the pose, None while a transform is missing.

        Args:
            message: a TFMessage in CDR.
            received: when it was received [s], where that counts and not the headers' stamps.
            static: it is of transforms that never change.

        Raises:
            ObservationError: the bytes are no such message, a transform on the way cannot be used,
                frames form a loop, or nothing renews the pose.
        """
        try:
            transforms = transforms_of(message)
        except ValueError as error:
            raise ObservationError(f'{self._where}: {error}', self._channel.topic) from error
        problems, changed = [], False
        for each in transforms:
            child = each.child
            if self._whole and child not in self._links and len(self._links) >= MAX_FRAMES:
                continue  # What is needed is known.
            try:
                sample = self._sample(each, received, static)
            except ValueError as error:
                if not self._whole or child in self._way:
                    problems.append(f'{self._where}: the transform of {child!r} {error}')
                continue
            changed |= self._put(child, each.parent, sample, static)
        if changed:
            self._find_way()
        if problems:
            raise ObservationError(problems[0], self._channel.topic, 'transform')
        return self._pose() if self._whole else None

    def _sample(self, transform: Transform, received: float | None, static: bool) -> Sample:
        """Return what a transform says.

        Raises:
            ValueError: why it cannot be used.
        """
        child, parent, stamp, (*position, x, y, z, w) = transform
        if not child or not parent or child == parent:
            raise ValueError(f'is in {parent!r}, expected two different frames')
        if child not in self._links and len(self._links) >= MAX_FRAMES:
            raise ValueError(f'is one too many: {MAX_FRAMES} frames are known')
        length = math.hypot(x, y, z, w)
        if not all(map(math.isfinite, position)) or not abs(length - 1.0) <= UNIT_TOLERANCE:
            raise ValueError(
                f'is {[*transform.pose]}, expected finite numbers and a unit quaternion'
            )
        pose = (*position, x / length, y / length, z / length, w / length)
        if received is None and not static and not stamp:
            raise ValueError('has no stamp; correct its publisher or set stamped_by: receipt')
        return Sample(stamp if received is None else received, pose)

    def _put(self, child: str, parent: str, sample: Sample, static: bool) -> bool:
        """Take in a sample; return whether the tree has changed."""
        link = self._links.get(child)
        changed = link is None or (link.parent, link.static) != (parent, static)
        if link is None or changed:
            link = self._links[child] = _Link(parent, static)
        on_way = not static and self._whole and child in self._way
        link.put(sample, keep=on_way)
        return changed

    def _find_way(self) -> None:
        """Find the transforms between the frames, or say which one is missing.

        Raises:
            ObservationError: frames form a loop.
        """
        self._whole = False
        source, target = self._channel.source_frame, self._channel.target_frame
        up, down = self._ancestors(source), self._ancestors(target)
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            loose = [f'{end[0]!r} is known up to {end[-1]!r}' for end in (up, down) if end[1:]]
            self.hint = f'no transform between {up[-1]!r} and {down[-1]!r} has come' + (
                f' ({", ".join(loose)})' if loose else ''
            )
            return
        self._up, self._down = up[: up.index(common)], down[: down.index(common)]
        self._way = frozenset((*self._up, *self._down))
        self._whole = True

    def _ancestors(self, frame: str) -> list[str]:
        """Return a frame, its parent and so on.

        Raises:
            ObservationError: one of them is its own ancestor.
        """
        found = [frame]
        while frame in self._links:
            frame = self._links[frame].parent
            found.append(frame)
            if found.count(frame) > 1:
                loop = ' in '.join(found[found.index(frame) :])
                self.hint = f'the frames {loop} form a loop; correct what publishes them'
                raise ObservationError(f'{self._where}: {self.hint}', self._channel.topic, 'loop')
        return found

    def _pose(self) -> tuple[float, Array] | None:
        """Return the time and the values of the pose, None if the transforms share no time."""
        links = {frame: self._links[frame] for frame in (*self._up, *self._down)}
        moving = {frame: link for frame, link in links.items() if not link.static}
        if not moving and not self._channel.latched:
            raise ObservationError(
                f'{self._where}: all transforms between {self._channel.source_frame!r} and '
                f'{self._channel.target_frame!r} are static, and no message renews them; set '
                'latched: true instead of max_age_s',
                self._channel.topic,
                'static',
            )
        newest = {frame: link.samples[-1].stamp for frame, link in moving.items()}
        oldest = min(newest, key=newest.__getitem__, default='')
        stamp = newest.get(oldest, 0.0)
        if oldest:
            self.hint = f'the oldest transform is that of {oldest!r} in {links[oldest].parent!r}'
        poses = {frame: link.at(stamp) for frame, link in links.items()}
        pose, base = (_along(way, poses) for way in (self._up, self._down))
        if pose is None or base is None:
            return None
        values = composed(inverse(base), pose)
        return stamp, np.array([values[place] for place in self._places])


IDENTITY: Pose = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def _along(way: list[str], poses: dict[str, Pose | None]) -> Pose | None:
    """Return the pose of the first frame of a way in the parent of the last one."""
    pose = IDENTITY
    for frame in way:
        outer = poses[frame]
        if outer is None:
            return None
        pose = composed(outer, pose)
    return pose


def composed(outer: Pose, inner: Pose) -> Pose:
    """Return the pose in the outermost frame of what has the inner pose in the outer one."""
    moved = rotated(outer[3:], inner[:3])
    x, y, z, w = outer[3:]
    a, b, c, d = inner[3:]
    return (
        *(outer[0] + moved[0], outer[1] + moved[1], outer[2] + moved[2]),
        w * a + x * d + y * c - z * b,
        w * b - x * c + y * d + z * a,
        w * c + x * b - y * a + z * d,
        w * d - x * a - y * b - z * c,
    )


def inverse(pose: Pose) -> Pose:
    """Return the pose of the parent in the frame."""
    x, y, z, a, b, c, w = pose
    back = -a, -b, -c, w
    return (*rotated(back, (-x, -y, -z)), *back)


def rotated(quaternion: Pose, vector: Pose) -> Pose:
    """Return a vector x, y, z that a unit quaternion x, y, z, w has turned."""
    (a, b, c, w), (x, y, z) = quaternion, vector
    i, j, k = 2.0 * (b * z - c * y), 2.0 * (c * x - a * z), 2.0 * (a * y - b * x)
    return x + w * i + b * k - c * j, y + w * j + c * i - a * k, z + w * k + a * j - b * i


def between(first: Pose, second: Pose, share: float) -> Pose:
    """Return the pose at a share of the way from the first to the second.

    Positions are interpolated linearly, orientations spherically, by the shorter way round.
    """
    cosine = sum(a * b for a, b in zip(first[3:], second[3:], strict=True))
    angle = math.acos(min(abs(cosine), 1.0))
    before, after = 1.0 - share, share
    if angle > 1e-6:
        before, after = (math.sin(each * angle) / math.sin(angle) for each in (before, after))
    after = math.copysign(after, cosine)
    turned = [before * a + after * b for a, b in zip(first[3:], second[3:], strict=True)]
    length = math.hypot(*turned)
    moved = [a + share * (b - a) for a, b in zip(first[:3], second[:3], strict=True)]
    return (*moved, *(each / length for each in turned))
