# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Critics that choose must say on the robot what they say in the learner, and may only say no."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from actor_builders import assert_same_actor
from base_policy_builders import LinearPolicy
from learner_builders import small_config
from robot_builders import make_action_spec
from transition_builders import make_layout, random_transitions

from residual_rl_ros.algorithms.actor_critic import ActorCritic
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.errors import WeightsError
from residual_rl_ros.residual_policy.architecture import CRITIC_NORMALIZATIONS
from residual_rl_ros.residual_policy.candidate_selection import CRITIC, BestOfNActor
from residual_rl_ros.residual_policy.exploration import Exploration, ExplorationSample
from residual_rl_ros.residual_policy.weights import WeightsHeader, decode_weights, encode_weights
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Source, Success

LAYOUT = make_layout()


def make_rule(
    layout: TransitionLayout = LAYOUT, candidates: int = 6, **overrides: Any
) -> ActorCritic:
    """Return a rule whose normaliser is fitted and whose critics and actor have opinions."""
    config = small_config(**{'residual_candidates': candidates, **overrides})
    rng = np.random.default_rng(0)
    rule = config.make_rule(layout, torch.Generator().manual_seed(0), rng)
    assert isinstance(rule, ActorCritic)
    observations = torch.from_numpy(rng.normal(1.0, 2.0, (50, 3)).astype(np.float32))
    for network in (rule.actor, rule.mean_actor):
        network.normalizer.fit(observations)
    with torch.no_grad():
        for network in (rule.critic, rule.mean_actor):
            for value in network.parameters():
                value += 0.3 * torch.from_numpy(rng.standard_normal(value.shape))
    return rule


def advised(rule: ActorCritic) -> BestOfNActor:
    actor = rule.robot_policy()
    assert isinstance(actor, BestOfNActor)
    return actor


def oracle(rule: ActorCritic, observation: Any, base: Any, residuals: np.ndarray) -> np.ndarray:
    """Return the smallest advantage of each residual (rows, k * m), by the learner's critics."""
    rows = len(residuals)
    s = torch.as_tensor(observation, dtype=torch.float32).expand(rows, -1)
    b = torch.as_tensor(base, dtype=torch.float32).expand(rows, -1)
    u = torch.as_tensor(residuals, dtype=torch.float32)
    s = rule.actor.normalizer(s)
    with torch.no_grad():
        q = rule.critic(s, rule.critic_action(b, b + rule.bound * u))
        q_base = rule.critic(s, rule.critic_action(b, b))
    return (q - q_base).amin(0).numpy()


