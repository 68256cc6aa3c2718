# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Networks are confirmed by the episodes on both sides of them, against those of the base."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from transition_builders import make_layout

from residual_rl_ros.learner.kept_networks import WINDOW, BestNetworks

LAYOUT = make_layout()
BASE = [True, False] * 20


def numbered(number: int) -> dict[str, torch.Tensor]:
    return {'number': torch.tensor(number)}


def begun() -> BestNetworks:
    """Return what knows of the end of a warm-up, transition 0."""
    best = BestNetworks()
    best.begin(numbered(0), 0.5, 0)
    return best


def window(best: BestNetworks, successes: int, base: list[bool] = BASE) -> None:
    """Rate a window of episodes with so many successes; transitions are counted in windows."""
    for episode in range(WINDOW):
        now = best._candidate_at + 1
        best.rate(episode < successes, base, partial(numbered, now), now)


def test_networks_between_two_windows_that_beat_the_base_are_confirmed() -> None:
    best = begun()
    window(best, 20)
    assert not best.confirmed, 'nothing is known of what followed'
    window(best, 20)
    assert best.confirmed
    assert best.taken_at == int(best.good['number']) == 1
    assert best.success == 0.8


def test_the_bottom_of_a_valley_and_the_edge_of_one_are_not_confirmed() -> None:
    for windows in ([2, WINDOW], [WINDOW, 2]):
        best = begun()
        for successes in windows:
            window(best, successes)
        assert not best.confirmed
        assert best.taken_at == 0


def test_a_residual_that_equals_its_base_is_not_confirmed() -> None:
    best = begun()
    for _ in range(8):
        window(best, WINDOW // 2 + 1)
    assert best.rank == (1, False, 0.5, 0)


def test_newer_networks_take_the_place_of_equal_ones_and_not_of_better_ones() -> None:
    best = begun()
    for expected, successes in [(0, 22), (1, 22), (2, 22), (2, 20), (2, 20), (2, 22), (6, 24)]:
        window(best, successes)
        assert best.taken_at == expected


def test_with_no_outcome_of_the_base_only_a_sure_success_is_confirmed() -> None:
    for successes, confirmed in ((20, False), (24, True)):
        best = begun()
        window(best, successes, base=[])
        window(best, successes, base=[])
        assert best.confirmed == confirmed


@pytest.mark.parametrize(
    ('success', 'most'),
    [(lambda share: 0.31, 0.08), (lambda share: 0.05 if share < 0.5 else 0.95, 0.01)],
)
def test_what_is_much_worse_than_the_base_is_seldom_confirmed(
    success: Callable[[float], float], most: float
) -> None:
    """In 200 residual episodes; the base succeeds in 46 % of 20 at first and 20 on the way."""
    rng, wrong, runs = np.random.default_rng(0), 0, 300
    for _ in range(runs):
        best, base, episodes = begun(), list(rng.random(20) < 0.46), 200
        worst = 1.0
        for episode in range(episodes):
            if episode % 10 == 0:
                base.append(bool(rng.random() < 0.46))
            outcome = bool(rng.random() < success(episode / episodes))
            best.rate(outcome, base, lambda: numbered(0), episode + 1)
            if best.confirmed:
                worst = min(worst, success(best.taken_at / episodes))
        wrong += worst < 0.46
    assert wrong / runs <= most


def test_a_rollback_rates_what_it_restores_anew() -> None:
    best = begun()
    for successes in (22, 22, 3):
        window(best, successes)
    assert int(best.restore()['number']) == 1
    window(best, 24)
    assert best.taken_at == 1, 'the window before the rollback was of other networks'


def test_a_new_beginning_forgets_what_was_confirmed() -> None:
    best = begun()
    for _ in range(2):
        window(best, 22)
    assert best.confirmed
    best.begin(numbered(7), 0.4, 7)
    assert best.rank == (2, False, 0.4, 7), 'what was confirmed before ranks below it'
    window(best, 22)
    assert not best.confirmed, 'the window before was of other networks'


def test_what_is_known_of_the_best_networks_survives_a_checkpoint() -> None:
    best, other = begun(), BestNetworks()
    window(best, 22)
    best.rate(True, BASE, lambda: numbered(9), 9)
    other.load_state_dict(json.loads(json.dumps(best.state_dict())))
    other.good, other.candidate = best.good, best.candidate
    for each in (best, other):
        window(each, 22)
    assert other.confirmed
    assert other.state_dict() == best.state_dict()
