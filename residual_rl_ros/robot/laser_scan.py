# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A laser scan as a fixed number of ranges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from residual_rl_ros.numerics import Array


def beam_names(beams: int) -> tuple[str, ...]:
    """Return the fields of a scan."""
    return tuple(f'range{index}' for index in range(beams))


def beams_of(scan: Any, beams: int) -> Array:
    """Return the smallest range of each of equal sectors, from `angle_min` on.

    What saw nothing (infinite, NaN or 0) counts as `range_max`; the rest is clipped to
    [`range_min`, `range_max`], also minus infinity, by which REP 117 says "too close".

    Args:
        scan: a LaserScan.
        beams: number of sectors.

    Returns:
        Ranges, shape (beams,) [m].

    Raises:
        ValueError: it has fewer ranges than sectors, or its limits are no range.
    """
    ranges = np.array(scan.ranges, dtype=np.float64)
    low, high = float(scan.range_min), float(scan.range_max)
    if ranges.size < beams:
        raise ValueError(f'{ranges.size} ranges, expected at least one for each of {beams}')
    if not (0.0 <= low < high < math.inf):
        raise ValueError(f'range_min {low:g} and range_max {high:g}, expected 0 <= min < max')
    ranges[np.isnan(ranges) | (ranges == 0.0)] = high
    starts = -(-np.arange(beams) * ranges.size // beams)
    smallest: Array = np.minimum.reduceat(ranges, starts)
    return np.clip(smallest, low, high)