@pytest.mark.parametrize('normalization', CRITIC_NORMALIZATIONS)
@pytest.mark.parametrize('sees_residual', [True, False])
@pytest.mark.parametrize('hold', [True, False])
def test_the_robot_gets_the_advantages_that_the_learner_computes(
    normalization: str, sees_residual: bool, hold: bool
) -> None:
    rule = make_rule(
        critic_normalization=normalization, critic_sees_residual=sees_residual, hold_residual=hold
    )
    actor, rng = advised(rule), np.random.default_rng(1)
    for _ in range(10):
        observation, base = rng.normal(1.0, 20.0, 3), rng.uniform(-1.0, 1.0, 4)
        u = rng.uniform(-1.0, 1.0, (5, 2 if hold else 4))
        expected = oracle(rule, observation, base, np.tile(u, 2) if hold else u)
        given = actor.advantages(observation, base, u)
        np.testing.assert_allclose(given, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('bound_scale', [1.0, 0.25])
def test_the_best_of_the_drawn_residuals_is_executed_or_none(bound_scale: float) -> None:
    rule = make_rule()
    actor, plain = advised(rule), rule.mean_actor.to_numpy()
    rng, refused = np.random.default_rng(2), 0
    for _ in range(40):
        observation, base = rng.normal(1.0, 2.0, 3), rng.uniform(-1.0, 1.0, 4)
        one = np.random.default_rng(3)
        drawn = np.array(
            [plain.decide(observation, base, one, ExplorationSample(2.0)) for _ in range(6)]
        )
        advantages = oracle(rule, observation, base, bound_scale * drawn)
        chosen = actor.decide(
            observation, base, np.random.default_rng(3), ExplorationSample(2.0, bound_scale)
        )
        if advantages.max() > 0.0:
            np.testing.assert_allclose(chosen, drawn[advantages.argmax()], atol=1e-6)
        else:
            np.testing.assert_array_equal(chosen, 0.0)
            refused += 1
    assert 0 < refused < 40


def test_the_nearer_the_base_is_to_success_the_smaller_is_the_residual() -> None:
    rule = make_rule()
    actor, plain = advised(rule), rule.mean_actor.to_numpy()
    rng, shares = np.random.default_rng(8), []
    for share in np.linspace(-0.5, 1.5, 30):
        observation, base = rng.normal(1.0, 2.0, 3), rng.uniform(-1.0, 1.0, 4)
        with torch.no_grad():  # Let the base cost as much as is to be tried, and nobody else.
            rule.critic.head.bias -= 2.0 * share + actor.base_value(observation, base)
        actor, expected = advised(rule), min(max(share, 0.0), 1.0)
        one = np.random.default_rng(3)
        drawn = np.array(
            [plain.decide(observation, base, one, ExplorationSample(2.0)) for _ in range(6)]
        )
        advantages = oracle(rule, observation, base, 0.5 * expected * drawn)
        chosen = actor.decide(
            observation, base, np.random.default_rng(3), ExplorationSample(2.0, 0.5, 2.0)
        )
        if advantages.max() > 0.0:
            np.testing.assert_allclose(chosen, expected * drawn[advantages.argmax()], atol=1e-5)
            shares.append(expected)
        else:
            np.testing.assert_array_equal(chosen, 0.0)
    assert min(shares) < 0.2
    assert max(shares) == 1.0


def test_the_cost_of_the_base_is_what_the_learner_computes() -> None:
    rule = make_rule()
    actor, rng = advised(rule), np.random.default_rng(9)
    for _ in range(10):
        observation, base = rng.normal(1.0, 20.0, 3), rng.uniform(-1.0, 1.0, 4)
        s, b = (torch.as_tensor(value, dtype=torch.float32)[None] for value in (observation, base))
        with torch.no_grad():
            q = rule.critic(rule.actor.normalizer(s), rule.critic_action(b, b))
        assert actor.base_value(observation, base) == pytest.approx(float(q.mean()), abs=1e-4)


def test_without_exploration_the_choice_is_between_the_mean_and_the_base() -> None:
    rule = make_rule()
    actor, plain = advised(rule), rule.mean_actor.to_numpy()
    rng, kept = np.random.default_rng(4), 0
    for _ in range(40):
        observation, base = rng.normal(1.0, 2.0, 3), rng.uniform(-1.0, 1.0, 4)
        mean = plain.decide(observation, base, None)
        good = oracle(rule, observation, base, mean[None])[0] > 0.0
        np.testing.assert_array_equal(actor.decide(observation, base, None), mean if good else 0.0)
        kept += good
    assert 0 < kept < 40


def test_one_critic_that_sees_no_advantage_is_enough_to_refuse() -> None:
    rule = make_rule()
    with torch.no_grad():
        rule.critic.head.weight[1] = -rule.critic.head.weight[0]
        for layer in rule.critic.body:
            for value in layer.parameters():
                value[1] = value[0]
    actor, rng = advised(rule), np.random.default_rng(5)
    observation, base = np.ones(3), np.zeros(4)
    assert (actor.advantages(observation, base, rng.uniform(-1.0, 1.0, (20, 2))) <= 0.0).all()
    np.testing.assert_array_equal(actor.decide(observation, base, rng), np.zeros(4))


def test_a_dimension_without_bound_gets_no_residual_and_changes_no_advantage() -> None:
    layout = make_layout(residual_bound=(0.1, 0.0))
    actor = advised(make_rule(layout))
    observation, base = np.ones(3), np.zeros(4)
    for seed in range(10):
        residual = actor.decide(observation, base, np.random.default_rng(seed))
        np.testing.assert_array_equal(residual.reshape(2, 2)[:, 1], 0.0)
    u = np.array([[0.5, 0.7]])
    expected = oracle(make_rule(layout), observation, base, np.tile([[0.5, 0.0]], 2))
    np.testing.assert_allclose(actor.advantages(observation, base, u), expected, atol=1e-5)


def test_critics_that_overflow_make_no_decision_and_are_not_accepted() -> None:
    actor = advised(make_rule(critic_normalization='none'))
    tensors = {
        name: value * np.float32(1e25) if name.startswith(CRITIC) else value
        for name, value in actor.tensors.items()
    }
    with np.errstate(over='ignore', invalid='ignore'):
        wild = BestOfNActor(actor.architecture, tensors)
        assert np.isnan(wild.advantages(np.ones(3), np.zeros(4), np.full((2, 2), 0.5))).any()
        assert np.isnan(wild.decide(np.ones(3), np.zeros(4), np.random.default_rng(0))).all()
    with pytest.raises(WeightsError, match='float32 overflows') as error:
        decode_weights(encode_weights(wild, WeightsHeader(1, 2)))
    assert error.value.reason == 'overflow'


def test_one_advantage_that_is_no_number_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    actor = advised(make_rule(candidates=3))
    drawn = np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]])
    monkeypatch.setattr(actor._actor, 'draw', lambda *_: drawn)
    monkeypatch.setattr(actor, '_advantages', lambda *_: np.array([np.nan, 2.0, 1.0]))
    chosen = actor.decide(np.ones(3), np.zeros(4), np.random.default_rng(0))
    np.testing.assert_array_equal(chosen, 0.2)


