# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The guard must find a ruined actor soon, and leave a sound one alone."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from benchmark_scripts import load_script
from transition_builders import make_layout

from residual_rl_ros.learner.guard import (
    DOUBT,
    MIN_BASE_EPISODES,
    TRIAL_SHARE,
    Guard,
    GuardConfig,
    ReturnGuard,
)

CONFIG = GuardConfig(drop=0.3, false_alarm_episodes=100_000.0)
LAYOUT = make_layout()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    return load_script('guard_rates', monkeypatch)


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch) -> Any:
    return load_script('guard_worlds', monkeypatch)


def delays(script: Any, base: Any, residual: Any, runs: int) -> list[float]:
    """Return the residual episodes until the alarm of simulated runs, infinite without one."""
    found = [
        script.simulate(base, residual, np.random.default_rng([5, seed])).residual_episodes
        for seed in range(runs)
    ]
    return [np.inf if delay is None else delay for delay in found]


def within(delays: list[float], limit: float) -> float:
    return float(np.mean(np.array(delays) <= limit))


@pytest.mark.parametrize(('base', 'median'), [(0.4, 18), (0.6, 12), (0.8, 8)])
def test_a_residual_that_never_succeeds_is_found_within_twenty_of_its_episodes(
    script: Any, worlds: Any, base: float, median: int
) -> None:
    found = delays(script, worlds.constant(base), worlds.constant(0.0), runs=100)
    assert within(found, 20) >= 0.88
    assert np.median(found) == pytest.approx(median, abs=1.5)


@pytest.mark.parametrize('base', [0.6, 0.8])
def test_a_residual_with_a_third_of_the_success_is_found_within_forty(
    script: Any, worlds: Any, base: float
) -> None:
    found = delays(script, worlds.constant(base), worlds.constant(base / 3.0), runs=100)
    assert within(found, 40) >= 0.86


@pytest.mark.parametrize('success', [0.05, 0.6])
def test_a_residual_that_equals_its_base_seldom_gets_a_false_alarm(
    script: Any, worlds: Any, success: float
) -> None:
    curve = worlds.constant(success)
    assert within(delays(script, curve, curve, runs=15), script.EPISODES) <= 0.14


@pytest.mark.parametrize('world', ['light', 'batches', 'luck'])
def test_nor_where_the_world_changes_for_both(script: Any, worlds: Any, world: str) -> None:
    curve = {
        'light': worlds.shift(0.7, 0.4),
        'batches': worlds.batches(0.9, 0.3, 20),
        'luck': worlds.lucky(0.5, 0.8),
    }[world]
    assert within(delays(script, curve, curve, runs=15), script.EPISODES) <= 0.2


def test_where_nobody_succeeds_there_is_nothing_to_lose() -> None:
    guard = Guard(CONFIG)
    for index in range(5000):
        assert guard.record_outcome(False, residual=index % 10 > 0) is None
    assert not guard.in_trial


def test_a_base_that_has_become_better_counts(script: Any, worlds: Any) -> None:
    base, residual = worlds.shift(0.4, 0.8, at=0), worlds.constant(0.4)
    rng = np.random.default_rng(3)
    found = [script.simulate(base, residual, rng).episodes for _ in range(10)]
    assert all(delay is not None and delay < 900 for delay in found)


def test_a_residual_that_is_better_gives_no_alarm(script: Any, worlds: Any) -> None:
    found = delays(script, worlds.constant(0.6), worlds.constant(0.75), runs=10)
    assert within(found, script.EPISODES) == 0.0


def doubting(successes: int = 15) -> Guard:
    """Return a guard whose base succeeds in half of its episodes, in the middle of a trial."""
    guard = Guard(CONFIG)
    for index in range(2 * successes):
        guard.record_outcome(index % 2 == 0, residual=False, base_share=1.0)
    while not guard.in_trial:
        assert guard.record_outcome(False, residual=True, base_share=0.1) is None
    guard.record_outcome(True, residual=False)
    guard.record_outcome(False, residual=True)
    return guard


