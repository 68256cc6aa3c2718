# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The time of a message: in its header or, of a message without one, in its label.

A message is any object with the attributes of its ROS type: one of rclpy, or one that a bag reader
made.
"""

from __future__ import annotations

from typing import Any

from residual_rl_ros.robot.observation import MAX_STAMP_S

STAMP_LABEL = 'stamp_ns:'
"""Begins the label that ties a header-less message to a time [ns]."""
STAMP_DIGITS = 19
"""Longest time in a label: nanoseconds of an int64."""


def to_nanoseconds(stamp: float) -> int:
    """Return whole nanoseconds of seconds."""
    return round(stamp * 1e9)


def to_seconds(sec: int, nanosec: int) -> float:
    """Return the seconds of a time message."""
    return float(sec) + float(nanosec) * 1e-9


def rounded(stamp: float) -> float:
    """Return a stamp as it is after its way through a time message [s]; one beyond it as it is."""
    if not abs(stamp) <= MAX_STAMP_S:
        return stamp
    return to_seconds(*divmod(to_nanoseconds(stamp), 10**9))


def label_of(message: Any) -> str:
    """Return the label of the first dimension, empty if there is none."""
    layout = getattr(message, 'layout', None)
    return str(layout.dim[0].label) if layout and layout.dim else ''


def stamped_label(stamp: float) -> str:
    """Return the label that ties a header-less command to the observation it answers."""
    return f'{STAMP_LABEL}{to_nanoseconds(stamp)}'


def stamp_of(message: Any) -> float | None:
    """Return the time in a message's header or label [s]; None if it has none."""
    header = getattr(message, 'header', None)
    if header is None:
        label = label_of(message)
        digits = label.removeprefix(STAMP_LABEL)
        if digits == label or not (digits.isascii() and digits.isdigit()):
            return None
        return rounded(int(digits) * 1e-9) if len(digits) <= STAMP_DIGITS else None
    sec, nanosec = header.stamp.sec, header.stamp.nanosec
    return to_seconds(sec, nanosec) if sec or nanosec else None