def test_as_many_critics_choose_as_the_target_has() -> None:
    rule = make_rule(critic_heads=5, critic_target_heads=2)
    actor = advised(rule)
    assert actor.architecture.critic.heads == 2
    assert actor.tensors['critic.head.weight'].shape[0] == 2
    assert_same_actor(decode_weights(encode_weights(actor, WeightsHeader(1, 0)))[1], actor)


def test_a_deterministic_actor_proposes_with_its_fixed_noise() -> None:
    rule = make_rule(preset='resfit', critic_heads=2)
    actor, plain = advised(rule), rule.mean_actor.to_numpy()
    observation, base = np.ones(3), np.zeros(4)
    one = np.random.default_rng(3)
    drawn = np.array([plain.decide(observation, base, one) for _ in range(6)])
    advantages = oracle(rule, observation, base, drawn)
    chosen = actor.decide(observation, base, np.random.default_rng(3))
    best = drawn[advantages.argmax()] if advantages.max() > 0.0 else np.zeros(4)
    np.testing.assert_allclose(chosen, best, atol=1e-6)


@pytest.mark.parametrize('preset', ['best_of_n', 'resfit'])
def test_actor_and_critics_survive_the_wire_bit_for_bit(preset: str) -> None:
    actor = advised(make_rule(preset=preset))
    header = WeightsHeader(1, 2)
    read, decoded = decode_weights(encode_weights(actor, header), actor.architecture.layout)
    assert read == header
    assert_same_actor(decoded, actor)


def test_the_digest_covers_the_critics() -> None:
    message = bytearray(encode_weights(advised(make_rule()), WeightsHeader(1, 2)))
    altered = bytes(message).replace(rb'\"candidates\": 6', rb'\"candidates\": 7')
    assert altered != message
    named = json.loads(message[8 : 8 + int.from_bytes(message[:8], 'little')])
    start, _ = named['critic.body.0.weight']['data_offsets']
    message[8 + int.from_bytes(message[:8], 'little') + start] ^= 1
    for wrong in (altered, bytes(message)):
        with pytest.raises(WeightsError, match='digest does not match'):
            decode_weights(wrong)


@pytest.mark.parametrize(
    ('architecture', 'reason'),
    [
        ({'candidates': 0}, 'malformed'),
        ({'candidates': True}, 'malformed'),
        ({'candidates': 10**18}, 'malformed'),
        ({'heads': 3}, 'shape'),
        ({'hidden_sizes': ()}, 'malformed'),
        ({'hidden_sizes': (10**6, 10**6)}, 'shape'),
        ({'normalization': 'batch'}, 'malformed'),
        ({'normalization': 'none'}, 'shape'),
        ({'sees_residual': 1}, 'malformed'),
        ({'sees_residual': False}, 'shape'),
    ],
    ids=str,
)
def test_critics_off_their_own_architecture_are_refused(
    architecture: dict[str, Any], reason: str
) -> None:
    actor = advised(make_rule())
    for name, value in architecture.items():
        claimed = actor.architecture if name == 'candidates' else actor.architecture.critic
        object.__setattr__(claimed, name, value)  # Past its own checks, as a forger would.
    with pytest.raises(WeightsError) as error:
        decode_weights(encode_weights(actor, WeightsHeader(1, 2)))
    assert error.value.reason == reason


