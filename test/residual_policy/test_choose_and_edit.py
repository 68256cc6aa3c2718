# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Choose and edit must pick what its critics agree on, and stay the base where they do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from actor_builders import assert_same_actor
from base_policy_builders import LinearPolicy
from learner_builders import make_rule, small_config
from robot_builders import make_action_spec
from transition_builders import make_layout

from residual_rl_ros.algorithms.choose_and_edit import ChooseAndEdit, pick
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.errors import ConfigError, WeightsError
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.residual_policy.choose_and_edit import ChooseAndEditActor
from residual_rl_ros.residual_policy.choose_and_edit import pick as pick_on_robot
from residual_rl_ros.residual_policy.exploration import Exploration, ExplorationSample
from residual_rl_ros.residual_policy.weights import WeightsHeader, decode_weights, encode_weights
from residual_rl_ros.transitions.batch import Batch
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Source, Success, Transition

LAYOUT = make_layout(proposals=4)
N, M, KM = LAYOUT.observation_size, LAYOUT.action_size, LAYOUT.decision_size
GOES_ON = StepFeedback(0.0, False, False, Success.UNLABELLED)
SUCCEEDS = StepFeedback(1.0, True, False, Success.SUCCESS)
FAILS = StepFeedback(0.0, True, False, Success.FAILURE)


def opinionated(layout: TransitionLayout = LAYOUT, **overrides: Any) -> ChooseAndEdit:
    """Return a rule whose actor and critics have opinions."""
    heads = {'critic_heads': 4, 'critic_target_heads': 2}
    rule = make_rule('choose_and_edit', layout, **{**heads, **overrides})
    assert isinstance(rule, ChooseAndEdit)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for network in (rule.actor, rule.mean_actor, rule.critic, rule.target_critic):
            for value in network.parameters():
                value += 0.3 * torch.randn(value.shape, generator=generator)
    return rule


def decisions(count: int = 40) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return observations, (n,), and proposals, (N, k * m)."""
    rng = np.random.default_rng(2)
    return [(rng.normal(0.0, 2.0, N), rng.uniform(-0.5, 0.5, (4, KM))) for _ in range(count)]


def judged(rule: ChooseAndEdit, observation: Any, b: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return Q_i of one action, (heads,), by the learner's critics."""
    s, b, u = (torch.tensor(each, dtype=torch.float32)[None] for each in (observation, b, u))
    with torch.no_grad():
        q = rule.critic(rule.actor.normalizer(s), rule.critic_action(b, b + rule.bound * u))
    return q[:, 0].numpy()


def brute_force(
    rule: ChooseAndEdit,
    observation: np.ndarray,
    proposals: np.ndarray,
    edits: list[list[np.ndarray]],
    judges: list[int],
) -> tuple[int, np.ndarray, np.ndarray]:
    """Return proposal, edit and Q_i of what is to be chosen, one candidate after another."""
    nothing = np.zeros(KM)
    chosen = base = judged(rule, observation, proposals[0], nothing)
    best, found = 0.0, (0, nothing)
    for j, proposal in enumerate(proposals):
        for edit in [nothing, *edits[j]]:
            q = judged(rule, observation, proposal, edit)
            least = min(q[i] - base[i] for i in judges)
            if least > best:
                best, found, chosen = least, (j, edit), q
    if not (chosen - base).mean() > (chosen - base).std():
        return 0, nothing, base
    return (*found, chosen)


def test_a_choice_is_the_least_convinced_judges_best_unless_the_ensemble_is_in_doubt() -> None:
    # The base, one that all like, one that the mean likes more, but one critic not at all.
    advantages = np.array([[0.0, 1.0, 9.0], [0.0, 1.5, -1.0], [0.0, 1.2, 9.0]], dtype=np.float32)
    doubtful = np.array([[0.0, 9.0], [0.0, 0.1], [0.0, 0.1]], dtype=np.float32)  # 3.1 +- 4.2
    refused = -np.abs(advantages)
    for given, judges, expected in (
        (advantages, slice(None), 1),
        (advantages, [0, 2], 2),
        (advantages, [1], 1),
        (doubtful, slice(None), 0),
        (refused, slice(None), 0),
    ):
        assert pick_on_robot(given, judges) == expected  # type: ignore[arg-type]
        heads = judges if isinstance(judges, slice) else torch.tensor(judges)
        assert pick(torch.tensor(given)[:, None], heads).tolist() == [expected]