def evidence(guard: Guard) -> float:
    return float(guard.state_dict()['trial']['evidence'])


def after(guard: Guard, success: bool, residual: bool, share: float) -> float:
    """Return the evidence that an episode adds."""
    copy = Guard(CONFIG)
    copy.load_state_dict(guard.state_dict())
    before = evidence(copy)
    copy.record_outcome(success, residual, share)
    return evidence(copy) - before


@pytest.mark.parametrize('share', [0.1, 0.5, 0.92])
@pytest.mark.parametrize('success', [0.05, 0.5, 0.9])
def test_whatever_befalls_both_the_evidence_is_a_fair_bet(share: float, success: float) -> None:
    guard = doubting()

    def mean(base: float, residual: float) -> float:
        arms = ((False, share, base), (True, 1.0 - share, residual))
        return sum(
            chance * (p if outcome else 1.0 - p) * np.exp(after(guard, outcome, arm, share))
            for arm, chance, p in arms
            for outcome in (True, False)
        )

    assert mean(success, success) == pytest.approx(1.0)
    assert mean(success, success + 0.05) < 1.0
    assert mean(success, 0.0) > 1.0


def test_doubt_raises_the_share_of_base_episodes_until_it_is_settled() -> None:
    guard = Guard(CONFIG)
    for index in range(30):
        guard.record_outcome(index % 2 == 0, residual=False)
    assert guard.base_share == 0.1
    while not guard.in_trial:
        assert guard.record_outcome(False, residual=True) is None
    assert guard.base_share == TRIAL_SHARE
    while guard.in_trial:
        assert guard.record_outcome(True, residual=True) is None
    assert guard.base_share == 0.1


def test_every_trial_halves_the_chance_of_a_false_alarm_that_is_left() -> None:
    guard, chances = doubting(), []
    for _ in range(4):
        chances.append(guard.state_dict()['trial']['chance'])
        while guard.in_trial:
            guard.record_outcome(True, residual=True)
        while not guard.in_trial:
            guard.record_outcome(False, residual=True, base_share=0.1)
    assert chances == pytest.approx([0.05, 0.025, 0.0125, 0.00625], rel=0.1)


def test_a_residual_that_was_switched_off_is_not_blamed_for_it() -> None:
    guard = doubting()
    for index in range(1000):
        assert guard.record_outcome(index % 2 == 0, residual=False) is None
    late = evidence(guard)
    assert guard.record_outcome(True, residual=False) is None
    assert evidence(guard) == late


def test_an_episode_that_was_not_drawn_is_no_evidence() -> None:
    guard = doubting()
    before = evidence(guard)
    for share in (0.0, 1.0):
        guard.record_outcome(True, residual=False, base_share=share)
        guard.record_outcome(False, residual=True, base_share=share)
    assert evidence(guard) == before


def test_nothing_is_concluded_without_base_episodes() -> None:
    guard = Guard(CONFIG)
    for _ in range(MIN_BASE_EPISODES - 1):
        guard.record_outcome(True, residual=False)
    assert guard.base_success is None
    assert all(guard.record_outcome(False, residual=True) is None for _ in range(100))
    assert not guard.in_trial


def test_an_alarm_says_what_was_compared_and_starts_again() -> None:
    guard = doubting()
    alarm = None
    for index in range(200):
        alarm = alarm or guard.record_outcome(index % 2 == 0, residual=index % 10 == 1)
    assert alarm is not None
    assert (alarm.base_success, alarm.successes) == (pytest.approx(0.5, abs=0.05), 0)
    assert re.search('succeeded in 0 of the last .* the base alone in 5.%', str(alarm))
    assert guard.state_dict()['statistic'] < DOUBT


