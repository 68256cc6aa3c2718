# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Who looks after every episode must not be fooled more often than the test says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from residual_rl_ros.evaluation.sequential import ERROR, SuccessTest

WORLDS = 300
LONG = 600


def decisions(rates: Sequence[float]) -> list[int]:
    """Return after how many episodes each simulated world decides, of those that do."""
    rng, found = np.random.default_rng(5), []
    for _ in range(WORLDS):
        test = SuccessTest()
        for number, outcome in enumerate(rng.random(len(rates)) < rates, start=1):
            test.add(bool(outcome))
            if test.decided:
                found.append(number)
                break
    return found


@pytest.mark.parametrize(
    'rates',
    [
        [0.9] * LONG,
        [0.5] * (LONG // 2) + [0.9] * (LONG // 2),
        [0.9, 0.8] * (LONG // 2),
        list(np.linspace(0.5, 0.9, LONG)),
    ],
    ids=['at the level', 'rising to it', 'about it from below', 'slowly to it'],
)
def test_policies_that_never_exceed_the_level_are_seldom_believed(rates: list[float]) -> None:
    # Of 300 worlds 15 are allowed; 25 would be seen once in a hundred times.
    assert len(decisions(rates)) / WORLDS <= ERROR + 0.03


def test_a_good_policy_is_believed_soon_however_long_it_was_bad_before() -> None:
    at_once = decisions([0.98] * 300)
    assert len(at_once) >= 0.95 * WORLDS
    assert np.median(at_once) < 130
    later = [number - 400 for number in decisions([0.6] * 400 + [0.98] * 300)]
    assert len(later) >= 0.95 * WORLDS
    assert np.median(later) < np.median(at_once) + WORLDS / 6


def test_nothing_is_bet_on_little_and_wealth_is_that_of_the_bets() -> None:
    test = SuccessTest(level=0.5, error=0.1)
    test.add(True)
    assert test.wealth == 1.0
    test.add(True)  # Expected (1 + 5) / 11, so the bet is (6/11 - 1/2) / (1/4).
    assert test.wealth == pytest.approx(1.0 + (6 / 11 - 0.5) / 0.25 * 0.5)
    before = test.wealth
    test.add(False)
    assert test.wealth < before
    assert not test.decided
    for _ in range(40):
        test.add(True)
    assert test.decided
    wealth = test.wealth
    test.add(False)
    assert test.wealth == wealth


def test_outcomes_are_taken_in_once_each_from_a_list_that_grows() -> None:
    test, plain = SuccessTest(), SuccessTest()
    test.follow(3, [True, False, True])
    test.follow(3, [True, False, True])
    test.follow(5, [False, True, True, True])
    test.follow(0, [])
    for outcome in (True, False, True, True, True):
        plain.add(outcome)
    assert (test.episodes, test.wealth) == (5, plain.wealth)
    test.follow(100, [True, True])
    assert test.episodes == 7
