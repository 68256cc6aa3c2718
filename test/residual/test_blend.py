# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A residual that appears at once is a step in the command; it must fade in."""

from __future__ import annotations

import pytest

from residual_rl_ros.residual.blend import BlendRamp


def test_the_ratio_rises_linearly_from_zero_to_one_after_a_restart() -> None:
    ramp = BlendRamp(4.0)
    ramp.restart(100.0)
    ratios = [ramp.ratio(100.0 + seconds) for seconds in (0.0, 1.0, 2.0, 4.0, 40.0)]
    assert ratios == [0.0, 0.25, 0.5, 1.0, 1.0]


def test_a_restart_begins_again_at_zero() -> None:
    ramp = BlendRamp(4.0)
    ramp.restart(0.0)
    assert ramp.ratio(10.0) == 1.0
    ramp.restart(10.0)
    assert ramp.ratio(10.0) == 0.0
    assert ramp.ratio(11.0) == 0.25


def test_a_clock_that_jumps_back_gives_no_residual() -> None:
    ramp = BlendRamp(4.0)
    ramp.restart(100.0)
    assert ramp.ratio(50.0) == 0.0


@pytest.mark.parametrize('duration', [0.0, -1.0])
def test_no_duration_is_no_ramp(duration: float) -> None:
    ramp = BlendRamp(duration)
    ramp.restart(5.0)
    assert ramp.ratio(5.0) == 1.0
