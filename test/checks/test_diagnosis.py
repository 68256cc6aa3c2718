# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The verdict is right for base policies of known kind, and says so where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from rich.console import Console
from robot_builders import make_action_spec, make_metadata

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.checks.diagnosis import (
    Diagnosis,
    DiagnosisOptions,
    Verdict,
    diagnose,
    run_diagnosis,
    verdict_of,
)
from residual_rl_ros.config.run import load_run
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation import noises as noises_module
from residual_rl_ros.evaluation.noises import NOISE_STRIDE, NoisePlayer, attempt

STARTS, NOISES, SCALE = 30, 8, 0.1


class Doors(gymnasium.Env):
    """One of two doors is open; the first action goes through one, the second does not matter."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float64)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.hard = self.np_random.random() < 0.5
        self.steps = 0
        return np.array([1.0 if self.hard else -1.0, 0.0, 0.0]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        success = self.steps == 2 and bool(action[0] > 0.0)
        return np.zeros(3), 0.0, self.steps == 2, False, {'success': success}


class Fake:
    """A base policy whose first action is a function of (hard start, noise); the second is noise.

    Args:
        through: action of a start that is hard or not, for a standard normal number.
        stochastic: whether it has a noise input.
    """

    def __init__(self, through: Callable[[bool, float], float], stochastic: bool = True) -> None:
        self.metadata = make_metadata(n_obs_steps=1)
        self.stochastic = stochastic
        self.noise_shape = (self.metadata.horizon, len(self.metadata.action_names))
        self.through = through

    def plan(
        self, window: np.ndarray, noises: np.ndarray | None = None, context: Any = None
    ) -> np.ndarray:
        chunks = []
        for noise in [np.zeros(self.noise_shape)] if noises is None else noises:
            first = self.through(bool(window[-1, 0] > 0.0), float(noise[0, 0]))
            chunks.append(np.column_stack([np.full(len(noise), first), 0.01 * noise[:, 1]]))
        return np.concatenate(chunks, axis=1).astype(np.float32)


def controller_of(policy: Fake, proposals: int) -> ResidualController:
    config = ControllerConfig(2, (SCALE,), proposals=proposals)
    return config.build(policy, make_action_spec())


def examined(policy: Fake) -> Diagnosis:
    """Return what the episodes of a policy say."""
    count = NOISES if policy.stochastic else 1
    controllers = [controller_of(policy, count), controller_of(policy, 1)]
    env = Doors()
    played = [
        [attempt(env, controllers[noise > 0], start, noise) for noise in range(count)]
        for start in range(STARTS)
    ]
    outcomes = np.array([[each.success for each in row] for row in played])
    variances = np.array([row[0].variance for row in played]) if policy.stochastic else None
    bound, names = controllers[0].bound, policy.metadata.action_names
    for controller in controllers:
        controller.queue.close()
    return diagnose(outcomes, variances, names, bound, np.random.default_rng(0))


def by_start(hard: bool, _: float) -> float:
    return -1.0 if hard else 1.0


def by_noise(_: bool, noise: float) -> float:
    return float(np.sign(noise))


def by_both(hard: bool, noise: float) -> float:
    return -1.0 if hard else float(np.sign(noise))


def test_a_deterministic_base_leaves_everything_to_a_residual() -> None:
    found = examined(Fake(by_start, stochastic=False))
    assert found.verdict is Verdict.RESIDUAL
    assert found.study.noises == 1
    assert 'no noise input' in found.reason
    assert not found.spread


def test_noise_that_decides_nothing_leaves_everything_to_a_residual() -> None:
    found = examined(Fake(by_start))
    assert found.verdict is Verdict.RESIDUAL
    assert found.agreement == 1.0
    assert found.study.start_share is not None
    assert found.study.start_share.point == pytest.approx(1.0)


def test_a_base_whose_noise_decides_alone_is_to_be_chosen_from() -> None:
    found = examined(Fake(by_noise))
    assert found.verdict is Verdict.CHOOSE
    assert found.study.gain.point > 0.4
    assert found.study.start_share is not None
    assert found.study.start_share.point < 0.1


def test_a_base_that_fails_some_starts_always_and_others_by_chance_needs_both() -> None:
    found = examined(Fake(by_both))
    assert found.verdict is Verdict.BOTH
    assert 0.3 < found.study.pass_at[8].point < 0.7
    assert found.study.start_share is not None
    assert 0.1 < found.study.start_share.low < found.study.start_share.high < 0.6


def test_a_base_that_always_succeeds_has_nothing_to_gain() -> None:
    found = examined(Fake(lambda hard, noise: 1.0))
    assert found.verdict is Verdict.NOTHING
    assert 'little is missing' in found.reason
    assert any('all outcomes are the same' in line for line in found.lines())


@pytest.mark.parametrize('stochastic', [False, True])
def test_a_base_that_never_succeeds_shows_nothing_within_reach(stochastic: bool) -> None:
    found = examined(Fake(lambda hard, noise: -1.0, stochastic))
    assert found.verdict is Verdict.NOTHING
    assert 'nothing to choose' in found.reason
    assert 'within reach' in found.reason


def test_the_spread_is_in_units_of_the_residual_bound() -> None:
    found = examined(Fake(by_noise))
    through, other = found.spread
    assert through.bound == pytest.approx(SCALE * 1.0)
    assert through.in_bounds is not None
    assert through.in_bounds.point == pytest.approx(10.0, rel=0.15)  # Signs: 1 over 0.1.
    assert other.std == pytest.approx(0.01, rel=0.15)
    assert 'may reach what choosing does' not in found.reason


def test_a_dimension_without_residual_is_said_to_have_none() -> None:
    bound = replace(controller_of(Fake(by_noise), 1).bound, values=np.array([0.1, 0.0]))
    outcomes = np.array([[True, False], [False, True]])
    found = diagnose(outcomes, np.full((2, 2), 4e-4), 'ab', bound, np.random.default_rng(0))
    assert found.spread[1].in_bounds is None
    assert 'no residual there' in str(found.spread[1])
    assert found.summary()['spread']['a']['in_bounds']['value'] == pytest.approx(0.2)


@pytest.mark.parametrize(('starts', 'few'), [(4, True), (60, False)])
def test_a_verdict_of_few_starts_is_said_to_say_little(starts: int, few: bool) -> None:
    bound = controller_of(Fake(by_noise), 1).bound
    outcomes = np.ones((starts, 2), dtype=bool)
    found = diagnose(outcomes, None, 'ab', bound, np.random.default_rng(0))
    (line,) = (line for line in found.lines() if line.startswith('verdict'))
    assert (f'says little: of {starts} starts' in line) is few


def test_measuring_changes_nothing_of_an_episode_and_each_noise_is_another() -> None:
    policy, env = Fake(lambda hard, noise: noise), Doors()
    plain, measuring = controller_of(policy, 1), controller_of(policy, 8)

    def command(controller: ResidualController, noise: int) -> list[float]:
        made: list[float] = []
        queue, take = controller.queue, controller.queue.take
        queue.take = lambda timeout: made.extend((base := take(timeout)).actions.flat) or base
        attempt(env, controller, 5, noise)
        queue.take = take
        return made

    first = command(plain, 0)
    assert first == command(measuring, 0) == command(plain, 0)
    others = [command(plain, noise) for noise in (1, 2)]
    assert len({tuple(each) for each in [first, *others]}) == 3
    plain.queue.close()
    measuring.queue.close()


@pytest.mark.parametrize(
    ('first', 'best', 'verdict'),
    [
        (0.605, 0.64, Verdict.RESIDUAL),
        (0.39, 0.89, Verdict.BOTH),
        (0.5, 0.95, Verdict.CHOOSE),
        (0.90, 0.98, Verdict.CHOOSE),
        (0.90, 0.92, Verdict.RESIDUAL),
        (0.90, 0.95, Verdict.BOTH),
        (0.60, 0.70, Verdict.BOTH),
        (0.96, 1.0, Verdict.NOTHING),
        (0.0, 0.0, Verdict.NOTHING),
        (0.01, 0.08, Verdict.RESIDUAL),
    ],
)
def test_the_verdict_follows_the_rule(first: float, best: float, verdict: Verdict) -> None:
    assert verdict_of(first, best) is verdict


def test_few_starts_say_that_the_verdict_is_not_sure() -> None:
    outcomes = np.zeros((6, 2), dtype=bool)
    outcomes[:2] = True
    outcomes[2, 0] = True
    bound = controller_of(Fake(by_noise), 1).bound
    found = diagnose(outcomes, np.ones((6, 2)), 'ab', bound, np.random.default_rng(0))
    assert 0.2 < found.agreement < 0.9


def options(**changes: int) -> DiagnosisOptions:
    values = {'starts': 3, 'noises': 2, 'first_seed': 30_000, 'seed': 0, 'workers': 1}
    return DiagnosisOptions(**{**values, **changes})


def test_starts_that_would_have_the_noise_of_others_are_refused() -> None:
    with pytest.raises(ConfigError, match='first_seed is 999999998'):
        options(first_seed=NOISE_STRIDE - 2)


def test_a_task_without_success_is_refused_before_anything_is_played() -> None:
    config = load_run('push_to_goal').with_success('return')
    with pytest.raises(ConfigError, match='push_to_goal tells no success'):
        run_diagnosis(config, options(), Console(quiet=True))


def test_a_base_that_draws_its_noise_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run('push_to_goal').resolve()
    run.policy.random_operators = ('RandomNormalLike',)
    monkeypatch.setattr(type(run.config), 'resolve', lambda config: run)
    with pytest.raises(ConfigError, match='draws random numbers in its graph'):
        run_diagnosis(run.config, options(), Console(quiet=True))


def test_the_duration_and_the_seeds_are_said_before_the_episodes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = tmp_path / 'said'
    during: list[str] = []

    def here(build: Any, play: Any, jobs: Any, workers: int) -> Any:
        file.flush()
        during.append(said.read_text())
        player = build()
        yield from [play(player, job) for job in jobs]
        player.close()

    monkeypatch.setattr(noises_module, 'in_processes', here)
    config = load_run('push_to_goal_operators')
    with said.open('w') as file:
        console = Console(file=file, width=300)
        results = [run_diagnosis(config, options(), console) for _ in range(2)]
    assert 'push_to_goal: 3 starts x 2 noises, 6 episodes, about 0:' in during[0]
    assert 'environment 30000 to 30002' in during[0]
    assert results[0].summary() == results[1].summary()
    assert len(results[0].spread) == 7


def test_a_base_that_plays_zero_noise_draws_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run('push_to_goal_operators').resolve()
    run.policy.metadata = replace(run.policy.metadata, noise_default='zero')
    player, plan = NoisePlayer(run), OnnxBasePolicy.plan
    first: list[np.ndarray] = []

    def watched(policy: OnnxBasePolicy, window: Any, noises: Any, context: Any) -> Any:
        first.append(noises[0])
        return plan(policy, window, noises, context)

    monkeypatch.setattr(OnnxBasePolicy, 'plan', watched)
    played = [player.play((30_000, 0))]
    assert not np.any(first)
    first.clear()
    played.append(player.play((30_000, 1)))
    player.close()
    assert np.std(first) == pytest.approx(1.0, abs=0.2)
    assert [each.variance is None for each in played] == [False, True]


def test_zero_noise_is_no_draw_of_the_spread() -> None:
    policy = Fake(lambda hard, noise: noise)
    policy.metadata = replace(policy.metadata, noise_default='zero')
    controller, variances = controller_of(policy, 8), []
    for start in range(40):
        found = attempt(Doors(), controller, start, 0, first_is_zero=True).variance
        assert found is not None
        variances.append(found[0])
    controller.queue.close()
    assert np.mean(variances) == pytest.approx(1.0, abs=0.2)


def test_a_base_that_does_what_zero_noise_says_is_judged_by_that() -> None:
    bound, generator = controller_of(Fake(by_noise), 1).bound, np.random.default_rng(0)
    # Zero noise always fails and each drawn one always succeeds, and the other way round.
    drawn = np.ones((20, 8), dtype=bool)
    drawn[:, 0] = False

    def found(outcomes: np.ndarray, zero: bool = True) -> Diagnosis:
        return diagnose(outcomes, np.ones((20, 2)), 'ab', bound, generator, first_is_zero=zero)

    choose, nothing = found(drawn), found(~drawn)
    assert choose.verdict is Verdict.CHOOSE
    assert [each.point for each in choose.study.pass_at.values()] == [0.0, 1.0, 1.0, 1.0]
    assert nothing.verdict is Verdict.NOTHING
    assert 'succeeds in 100.0% of 20 episodes' in nothing.reason
    # A base that draws would have missed an eighth, or seven.
    assert found(drawn, zero=False).study.pass_at[1].point == pytest.approx(7 / 8)
    assert found(~drawn, zero=False).verdict is not Verdict.NOTHING


def test_the_success_with_zero_noise_and_with_drawn_noise_is_told() -> None:
    outcomes = np.zeros((4, 3), dtype=bool)
    outcomes[:3, 0] = outcomes[3, 1] = True
    bound, generator = controller_of(Fake(by_noise), 1).bound, np.random.default_rng(0)
    found = diagnose(outcomes, np.ones((4, 2)), 'ab', bound, generator, first_is_zero=True)
    assert found.summary()['zero_noise'] == 0.75
    assert found.summary()['drawn_noise'] == 1 / 8
    # The fourth start succeeds with one of two drawn noises, of which k = 2 has one.
    assert found.study.pass_at[2].point == pytest.approx(0.75 + 0.25 / 2)
    assert any('of zero and k - 1 drawn noises; a drawn one alone: 12%' in x for x in found.lines())
    plain = diagnose(outcomes, np.ones((4, 2)), 'ab', bound, generator)
    assert plain.summary()['zero_noise'] is plain.summary()['drawn_noise'] is None
