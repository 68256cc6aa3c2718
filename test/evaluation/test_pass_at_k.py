# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What noises decide is estimated without bias, and with intervals over starts."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residual_rl_ros.evaluation.intervals import wilson
from residual_rl_ros.evaluation.noises import (
    pass_at_k,
    resampled_means,
    share_of_starts,
    study_noise,
)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_mean_over_all_subsets_of_noises(
    outcomes: list[bool], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(outcomes)))
    expected = np.mean([any(subset) for subset in combinations(outcomes, k)])
    (estimate,) = pass_at_k([sum(outcomes)], len(outcomes), k)
    assert estimate == pytest.approx(expected)


def test_more_noises_than_were_played_are_refused() -> None:
    with pytest.raises(ValueError, match='k is 9, expected 1 to 8'):
        pass_at_k([3], 8, 9)


def drawn(starts: int, noises: int, rates: np.ndarray, seed: int) -> np.ndarray:
    """Return outcomes of starts whose success rates are drawn from `rates`."""
    rng = np.random.default_rng(seed)
    return rng.random((starts, noises)) < rng.choice(rates, starts)[:, None]


@pytest.mark.parametrize(
    ('rates', 'share'), [([0.5], 0.0), ([0.0, 1.0], 1.0), ([0.2, 0.8], 0.36), ([0.4, 0.6], 0.04)]
)
def test_the_share_of_the_start_is_right_on_average_for_few_noises(
    rates: list[float], share: float
) -> None:
    """Uncorrected, two noises would make a share of a half out of none."""
    outcomes = drawn(40_000, 2, np.array(rates), 0)
    mean = outcomes.mean(1)
    found = share_of_starts(np.array(mean.mean()), np.array((mean**2).mean()), 40_000, 2)
    assert found == pytest.approx(share, abs=0.015)


def test_the_share_of_the_start_is_unknown_where_all_outcomes_are_the_same() -> None:
    for value in (0.0, 1.0):
        assert np.isnan(share_of_starts(np.array(value), np.array(value**2), 5, 8))


def test_the_intervals_of_starts_hold_the_truth() -> None:
    """Of 95 % intervals of 200 studies, about 95 % hold it."""
    rates = np.array([0.1, 0.9])
    truth = {
        'first': rates.mean(),
        'gain': np.mean(1 - (1 - rates) ** 4) - rates.mean(),
        'share': rates.var() / (rates.mean() * (1 - rates.mean())),
    }
    inside = dict.fromkeys(truth, 0)
    for seed in range(200):
        study = study_noise(drawn(60, 4, rates, seed), np.random.default_rng(seed), 400)
        found = {'first': study.pass_at[1], 'gain': study.gain, 'share': study.start_share}
        for name, estimate in found.items():
            inside[name] += estimate.low <= truth[name] <= estimate.high
    assert all(count >= 178 for count in inside.values()), inside


def test_starts_that_all_end_alike_leave_doubt() -> None:
    study = study_noise(np.ones((10, 8), dtype=bool), np.random.default_rng(0))
    rate = wilson([True] * 10)
    assert (study.pass_at[8].low, study.pass_at[8].high) == (rate.low, 1.0)
    assert study.gain.point == 0.0 < study.gain.high
    assert study.start_share is None


def test_only_as_many_noises_count_as_were_played() -> None:
    assert set(study_noise(np.eye(6, dtype=bool), np.random.default_rng(0)).pass_at) == {1, 2, 4}
    assert study_noise(np.eye(3, 1, dtype=bool), np.random.default_rng(0)).start_share is None


def test_a_single_start_is_refused() -> None:
    with pytest.raises(ValueError, match='1 starts x 8 noises'):
        study_noise(np.ones((1, 8), dtype=bool), np.random.default_rng(0))


def test_what_belongs_to_one_start_is_resampled_together() -> None:
    values = np.random.default_rng(1).random((7, 1))
    means = resampled_means(np.hstack([values, 2.0 * values]), np.random.default_rng(0), 50)
    assert means.shape == (50, 2)
    np.testing.assert_allclose(means[:, 1], 2.0 * means[:, 0])
    assert means[:, 0].std() > 0.0
