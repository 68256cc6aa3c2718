# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The short ways decide as the long ones do, at the borders too."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residual_rl_ros.numerics import all_finite, clamp, within
from residual_rl_ros.robot.observation import FLOAT32_MAX

BORDERS = [0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, sys.float_info.max, 1e200, -1e155]
BORDERS += [FLOAT32_MAX, -FLOAT32_MAX, float(np.nextafter(FLOAT32_MAX, np.inf))]
numbers = st.lists(st.one_of(st.floats(), st.sampled_from(BORDERS)), max_size=8)


@given(numbers, st.sampled_from([1.0, FLOAT32_MAX, sys.float_info.max]))
def test_within_is_what_looking_at_each_says(values: list[float], limit: float) -> None:
    assert within(np.array(values), limit) == all(abs(value) <= limit for value in values)


@given(numbers)
def test_all_finite_is_what_looking_at_each_says(values: list[float]) -> None:
    assert all_finite(np.array(values)) == np.isfinite(values).all()


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_no_warning_is_worth_a_number_that_is_refused(bad: float) -> None:
    with np.errstate(all='raise'):
        assert not all_finite(np.array([1.0, bad, 1e300]))


def test_clamp_keeps_what_is_inside_bit_for_bit() -> None:
    values = np.array([-2.0, -1.0, 0.1 + 0.2, 5.0])
    assert clamp(values, -1.0, 1.0).tolist() == [-1.0, -1.0, 0.1 + 0.2, 1.0]
