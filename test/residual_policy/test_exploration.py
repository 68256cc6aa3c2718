# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the learner asks of the robot must be what the robot does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from actor_builders import make_actor
from base_policy_builders import LinearPolicy
from robot_builders import make_action_spec

from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.transitions.transition import Source, Success, Transition

GOING = StepFeedback(0.0, False, False, Success.UNLABELLED)
K = 2


def build(exploration: Exploration, explore: bool = True, gain: float = 3.0) -> ResidualController:
    controller = ControllerConfig(decision_steps=K, residual_scale=(0.1,), explore=explore).build(
        LinearPolicy(), make_action_spec()
    )
    actor = make_actor(controller.layout, gain=gain)
    controller.mailbox.submit(encode_weights(actor.to_numpy(), WeightsHeader(1, 0, exploration)))
    return controller


def play(controller: ResidualController, episodes: int, decisions: int = 4) -> list[Transition]:
    """Return the transitions of some episodes of random observations."""
    rng = np.random.default_rng(0)
    transitions = []
    for episode in range(episodes):
        controller.begin_episode(episode, rng.standard_normal(3), stamp=0.0)
        for step in range(K * decisions):
            controller.command()
            transition = controller.step(rng.standard_normal(3), float(step), GOING)
            transitions += [transition] if transition else []
    controller.queue.close()
    return transitions


def residuals(transitions: list[Transition]) -> np.ndarray:
    return np.array([transition.residual_action for transition in transitions])


def offsets(transitions: list[Transition]) -> np.ndarray:
    return np.array([t.executed_action - t.base_action for t in transitions])


def test_a_probability_is_the_share_of_decisions_with_a_residual() -> None:
    transitions = play(build(Exploration(residual_probability=0.3)), episodes=100)
    acts = residuals(transitions).any(axis=1)
    assert 0.2 < acts.mean() < 0.4
    assert not offsets(transitions)[~acts].any()


def test_an_episode_without_a_residual_by_chance_is_no_base_only_episode() -> None:
    """Which episodes are the guard's must not depend on how long they are."""
    exploration = Exploration(residual_probability=0.3, base_only_share=0.2)
    transitions = play(build(exploration), episodes=200, decisions=2)
    episodes = np.array([transition.episode for transition in transitions])
    acts = residuals(transitions).any(axis=1)
    alone = {episode for episode in range(200) if not acts[episodes == episode].any()}
    base_only = {t.episode for t in transitions if t.source is Source.BASE}
    assert 0.14 < len(base_only) / 200 < 0.26
    assert base_only < alone


def test_deployment_does_not_gamble() -> None:
    exploration = Exploration(0.3, uniform_noise=1.0, wide_noise_share=1.0, wide_noise_scale=5.0)
    first, second = (play(build(exploration, explore=False), 5) for _ in range(2))
    assert {transition.source for transition in first} == {Source.RESIDUAL}
    np.testing.assert_array_equal(residuals(first), residuals(second))


def test_uniform_noise_fills_its_half_width_during_warm_up() -> None:
    transitions = play(build(Exploration(0.0, uniform_noise=0.5)), episodes=100)
    found = residuals(transitions)
    assert np.abs(found).max() <= 0.5
    assert np.abs(found).max() > 0.45
    assert abs(found.mean()) < 0.05


@pytest.mark.parametrize('ratio', [0.25, 1.0])
def test_the_bound_ratio_scales_what_is_executed(ratio: float) -> None:
    transitions = play(build(Exploration(bound_scale=ratio)), episodes=20)
    bound = 0.1 * np.tile([1.0, 0.5], K)
    np.testing.assert_allclose(offsets(transitions), ratio * bound * residuals(transitions))


def test_only_episodes_that_do_not_explore_widely_are_careful() -> None:
    exploration = Exploration(bound_scale=0.25, wide_noise_share=0.5, wide_noise_scale=4.0)
    transitions = play(build(exploration), episodes=100)
    bound = 0.1 * np.tile([1.0, 0.5], K)
    found, full = offsets(transitions), bound * residuals(transitions)
    careful = np.isclose(found, 0.25 * full).all(axis=1)
    wide = np.isclose(found, full).all(axis=1)
    assert (careful ^ wide).all()
    episodes = np.array([transition.episode for transition in transitions])
    shares = [careful[episodes == episode].mean() for episode in range(100)]
    assert set(shares) == {0.0, 1.0}
    assert 30 < sum(shares) < 70


