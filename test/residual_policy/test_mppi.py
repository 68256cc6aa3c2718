# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a plan is worth, and what is executed of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_builders import KEEP_OUT, known_planner
from transition_builders import make_layout

from residual_rl_ros.base_policy.distribution import BaseDistribution
from residual_rl_ros.errors import ConfigError, WeightsError
from residual_rl_ros.residual_policy.exploration import ExplorationSample
from residual_rl_ros.residual_policy.mppi import (
    MppiArchitecture,
    MppiConfig,
    nominal,
    perturb,
    scores,
    weights,
)
from residual_rl_ros.residual_policy.weights import WeightsHeader, decode_weights, encode_weights
from residual_rl_ros.rewards.composition import AddOns
from residual_rl_ros.robot.prior import Prior

STATE = np.array([0.2, -0.1, 0.0])
BASE = np.array([0.1, 0.05, -0.2, 0.1])


def residual(planner: Any, seed: int = 0, **options: Any) -> np.ndarray:
    return planner.decide(STATE, BASE, np.random.default_rng(seed), **options)


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_weights_are_the_softmax_of_score_over_temperature_less_the_control_term(
    seed: int, temperature: float
) -> None:
    rng = np.random.default_rng(seed)
    values, control = rng.normal(size=(2, 9))
    expected = scipy.special.softmax(values / temperature - control)
    np.testing.assert_allclose(weights(values, control, temperature), expected, rtol=1e-9)


def test_a_low_temperature_takes_the_best_sequence_and_a_high_one_their_mean() -> None:
    values, nothing = np.array([0.0, 3.0, 1.0]), np.zeros(3)
    np.testing.assert_allclose(weights(values, nothing, 1e-6), [0.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(weights(values, nothing, 1e9), np.full(3, 1 / 3), rtol=1e-6)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0))
def test_sequences_stay_within_reach_of_the_base_and_in_the_trained_range(
    seed: int, noise: float
) -> None:
    model = known_planner().model
    rng = np.random.default_rng(seed)
    actions = (model.half_range * rng.uniform(-1.0, 1.0, (3, 4))).astype(np.float32)
    reach = rng.uniform(0.0, 0.5, 4).astype(np.float32)
    reach[1] = 0.0
    sequences = perturb(model, actions, reach, MppiConfig(samples=16, noise=noise), rng)
    np.testing.assert_array_equal(sequences[0], actions)
    assert (np.abs(sequences - actions) <= reach + 1e-6).all()
    assert (np.abs(sequences) <= model.half_range + 1e-6).all()
    assert np.ptp(sequences[:, :, 0]) > 0.0


@pytest.mark.parametrize('density', [Prior.GAUSSIAN, Prior.SQUASHED_GAUSSIAN])
def test_a_score_sums_add_on_and_log_prior_along_the_model(density: Prior) -> None:
    planner = known_planner(density=density, discount=0.8, prior_weight=0.5)
    model, config = planner.model, planner.architecture.config
    rng = np.random.default_rng(3)
    sequences = (model.half_range * rng.uniform(-0.9, 0.9, (5, 3, 4))).astype(np.float32)
    mean = np.float32(rng.normal(size=4) * 0.1)
    log_std = np.float32(rng.normal(size=4) - 1.0)
    reward = planner.architecture.reward.of_decision
    state = STATE.astype(np.float32)
    found = scores(model, reward, state, np.concatenate([mean, log_std]), sequences, config)
    own_mean, own_log_std = (each[0] for each in model.prior(state[None]))
    for sequence, score in zip(sequences.astype(np.float64), found, strict=True):
        z, total = 0.0, 0.0
        for step, action in enumerate(sequence):
            z += action[0]
            total += 0.8**step * -np.clip(1.0 - max(-z, 0.0), 0.0, 1.0) * 2  # Two control steps.
            told = (mean, log_std) if step == 0 else (own_mean, own_log_std)
            ratio = action / model.half_range
            if density is Prior.SQUASHED_GAUSSIAN:
                log_pi = scipy.stats.norm.logpdf(np.arctanh(ratio), told[0], np.exp(told[1]))
                log_pi -= np.log(model.half_range * (1.0 - ratio**2))
            else:
                log_pi = scipy.stats.norm.logpdf(action, told[0], np.exp(told[1]))
            total += 0.8**step * 0.5 * log_pi.sum()
        assert score == pytest.approx(total, rel=1e-4, abs=1e-4)


def test_the_nominal_sequence_is_the_base_then_the_prior_along_the_model() -> None:
    model = known_planner(density=Prior.SQUASHED_GAUSSIAN).model
    model._layers['prior'][-1][0][2] = 1.0  # Mean and log_std now grow with the last observation.
    actions = nominal(model, np.float32(STATE), np.float32(BASE), 3)
    np.testing.assert_array_equal(actions[0], np.float32(BASE))
    z = BASE[0]
    for action in actions[1:]:
        np.testing.assert_allclose(action, model.half_range * np.tanh(z), rtol=1e-5)
        z += action[0]


