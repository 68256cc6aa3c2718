# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The safety filter is the last thing between a number and a motor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from robot_builders import make_action_spec

from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ResidualRLError, UnsafeCommandError

LIMITS = make_action_spec(
    lower=np.array([-1.0, -2.0]), upper=np.array([1.0, 2.0]), max_step=np.array([0.25, 0.5])
)


def pair(low: float, high: float) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.floats(low, high), min_size=2, max_size=2).map(np.array)


@given(pair(-1.0, 1.0), pair(-1.0, 1.0))
def test_a_command_inside_all_limits_passes_bit_for_bit(
    previous: np.ndarray, share: np.ndarray
) -> None:
    command = np.clip(previous + 0.9 * share * LIMITS.max_step, LIMITS.lower, LIMITS.upper)
    safety = SafetyFilter(LIMITS)
    assert safety.apply(command, previous).tobytes() == command.tobytes()
    assert (safety.clamped, safety.slew_limited) == (0, 0)


@given(pair(-1e9, 1e9))
def test_without_a_previous_command_only_the_position_is_limited(command: np.ndarray) -> None:
    safe = SafetyFilter(LIMITS).apply(command, None)
    np.testing.assert_array_equal(safe, np.clip(command, LIMITS.lower, LIMITS.upper))


@given(st.lists(pair(-1e9, 1e9), min_size=1, max_size=10))
def test_a_sequence_of_any_commands_never_leaves_limits_or_slew(commands: list) -> None:
    safety = SafetyFilter(LIMITS)
    previous = np.zeros(2)
    for command in commands:
        safe = safety.apply(command, previous)
        assert (LIMITS.lower <= safe).all()
        assert (safe <= LIMITS.upper).all()
        assert (previous - LIMITS.max_step <= safe).all()
        assert (safe <= previous + LIMITS.max_step).all()
        previous = safe


def test_a_far_command_is_approached_by_the_slew_limit_and_reached() -> None:
    safety = SafetyFilter(LIMITS)
    path = [np.zeros(2)]
    for _ in range(5):
        path.append(safety.apply([5.0, 0.75], path[-1]))
    expected = [[0, 0], [0.25, 0.5], [0.5, 0.75], [0.75, 0.75], [1.0, 0.75], [1.0, 0.75]]
    np.testing.assert_array_equal(path, expected)


def test_interventions_are_counted_by_kind() -> None:
    safety = SafetyFilter(LIMITS)
    safety.apply([0.1, 0.1], np.zeros(2))
    assert (safety.clamped, safety.slew_limited) == (0, 0)
    safety.apply([1.5, 0.0], np.array([1.0, 0.0]))
    assert (safety.clamped, safety.slew_limited) == (1, 0)
    safety.apply([0.5, 0.9], np.zeros(2))
    assert (safety.clamped, safety.slew_limited) == (1, 1)
    safety.apply([-7.0, 7.0], np.zeros(2))
    assert (safety.clamped, safety.slew_limited) == (2, 2)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('previous', [None, np.zeros(2)])
def test_a_non_finite_command_is_refused_by_action_name(
    value: float, previous: np.ndarray | None
) -> None:
    safety = SafetyFilter(LIMITS)
    with pytest.raises(UnsafeCommandError, match=rf"'b.position' is {value}; holding"):
        safety.apply([0.0, value], previous)
    assert (safety.clamped, safety.slew_limited) == (0, 0)


def test_a_non_finite_previous_command_never_becomes_a_command() -> None:
    with pytest.raises(UnsafeCommandError):
        SafetyFilter(LIMITS).apply([0.0, 0.0], np.array([np.nan, 0.0]))


@pytest.mark.parametrize('command', [[0.5], [[0.5, 0.5]]])
def test_a_command_of_another_size_is_refused(command: list) -> None:
    with pytest.raises(ResidualRLError, match='2'):
        SafetyFilter(LIMITS).apply(command, np.zeros(2))


def test_the_command_given_is_not_modified() -> None:
    command = np.array([5.0, 5.0])
    SafetyFilter(LIMITS).apply(command, np.zeros(2))
    np.testing.assert_array_equal(command, [5.0, 5.0])
