# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A success rate is reported with its interval; both must be those of the literature."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residual_rl_ros.evaluation.intervals import mcnemar, wilson


def outcomes(successes: int, trials: int) -> list[bool]:
    return [index < successes for index in range(trials)]


@pytest.mark.parametrize(
    ('successes', 'trials', 'low', 'high'),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, score method.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # Others, by hand.
        (8, 10, 0.4902, 0.9433),
        (10, 10, 0.7225, 1.0),
    ],
)
def test_the_interval_is_wilsons(successes: int, trials: int, low: float, high: float) -> None:
    rate = wilson(outcomes(successes, trials))
    assert (rate.successes, rate.trials) == (successes, trials)
    assert rate.value == successes / trials
    assert rate.low == pytest.approx(low, abs=6e-5)
    assert rate.high == pytest.approx(high, abs=6e-5)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_the_interval_holds_the_rate_and_mirrors_with_the_outcomes(results: list[bool]) -> None:
    rate = wilson(results)
    assert 0.0 <= rate.low <= rate.value + 1e-12
    assert rate.value - 1e-12 <= rate.high <= 1.0
    mirrored = wilson([not result for result in results])
    assert mirrored.low == pytest.approx(1.0 - rate.high, abs=1e-12)


def test_a_rate_is_printed_with_its_interval() -> None:
    assert str(wilson(outcomes(8, 10))) == '80% [49%, 94%]'


def test_no_trials_are_no_rate() -> None:
    with pytest.raises(ValueError, match='at least one trial'):
        wilson([])


@pytest.mark.parametrize(
    ('fixed', 'broken', 'p'),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (6, 1, 2 * (1 + 7) / 128),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
        (3, 3, 1.0),
    ],
)
@pytest.mark.parametrize('same', [0, 17])
def test_the_paired_test_counts_only_the_pairs_that_differ(
    fixed: int, broken: int, p: float, same: int
) -> None:
    before = [False] * fixed + [True] * broken + [True, False] * same
    after = [True] * fixed + [False] * broken + [True, False] * same
    assert mcnemar(before, after) == pytest.approx(p, rel=1e-12)
    assert mcnemar(after, before) == pytest.approx(p, rel=1e-12)


def test_thousands_of_pairs_have_a_p_value() -> None:
    assert mcnemar([False] * 1500, [True] * 1500) == 0.0
    assert mcnemar([False, True] * 800, [True, False] * 800) == 1.0


def test_outcomes_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match=r'shorter|longer'):
        mcnemar([True], [True, False])
