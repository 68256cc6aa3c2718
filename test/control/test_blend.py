# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A residual that appears at once is a step in the command; it must fade in."""

from __future__ import annotations

import pytest

from residual_rl_ros.control.composition import BlendRamp


def test_the_ratio_rises_linearly_from_zero_to_one_after_a_restart() -> None:
    ramp = BlendRamp(4.0)
    ramp.restart()
    ratios = [ramp.ratio(100.0 + seconds) for seconds in (0.0, 1.0, 2.0, 4.0, 40.0)]
    assert ratios == [0.0, 0.25, 0.5, 1.0, 1.0]


def test_a_restart_begins_again_at_zero() -> None:
    ramp = BlendRamp(4.0)
    assert ramp.ratio(0.0) == 0.0
    assert ramp.ratio(10.0) == 1.0
    ramp.restart()
    assert ramp.ratio(10.0) == 0.0
    assert ramp.ratio(11.0) == 0.25


def test_a_clock_that_jumps_back_gives_no_residual() -> None:
    ramp = BlendRamp(4.0)
    assert ramp.ratio(100.0) == 0.0
    assert ramp.ratio(50.0) == 0.0


@pytest.mark.parametrize('duration', [0.0, -1.0])
def test_no_duration_is_no_ramp(duration: float) -> None:
    ramp = BlendRamp(duration)
    ramp.restart()
    assert ramp.ratio(5.0) == 1.0


def test_a_ramp_starts_with_the_first_time_of_whatever_clock_it_is_given() -> None:
    ramp = BlendRamp(1.0)
    ramp.restart()  # The node activates by wall time, its lockstep stamps begin at zero.
    assert [ramp.ratio(stamp) for stamp in (0.05, 0.55, 1.05)] == pytest.approx([0.0, 0.5, 1.0])


def test_a_ceiling_that_is_raised_begins_a_ramp_and_a_lower_one_holds_at_once() -> None:
    ramp = BlendRamp(4.0, ceiling=0.5)
    assert [ramp.ratio(0.0), ramp.ratio(4.0)] == [0.0, 0.5]
    ramp.set_ceiling(0.25)
    assert ramp.ratio(5.0) == 0.25
    ramp.set_ceiling(1.0)
    assert [ramp.ratio(second) for second in (6.0, 7.0, 10.0)] == [0.0, 0.25, 1.0]