def test_a_plan_follows_the_add_on() -> None:
    away = residual(known_planner(temperature=1e-3))
    assert away[0] < -0.2
    nearer = residual(known_planner(temperature=1e-3, add_on=({**KEEP_OUT, 'weight': -1.0},)))
    assert nearer[0] > away[0] + 0.2


def test_no_add_on_and_a_weight_of_zero_are_the_base_exactly() -> None:
    for planner in (known_planner(add_on=()), known_planner(add_on_weight=0.0)):
        assert not residual(planner).any()
        assert not planner.decide_ahead(STATE, BASE, np.random.default_rng(0)).any()


def test_without_prior_weight_the_prior_is_not_looked_at() -> None:
    planner = known_planner(prior_weight=0.0)
    told = BaseDistribution(np.full(8, np.nan), np.zeros((0, 4)))
    np.testing.assert_array_equal(residual(planner, distribution=told), residual(planner))


def test_a_large_prior_weight_stays_with_what_the_base_would_do() -> None:
    told = BaseDistribution(np.concatenate([BASE, np.full(4, -3.0)]), np.zeros((0, 4)))
    greedy, careful = (
        residual(known_planner(prior_weight=weight, temperature=1e-2), distribution=told)
        for weight in (0.0, 10.0)
    )
    assert np.abs(careful).max() < 0.3 * np.abs(greedy).max()


def test_a_plan_uses_no_more_of_the_bound_than_is_in_use() -> None:
    planner = known_planner(temperature=1e-4, noise=1.0)
    full = residual(planner, sample=ExplorationSample(1.0, 1.0))
    part = residual(planner, sample=ExplorationSample(1.0, 0.1))
    assert np.abs(part).max() <= 1.0
    assert 0.1 * abs(part[0]) < abs(full[0])
    assert not residual(planner, sample=ExplorationSample(1.0, 0.0)).any()


def test_the_same_random_numbers_give_the_same_plan() -> None:
    planner = known_planner()
    np.testing.assert_array_equal(residual(planner, 5), residual(planner, 5))
    assert (residual(planner, 5) != residual(planner, 6)).any()
    np.testing.assert_array_equal(
        planner.decide(STATE, BASE, None), planner.decide(STATE, BASE, None)
    )


def test_a_plan_ahead_is_that_of_the_observation_that_a_decision_leads_to() -> None:
    planner = known_planner()
    ahead = planner.decide_ahead(STATE, BASE, np.random.default_rng(1))
    after = STATE + np.array([0.0, 0.0, BASE[0]])
    expected_base = planner.model.prior(np.float32(after)[None])[0][0]
    then = planner.decide(after, expected_base, np.random.default_rng(1))
    np.testing.assert_allclose(ahead, then, atol=1e-6)


def test_a_planner_travels_in_a_weight_message() -> None:
    layout = make_layout(residual_bound=(1.0, 0.5), prior=Prior.SQUASHED_GAUSSIAN)
    planner = known_planner(layout, Prior.SQUASHED_GAUSSIAN, prior_weight=0.1)
    planner = planner.customised(held_out=(0.1, 0.2, 0.3))
    _, read = decode_weights(encode_weights(planner, WeightsHeader(1, 0)), layout)
    assert read.architecture == planner.architecture
    np.testing.assert_array_equal(residual(read), residual(planner))
    with pytest.raises(WeightsError, match=r'observation_names\[2\]'):
        decode_weights(
            encode_weights(planner, WeightsHeader(1, 0)),
            replace(layout, observation_names=('a', 'b', 'c')),
        )


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'config': {'temperature': 0.0}}, 'temperature is 0.0'),
        ({'config': {'prior_weight': -1.0}}, 'prior_weight is -1.0'),
        ({'config': {'prior_weight': float('nan')}}, 'prior_weight is nan'),
        ({'config': {'horizon': 10**9}}, 'times horizon 1000000000'),
        ({'config': {'samples': True}}, 'samples is True'),
        ({'sizes': {'density': 'none'}, 'config': {'prior_weight': 0.1}}, 'expected 0 without'),
        ({'sizes': {'density': 'categorical'}}, 'categorical'),
        ({'sizes': {'dynamics': [0]}}, 'dynamics sizes'),
        ({'add_on_weight': -1.0}, 'add_on_weight is -1.0'),
        ({'held_out': [0.1]}, 'held_out has 1 values'),
        ({'add_on': [{'name': 'os:system'}]}, "add-on 'os:system' names code"),
        ({'add_on': [{**KEEP_OUT, 'point': ['tool.y']}]}, "no observation 'tool.y'"),
    ],
)
def test_a_message_with_an_impossible_planner_is_refused(
    change: dict[str, Any], reason: str
) -> None:
    values = json.loads(json.dumps(known_planner().architecture.to_mapping()))
    for key, value in change.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    with pytest.raises((ValueError, ConfigError), match=reason):
        MppiArchitecture.from_mapping(values)


def test_a_new_add_on_with_names_that_the_robot_has_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has no observation 'tool\.zz'"):
        known_planner().customised(add_on=AddOns.of([{**KEEP_OUT, 'point': ['tool.zz']}]))
