# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Two promises of the package: the residual is bounded, and off means exactly the base policy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from robot_builders import make_metadata

from residual_rl_ros.control.composition import ResidualBound
from residual_rl_ros.errors import ConfigError

command = st.floats(-1e6, 1e6)
output = st.floats(allow_nan=False)
"""Actor outputs, infinite and far outside [-1, 1] included: the bound does not trust the actor."""


def pair(values: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    return st.lists(values, min_size=2, max_size=2).map(np.array)


def ranges() -> st.SearchStrategy[tuple[float, float]]:
    return st.lists(command, min_size=2, max_size=2).map(lambda two: (min(two), max(two)))


@given(ranges(), ranges(), pair(st.floats(0.0, 1e6)), pair(command), pair(output), st.floats(-1, 2))
def test_the_executed_action_is_never_further_from_the_base_than_the_bound(
    first: tuple[float, float],
    second: tuple[float, float],
    scale: np.ndarray,
    base: np.ndarray,
    residual: np.ndarray,
    blend: float,
) -> None:
    low, high = zip(first, second, strict=True)
    bound = ResidualBound.from_metadata(make_metadata(action_min=low, action_max=high), scale)
    half_range = (np.array(high) - np.array(low)) / 2.0
    assert (bound.values <= scale * half_range).all()
    executed = bound.compose(base, residual, blend)
    # The exact sum is within the bound; the float sum may be off by its last digit.
    rounding = np.spacing(np.abs(base) + bound.values)
    assert (np.abs(executed - base) <= bound.values + rounding).all()


@given(pair(st.floats(allow_nan=False)), pair(output), st.sampled_from([0.0, -0.0, -0.5]))
def test_a_blend_of_zero_is_the_base_action_bit_for_bit(
    base: np.ndarray, residual: np.ndarray, blend: float
) -> None:
    bound = ResidualBound.from_metadata(make_metadata(), 1.0)
    assert bound.compose(base, residual, blend).tobytes() == base.tobytes()


@given(pair(command), pair(st.floats(-1.0, 1.0)), st.floats(0.0, 1.0, exclude_min=True))
def test_the_offset_is_blend_times_bound_times_residual(
    base: np.ndarray, residual: np.ndarray, blend: float
) -> None:
    bound = ResidualBound(np.array([0.5, 0.25]))
    np.testing.assert_array_equal(
        bound.compose(base, residual, blend), base + blend * (residual * bound.values)
    )


def test_the_bound_is_the_scale_times_the_half_range_of_the_trained_actions() -> None:
    metadata = make_metadata(action_min=(-1.0, 0.0), action_max=(3.0, 0.5))
    np.testing.assert_array_equal(ResidualBound.from_metadata(metadata, 0.5).values, [1.0, 0.125])
    np.testing.assert_array_equal(ResidualBound.from_metadata(metadata, [0.5]).values, [1, 0.125])
    np.testing.assert_array_equal(
        ResidualBound.from_metadata(metadata, [0.5, 1.0]).values, [1.0, 0.25]
    )


def test_a_dimension_that_the_base_never_uses_gets_no_residual() -> None:
    metadata = make_metadata(action_min=(-1.0, 0.2), action_max=(1.0, 0.2009))
    np.testing.assert_array_equal(ResidualBound.from_metadata(metadata, 0.1).values, [0.1, 0.0])
    used = make_metadata(action_min=(-1.0, 0.25), action_max=(1.0, 0.2515))
    assert ResidualBound.from_metadata(used, 0.1).values[1] > 0.0


def test_a_chunk_of_actions_is_composed_row_by_row() -> None:
    bound = ResidualBound(np.array([1.0, 10.0]))
    base = np.array([[1.0, 2.0], [3.0, 4.0]])
    residual = np.array([[1.0, -1.0], [0.5, 7.0]])
    np.testing.assert_array_equal(bound.compose(base, residual, 0.5), [[1.5, -3.0], [3.25, 9.0]])


def test_the_base_action_is_not_modified() -> None:
    base = np.array([1.0, 2.0])
    for blend in (0.0, 1.0):
        composed = ResidualBound(np.ones(2)).compose(base, np.ones(2), blend)
        composed += 5.0
    np.testing.assert_array_equal(base, [1.0, 2.0])


def test_a_nan_residual_stays_visible_to_the_safety_filter() -> None:
    composed = ResidualBound(np.ones(2)).compose(np.zeros(2), np.array([np.nan, 0.0]), 1.0)
    assert np.isnan(composed).tolist() == [True, False]


@pytest.mark.parametrize(
    ('scale', 'message'),
    [
        ([0.1, 0.1, 0.1], r'has 3 values, expected 1 or 2 \(one per action: a.position, b.pos'),
        ([], r'has 0 values, expected 1 or 2'),
        (-0.1, r'residual_scale is -0.1, expected finite values >= 0'),
        ([0.1, np.nan], r'residual_scale is \[0.1, nan\], expected finite'),
        (np.inf, r'residual_scale is inf, expected finite'),
    ],
)
def test_a_scale_that_makes_no_sense_is_refused(scale: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResidualBound.from_metadata(make_metadata(), scale)