def test_a_cost_of_the_base_without_critics_to_tell_it_is_refused() -> None:
    header = WeightsHeader(1, 2, Exploration(full_bound_cost=5.0))
    with pytest.raises(WeightsError, match=r'full_bound_cost is 5\.0, expected 0') as error:
        decode_weights(encode_weights(make_rule().mean_actor.to_numpy(), header))
    assert error.value.reason == 'malformed'
    assert decode_weights(encode_weights(advised(make_rule()), header))[0] == header


def test_a_critic_that_is_not_finite_is_refused() -> None:
    actor = advised(make_rule())
    actor.tensors['critic.head.weight'][1, 0] = np.nan
    with pytest.raises(WeightsError, match=r'critic\.head\.weight is not finite'):
        decode_weights(encode_weights(actor, WeightsHeader(1, 2)))


def test_a_refused_residual_is_a_decision_of_the_residual_policy_all_the_same() -> None:
    config = ControllerConfig(decision_steps=2, residual_scale=(0.1,))
    controller = config.build(LinearPolicy(), make_action_spec())
    rule = make_rule(controller.layout)
    with torch.no_grad():
        rule.critic.head.weight.zero_()  # Nothing has an advantage.
    header = WeightsHeader(1, 0, Exploration())
    controller.mailbox.submit(encode_weights(advised(rule), header))
    controller.begin_episode(0, np.zeros(3), 0.0)
    going = StepFeedback(0.0, False, False, Success.UNLABELLED)
    for step in range(2):
        assert controller.command() is not None
        transition = controller.step(np.zeros(3), 0.1 * (step + 1), going)
    assert transition is not None
    assert transition.source is Source.RESIDUAL
    np.testing.assert_array_equal(transition.residual_action, 0.0)
    np.testing.assert_array_equal(transition.executed_action, transition.base_action)
    assert controller.residual.refused == 1


def test_who_looks_on_sees_the_advantage_of_the_chosen_residual() -> None:
    config = ControllerConfig(decision_steps=2, residual_scale=(0.1,), explore=True)
    controller = config.build(LinearPolicy(), make_action_spec())
    actor = advised(make_rule(controller.layout))
    wide = Exploration(wide_noise_share=1.0, wide_noise_scale=9.0)
    controller.mailbox.submit(encode_weights(actor, WeightsHeader(1, 0, wide)))
    rng, seen = np.random.default_rng(2), []
    for episode in range(40):
        observation = rng.normal(1.0, 2.0, 3)
        controller.begin_episode(episode, observation, 0.0)
        controller.command()
        shown = controller.commanded()
        assert shown is not None
        residual = np.zeros((1, 2))
        if shown.share > 0.0:
            residual = (shown.residual / controller.bound.values)[None]
        base = shown.ahead.ravel()
        (advantage,) = actor.advantages(observation, base, residual)
        assert shown.advantage == pytest.approx(float(advantage), abs=1e-5)
        seen.append(shown.share > 0.0)
    assert 0 < sum(seen) < 40


def test_the_critics_judge_what_the_bound_in_use_leaves_of_a_residual(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = ControllerConfig(decision_steps=2, residual_scale=(0.1,))
    controller = config.build(LinearPolicy(), make_action_spec())
    exploration = Exploration(bound_scale=0.25, full_bound_cost=7.0)
    message = encode_weights(
        advised(make_rule(controller.layout)), WeightsHeader(1, 0, exploration)
    )
    controller.mailbox.submit(message)
    seen: list[ExplorationSample] = []
    decide = BestOfNActor.decide

    def spy(actor: BestOfNActor, *args: Any) -> Any:
        seen.append(args[3])
        return decide(actor, *args)

    monkeypatch.setattr(BestOfNActor, 'decide', spy)
    controller.residual.blend_ratio = 0.5
    controller.begin_episode(0, np.zeros(3), 0.0)
    controller.command()
    assert seen == [ExplorationSample(1.0, 0.125, 7.0)]


def test_the_critics_on_the_robot_do_not_follow_the_learner() -> None:
    rule = make_rule()
    actor = advised(rule)
    observation, base, u = np.ones(3), np.zeros(4), np.full((1, 2), 0.7)
    before = actor.advantages(observation, base, u)
    for transition in random_transitions(LAYOUT, 50):
        rule.observe(transition)
    rule.update()
    np.testing.assert_array_equal(actor.advantages(observation, base, u), before)
    assert not np.array_equal(advised(rule).advantages(observation, base, u), before)