def test_a_bound_of_zero_is_the_base_alone() -> None:
    transitions = play(build(Exploration(bound_scale=0.0)), episodes=5)
    assert {transition.source for transition in transitions} == {Source.BASE}
    assert not residuals(transitions).any()


def test_base_only_episodes_are_whole_episodes_of_the_stated_share() -> None:
    transitions = play(build(Exploration(base_only_share=0.2)), episodes=300)
    by_episode: dict[int, set[Source]] = {}
    for transition in transitions:
        by_episode.setdefault(transition.episode, set()).add(transition.source)
    assert all(len(sources) == 1 for sources in by_episode.values())
    share = sum(sources == {Source.BASE} for sources in by_episode.values()) / len(by_episode)
    assert 0.14 < share < 0.26


def test_wide_episodes_explore_more_and_leave_the_others_as_they_are() -> None:
    plain = play(build(Exploration(), gain=0.1), episodes=200)
    wide_exploration = Exploration(wide_noise_share=0.5, wide_noise_scale=8.0)
    mixed = play(build(wide_exploration, gain=0.1), episodes=200)
    same = (residuals(plain) == residuals(mixed)).all(axis=1)
    episodes = np.array([transition.episode for transition in plain])
    unchanged = {episode for episode in range(200) if same[episodes == episode].all()}
    assert 70 < len(unchanged) < 130
    wide = ~np.isin(episodes, list(unchanged))
    assert residuals(mixed)[wide].std() > 1.2 * residuals(plain)[wide].std()


def test_in_some_episodes_a_random_residual_is_held_and_no_actor_acts() -> None:
    exploration = Exploration(
        bound_scale=0.5, random_share=0.3, random_decisions=3, base_only_share=0.2
    )
    transitions = play(build(exploration, gain=0.0), episodes=300, decisions=7)
    by_episode: dict[int, list[Transition]] = {}
    for transition in transitions:
        by_episode.setdefault(transition.episode, []).append(transition)
    kinds = [{step.source for step in steps} for steps in by_episode.values()]
    assert all(len(kind) == 1 for kind in kinds)
    random = [steps for steps in by_episode.values() if steps[0].source is Source.RANDOM]
    assert 0.22 < len(random) / 300 < 0.38
    # The guard has its share of the other episodes, as it is told.
    base_only = sum(kind == {Source.BASE} for kind in kinds)
    assert 0.13 < base_only / (300 - len(random)) < 0.27
    held = np.array([residuals(steps) for steps in random])
    assert np.abs(held).max() > 0.98
    assert abs(held.mean()) < 0.05
    for first in (0, 3, 6):
        block = held[:, first : first + 3]
        np.testing.assert_array_equal(block, np.broadcast_to(block[:, :1], block.shape))
    assert (held[:, 2] != held[:, 3]).any(axis=1).all()
    bound = 0.5 * 0.1 * np.tile([1.0, 0.5], K)
    np.testing.assert_allclose(
        offsets([t for steps in random for t in steps]), bound * held.reshape(-1, held.shape[-1])
    )


@pytest.mark.parametrize('drawn', [np.full(2 * K, np.nan), np.full(2 * K, 2.0), np.zeros(3)])
def test_a_random_residual_that_is_none_is_left_out_and_counted(drawn: np.ndarray) -> None:
    controller = build(Exploration(random_share=1.0))
    controller.mailbox.begin_decision()
    actor: Any = controller.mailbox.actor
    actor.uniform = lambda half_width, rng: drawn
    transitions = play(controller, episodes=2)
    assert {transition.source for transition in transitions} == {Source.BASE}
    assert not offsets(transitions).any()
    assert controller.residual.not_finite >= len(transitions)


def test_held_residuals_are_of_training_alone() -> None:
    exploration = Exploration(random_share=1.0, random_decisions=3)
    transitions = play(build(exploration, explore=False), episodes=5)
    assert {transition.source for transition in transitions} == {Source.RESIDUAL}


@pytest.mark.parametrize(
    'values',
    [
        {'random_share': 1.5},
        {'random_decisions': 0},
        {'random_decisions': 10**400},
        {'random_decisions': 2.0},
        {'residual_probability': 1.5},
        {'bound_scale': -0.1},
        {'full_bound_cost': -0.1},
        {'full_bound_cost': float('inf')},
        {'uniform_noise': float('nan')},
        {'wide_noise_scale': 0.5},
        {'base_only_share': 1},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    (name,) = values
    with pytest.raises(ValueError, match=name):
        Exploration(**values)