@pytest.mark.parametrize('in_trial', [False, True])
def test_the_guard_survives_a_checkpoint(in_trial: bool) -> None:
    guard, restored = doubting() if in_trial else Guard(CONFIG), Guard(CONFIG)
    rng = np.random.default_rng(0)
    for _ in range(0 if in_trial else 60):
        guard.record_outcome(bool(rng.random() < 0.5), residual=bool(rng.random() < 0.5))
    restored.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    for index in range(300):
        residual = index % 4 == 0
        one = guard.record_outcome(not residual, residual)
        assert one == restored.record_outcome(not residual, residual)
        assert restored.state_dict() == guard.state_dict()


# --- by returns


LAW_NAMES = ['normal', 'Cauchy', 'log-normal, rare low returns', 'two modes, 60% high']


@pytest.mark.parametrize('law', LAW_NAMES)
def test_returns_that_have_fallen_are_found_and_those_that_have_not_are_not(
    script: Any, worlds: Any, law: str
) -> None:
    def found(drop: float) -> list[int | None]:
        rngs = [np.random.default_rng([6, seed]) for seed in range(6)]
        runs = [script.simulate_returns(worlds.LAWS[law], rng, drop) for rng in rngs]
        return [run.residual_episodes for run in runs]

    assert all(delay is not None and delay <= 50 for delay in found(2.0))
    assert [delay for delay in found(0.0) if delay is not None] == []


@pytest.mark.parametrize('world', ['both fall by 2 at episode 200', 'batches of 20, 2 apart'])
def test_nor_are_returns_that_change_for_both(script: Any, worlds: Any, world: str) -> None:
    for law, change, warm_up in worlds.RETURN_WORLDS[world]:
        rng = np.random.default_rng(7)
        for _ in range(3):
            run = script.simulate_returns(worlds.LAWS[law], rng, 0.0, change, warm_up)
            assert run.residual_episodes is None


def graded(values: list[float], config: GuardConfig = CONFIG) -> ReturnGuard:
    guard = ReturnGuard(config)
    for value in values:
        guard.record_return(value, residual=False, base_share=1.0)
    return guard


@pytest.mark.parametrize(('scale', 'shift'), [(1.0, 0.0), (1e-6, 3.0), (1e5, -1e7)])
def test_a_grade_knows_no_unit_and_not_how_far_out_a_return_is(scale: float, shift: float) -> None:
    guard = graded([scale * value + shift for value in range(21)])
    values = [-1e9, 4.0, 7.0, 10.0, 16.0, 1e9]
    grades = [guard.grade(scale * value + shift) for value in values]
    assert grades == pytest.approx([0.0, 0.0, 0.25, 0.5, 1.0, 1.0], abs=1e-3)


@pytest.mark.parametrize('rare', [0.0, 1.0])
def test_where_most_returns_are_the_same_any_lower_one_is_a_loss(rare: float) -> None:
    guard = graded([*[0.5] * 28, rare, rare])
    assert [guard.grade(value) for value in (0.4, 0.5, 0.9)] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize('grade', [0.0, 0.3, 1.0])
@pytest.mark.parametrize('share', [0.1, 0.92])
def test_the_evidence_of_a_grade_is_a_fair_bet_too(grade: float, share: float) -> None:
    guard = doubting()
    bets = [np.exp(after(guard, grade, arm, share)) for arm in (False, True)]
    assert share * bets[0] + (1.0 - share) * bets[1] == pytest.approx(1.0)


def test_an_alarm_by_returns_says_which_and_survives_a_checkpoint() -> None:
    rng = np.random.default_rng(2)
    guard, restored = graded(rng.normal(size=60).tolist()), ReturnGuard(CONFIG)
    restored.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    alarm = None
    while alarm is None:
        residual, value = rng.random() > guard.base_share, rng.normal()
        episode = (float(value - 9.0 * residual), bool(residual), guard.base_share)
        alarm = guard.record_return(*episode)
        assert restored.record_return(*episode) == alarm
        assert restored.state_dict() == guard.state_dict()
    assert re.fullmatch(
        r'base \+ residual had a mean return of -[89]\S+ \(grade 0.00\) in the last \d+ episodes, '
        r'the base alone -?0\S+ \(0.[45]\d\) in its own',
        str(alarm),
    )
