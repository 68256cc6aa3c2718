# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Priors from nothing: a run, its export to ONNX, its card, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from benchmark_scripts import load_script
from rich.console import Console

from residual_rl_ros.base_policy.distribution import BaseDistribution
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.actor_file import read_actor
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.training.train_prior import PriorOptions, train_prior

SMALL = {'hidden_sizes': [8], 'batch_size': 8, 'warmup_transitions': 10}
QUIET = Console(quiet=True)


def options(folder: Path, env: str, preset: str, **changes) -> PriorOptions:
    out, run = folder / f'{env}.onnx', folder / env
    made = PriorOptions(env, preset, 80, 0, out, run, SMALL, episodes=1)
    return replace(made, **changes)


@pytest.fixture(scope='module')
def priors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('priors')
    add_on = ('cart_pole_centre',)
    waits = {**SMALL, 'policy_warmup_transitions': 10}
    train_prior(options(folder, 'cart_pole', 'soft_q', overrides=waits, add_on=add_on), QUIET)
    # An episode of a car that does nothing lasts 999 steps.
    train_prior(options(folder, 'mountain_car', 'sac_prior', overrides=SMALL), QUIET)
    return folder


@pytest.mark.parametrize(
    ('name', 'kind', 'outputs'),
    [
        ('cart_pole', Prior.CATEGORICAL, ['logits']),
        ('mountain_car', Prior.SQUASHED_GAUSSIAN, ['mean', 'log_std']),
    ],
)
def test_an_exported_prior_tells_what_the_learned_policy_does(priors, name, kind, outputs):
    path = priors / f'{name}.onnx'
    base = OnnxBasePolicy(path)
    assert base.metadata.prior is kind
    _, policy = decode_weights(read_actor(priors / name / 'run'))
    observation = np.random.default_rng(0).uniform(
        -0.05, 0.05, policy.architecture.layout.observation_size
    )
    session = onnxruntime.InferenceSession(str(path))
    window = observation.astype(np.float32)[None, None]
    action, *told = (
        values.ravel() for values in session.run(['action', *outputs], {'observation': window})
    )
    nothing = np.eye(2)[0] if name == 'cart_pole' else np.zeros(1)
    alone = BaseDistribution(np.zeros(0), np.zeros((0, len(nothing))))
    np.testing.assert_allclose(
        action, nothing + policy.decide(observation, nothing, None, distribution=alone), atol=1e-6
    )
    if kind is Prior.CATEGORICAL:
        np.testing.assert_allclose(told[0], policy.logits(observation), rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_allclose(told, policy.moments(observation), rtol=1e-5, atol=1e-6)


def test_a_prior_says_at_which_temperature_it_was_trained(priors, tmp_path):
    assert OnnxBasePolicy(priors / 'cart_pole.onnx').metadata.temperature == 1.0
    tuned = {**SMALL, 'tune_temperature': True, 'policy_warmup_transitions': 0}
    train_prior(options(tmp_path, 'mountain_car', 'sac_prior', overrides=tuned), QUIET)
    found = OnnxBasePolicy(tmp_path / 'mountain_car.onnx').metadata.temperature
    assert found is not None
    assert found != 0.1
    assert found == pytest.approx(0.1, rel=0.5)  # It has begun to move.
    assert f'{found:g}' in (tmp_path / 'mountain_car.md').read_text()


def test_a_card_says_how_the_prior_was_made_and_what_it_returns(priors):
    card = (priors / 'cart_pole.md').read_text()
    for text in ('--env cart_pole --preset soft_q --steps 80', 'add-on', 'sha256', 'basic return'):
        assert text in card


def test_a_preset_that_trains_no_prior_is_refused(tmp_path):
    for preset, changes, cause in (
        ('best_of_n', {}, 'tells how likely its actions are; use soft_q'),
        ('residual_soft_q', {}, "reward is 'add_on', expected 'basic'"),
        ('soft_q', {'prior_weight': 0.5}, 'prior_weight is 0.5, expected 0.0'),
    ):
        with pytest.raises(ConfigError, match=cause):
            train_prior(options(tmp_path, 'cart_pole', preset, overrides=changes), QUIET)
    with pytest.raises(ConfigError, match='use residual_soft_q'):
        train_prior(options(tmp_path / 'a', 'cart_pole', 'sac_prior', overrides={}), QUIET)


def test_the_benchmark_customises_a_prior_and_puts_the_returns_into_a_table(
    priors, tmp_path, monkeypatch, capsys
):
    script = load_script('customisation', monkeypatch)
    script.run(tmp_path, 'cart_pole', 'full', priors / 'cart_pole.onnx', 1, 60, 1)
    script.table(tmp_path)
    *_, line = capsys.readouterr().out.splitlines()
    assert line.startswith('| cart_pole | full | 1 | ')
    numbers = [float(cell.split()[0]) for cell in line.split(' | ')[3:6]]
    assert numbers[2] == pytest.approx(numbers[0] + numbers[1], rel=1e-3)
    learner = script.make_config(
        'cart_pole', 'full', priors / 'cart_pole.onnx', 60, tmp_path / 'again'
    ).learner_config()
    assert (learner.rule.prior_weight, learner.rule.reward) == (0.0, 'total')
    assert [each['name'] for each in learner.rule.add_on] == ['cart_pole_centre']