@pytest.mark.parametrize('hold', [True, False])
def test_the_robot_chooses_what_the_learners_critics_choose_among_all_candidates(
    hold: bool,
) -> None:
    rule = opinionated(residual_candidates=3, hold_residual=hold)
    actor, edit = rule.robot_policy(), rule.mean_actor.to_numpy()
    chosen = []
    for observation, proposals in decisions():
        rng, same = np.random.default_rng(3), np.random.default_rng(3)
        edits = [
            [*map(edit.hold, edit.draw(edit.normalize(observation, b), rng, 2.0, 3))]
            for b in proposals
        ]
        judges = rng.permutation(4)[:2].tolist()
        expected = brute_force(rule, observation, proposals, edits, judges)
        choice = actor.choose(observation, proposals, same, ExplorationSample(2.0))
        assert choice.proposal == expected[0]
        np.testing.assert_array_equal(choice.residual, expected[1])
        chosen.append((choice.proposal, bool(choice.residual.any())))
    assert {(0, False), (0, True)} < set(chosen)
    assert {(1, True), (2, True), (3, True)} & set(chosen)


@pytest.mark.parametrize('bound_scale', [1.0, 0.125])
def test_without_exploration_each_proposal_has_the_mean_as_edit_and_all_critics_judge(
    bound_scale: float,
) -> None:
    rule = opinionated(residual_candidates=3)
    actor, edit = rule.robot_policy(), rule.mean_actor.to_numpy()
    for observation, proposals in decisions():
        edits = [[bound_scale * edit.decide(observation, b, None)] for b in proposals]
        expected = brute_force(rule, observation, proposals, edits, [0, 1, 2, 3])
        choice = actor.choose(observation, proposals, None, ExplorationSample(1.0, bound_scale))
        assert choice.proposal == expected[0]
        np.testing.assert_array_equal(bound_scale * choice.residual, expected[1])


@pytest.mark.parametrize('entropy', [True, False])
def test_the_target_is_the_judges_minimum_at_the_choice_among_proposals_times_edits(
    entropy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = opinionated(
        residual_candidates=2, entropy_in_target=entropy, initial_alpha=0.3, reward_offset=-1.0
    )
    rule.critic.load_state_dict(rule.target_critic.state_dict())
    given = decisions(12)
    rng = np.random.default_rng(4)
    u, log_pi = rng.uniform(-1.0, 1.0, (12, 4, 2, KM)), rng.uniform(-2.0, 1.0, (12, 4, 2))
    flat = [torch.tensor(each, dtype=torch.float32).flatten(0, 2) for each in (u, log_pi)]
    monkeypatch.setattr(rule.actor, 'sample', lambda *_: flat)
    reward, bootstrap = rng.uniform(0.0, 1.0, 12), np.array([0.9] * 11 + [0.0])
    row = {
        'reward': reward,
        'reward_weight': np.ones(12),
        'bootstrap': bootstrap,
        'next_observation': [observation for observation, _ in given],
        'next_base_action': [proposals[0] for _, proposals in given],
        'next_proposals': [proposals[1:].ravel() for _, proposals in given],
    }
    empty = {
        'observation': (12, N),
        'base_action': (12, KM),
        'executed_action': (12, KM),
        'prior': (12, 0),
        'next_prior': (12, 0),
        'proposals': (12, 3 * KM),
    }
    tensors = {
        name: torch.tensor(np.array(value), dtype=torch.float32) for name, value in row.items()
    }
    batch = Batch(**tensors, **{k: torch.zeros(v) for k, v in empty.items()}, row=np.arange(12))
    rule._generator.manual_seed(5)
    judges = torch.randperm(4, generator=torch.Generator().manual_seed(5))[:2].tolist()
    expected, edited = [], 0
    for i, (observation, proposals) in enumerate(given):
        j, edit, q = brute_force(rule, observation, proposals, [[*each] for each in u[i]], judges)
        cost = 0.0
        if edit.any():
            edited += 1
            cost = 0.3 * log_pi[i, j, [*map(tuple, u[i, j])].index(tuple(edit))]
        value = min(q[h] for h in judges) - cost * entropy
        expected.append(reward[i] - 1.0 + bootstrap[i] * value)
    assert 0 < edited < 12
    np.testing.assert_allclose(rule.soft_target(batch).numpy(), expected, atol=1e-5)


def test_the_actor_learns_to_edit_every_proposal() -> None:
    rule = opinionated()
    proposals = torch.arange(4.0).repeat(64, 1).repeat_interleave(KM, 1)
    batch = Batch(
        **{
            name: torch.zeros(64, 0)
            for name in Batch.__dataclass_fields__
            if name not in ('base_action', 'proposals', 'row', 'demonstrations')
        },
        base_action=proposals[:, :KM],
        proposals=proposals[:, KM:],
        row=np.arange(64),
    )
    edited = rule.base_for_actor(batch)
    assert set(edited[:, 0].tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert torch.equal(edited, edited[:, :1].expand(-1, KM))


def test_the_nearer_the_base_is_to_success_the_smaller_is_an_edit_and_no_choice_is() -> None:
    rule = opinionated()
    observation, proposals = decisions()[0]
    cost = -float(judged(rule, observation, proposals[0], np.zeros(KM)).mean())
    with torch.no_grad():
        rule.critic.head.bias -= 1.0 - cost  # The base costs 1.
    actor, edit = rule.robot_policy(), rule.mean_actor.to_numpy()
    for full, share in ((0.5, 1.0), (4.0, 0.25)):
        edits = [[share * edit.decide(observation, b, None)] for b in proposals]
        expected = brute_force(rule, observation, proposals, edits, [0, 1, 2, 3])
        choice = actor.choose(observation, proposals, None, ExplorationSample(1.0, 1.0, full))
        assert choice.proposal == expected[0]
        np.testing.assert_allclose(choice.residual, expected[1], atol=1e-6)


def test_actor_and_critics_survive_the_wire_bit_for_bit_and_forged_sizes_do_not() -> None:
    actor = opinionated().robot_policy()
    header = WeightsHeader(1, 2, Exploration(full_bound_cost=5.0))
    read, decoded = decode_weights(encode_weights(actor, header), LAYOUT)
    assert read == header
    assert_same_actor(decoded, actor)
    for wrong in (0, 5, True, 'all'):
        forged = ChooseAndEditActor(replace(actor.architecture), actor.tensors)
        object.__setattr__(forged.architecture, 'judges', wrong)
        with pytest.raises(WeightsError) as error:
            decode_weights(encode_weights(forged, header))
        assert error.value.reason == 'malformed'


def test_critics_that_overflow_make_no_decision_and_are_not_accepted() -> None:
    actor = opinionated(critic_normalization='none').robot_policy()
    tensors = {
        name: value * np.float32(1e25) if name.startswith('critic.') else value
        for name, value in actor.tensors.items()
    }
    with np.errstate(over='ignore', invalid='ignore'):
        wild = ChooseAndEditActor(actor.architecture, tensors)
        assert np.isnan(wild.choose(*decisions()[0], None).residual).all()
    with pytest.raises(WeightsError, match='float32 overflows'):
        decode_weights(encode_weights(wild, WeightsHeader(1, 2)))


def test_numbers_that_do_not_fit_are_refused() -> None:
    for key, value in (('residual_candidates', 0), ('choosing_heads', 2), ('base_in_target', True)):
        with pytest.raises(ConfigError, match=key):
            make_rule('choose_and_edit', LAYOUT, **{key: value})


def make_controller(**changes: Any) -> ResidualController:
    values = {'decision_steps': 2, 'residual_scale': (0.1,), 'proposals': 4, 'explore': True}
    config = ControllerConfig(**{**values, 'scheduled_actor': False, **changes})
    return config.build(LinearPolicy(stochastic=True), make_action_spec())


def play(
    controller: ResidualController, episode: int, decided: int = 6
) -> tuple[np.ndarray, list[Transition]]:
    """Play an episode of so many decisions over made-up observations."""
    rng = np.random.default_rng(episode)
    controller.begin_episode(episode, rng.normal(0.0, 0.5, N), 0.0)
    commands, made = [], []
    for step in range(2 * decided):
        commands.append(controller.command())
        feedback = SUCCEEDS if step == 2 * decided - 1 else GOES_ON
        transition = controller.step(rng.normal(0.0, 0.5, N), 0.1 * (step + 1), feedback)
        made += [] if transition is None else [transition]
    return np.array(commands), made


def accept(controller: ResidualController, rule: ChooseAndEdit, **exploration: Any) -> None:
    header = WeightsHeader(1, 0, Exploration(**exploration))
    assert controller.mailbox.submit(encode_weights(rule.robot_policy(), header))


def test_the_chosen_proposal_is_the_base_action_of_the_transition_with_its_edit() -> None:
    plain, controller = make_controller(), make_controller()
    accept(controller, opinionated(controller.layout))
    bound = np.tile(controller.layout.residual_bound, 2)
    chosen = 0
    for episode in range(5):
        base = play(plain, episode)[1]
        for told, would in zip(play(controller, episode)[1], base, strict=True):
            assert told.source is Source.RESIDUAL
            expected = told.base_action + bound * told.residual_action
            np.testing.assert_array_equal(told.executed_action, expected)
            # Base action and choice have changed places: nothing is lost, and next is the base.
            offered = np.vstack([would.base_action, would.proposals.reshape(3, KM)])
            kept = np.vstack([told.base_action, told.proposals.reshape(3, KM)])
            j = next(j for j in range(4) if np.array_equal(kept[0], offered[j]))
            np.testing.assert_array_equal(kept[j], offered[0])
            np.testing.assert_array_equal(np.sort(kept, axis=0), np.sort(offered, axis=0))
            if not told.terminated:  # Then nothing is next.
                np.testing.assert_array_equal(told.next_base_action, would.next_base_action)
                np.testing.assert_array_equal(told.next_proposals, would.next_proposals)
            chosen += j > 0
    assert chosen == controller.residual.proposals_chosen
    assert 0 < chosen < 30


def test_a_doubtful_ensemble_leaves_the_base_bit_for_bit() -> None:
    plain, controller = make_controller(), make_controller()
    rule = opinionated(controller.layout)
    with torch.no_grad():  # Two heads say the contrary of the other two.
        for network in (rule.critic.body, rule.critic.head):
            for value in network.parameters():
                value[2:] = value[:2]
        rule.critic.head.weight[2:] *= -1.0
    accept(controller, rule)
    for episode in range(3):
        assert play(controller, episode)[0].tobytes() == play(plain, episode)[0].tobytes()
    assert controller.residual.refused == 18
    assert controller.residual.proposals_chosen == 0


def test_while_the_residual_fades_in_a_choice_is_whole_and_rarer_and_an_edit_smaller() -> None:
    chosen, largest = {}, {}
    for ratio in (1.0, 0.25):
        controller = make_controller()
        accept(controller, opinionated(controller.layout))
        controller.residual.blend_ratio = ratio
        told = [each for episode in range(12) for each in play(controller, episode)[1]]
        edits = [each.executed_action - each.base_action for each in told]
        largest[ratio] = np.abs(edits / np.tile(controller.layout.residual_bound, 2)).max()
        chosen[ratio] = controller.residual.proposals_chosen
    assert 0 < chosen[0.25] < 0.6 * chosen[1.0]
    assert largest[0.25] <= 0.25 + 1e-9 < largest[1.0]


def test_a_run_learns_to_choose_what_is_rewarded_end_to_end_in_lockstep() -> None:
    """The base draws its first number at random; an episode succeeds where that is positive."""
    controller = make_controller(residual_scale=(0.01,), decision_steps=4)
    numbers = {
        'warmup_transitions': 150,
        'anchor_updates': 150,
        'batch_size': 64,
        'bound_ramp_transitions': 0,
        'full_bound_cost': 0.0,
        'guard_share': 0.0,
        'critic_learning_rate': 3e-3,
        'critic_heads': 3,
        'publish_interval': 50,
    }
    learner = Learner(small_config('choose_and_edit', **numbers), controller.layout, 0)
    outcomes = []
    for episode in range(240):
        controller.begin_episode(episode, np.zeros(N), 0.0)
        good = False
        for step in range(4):
            command = controller.command()
            assert command is not None
            good |= step == 0 and command[0] > 0.0
            feedback = GOES_ON if step < 3 else SUCCEEDS if good else FAILS
            transition = controller.step(np.zeros(N), 0.1 * (step + 1), feedback)
        outcomes.append(good)
        assert transition is not None
        message = learner.ingest(transition)
        if message is not None:
            controller.mailbox.submit(message)
    assert np.mean(outcomes[:150]) < 0.65
    assert np.mean(outcomes[-60:]) > 0.85
