# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Training the model of a planner, from recorded decisions and from an environment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_builders import write_bag
from foreign_tasks import register, write_base
from learner_builders import small_config
from transition_builders import make_layout, make_transition

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.learner.checkpoint import save_checkpoint
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.pretraining.dynamics_data import (
    PIECE,
    Decisions,
    buffer_of,
    collect,
    read_sources,
)
from residual_rl_ros.pretraining.train_dynamics import DynamicsRecipe, train_model
from residual_rl_ros.residual_policy.weights import WeightsHeader, decode_weights, encode_weights
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.tasks.hosting import finetune_for_environment
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.replay_buffer import NONE, ReplayBuffer
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Transition

LAYOUT = make_layout(prior=Prior.GAUSSIAN)
UNITS = np.array([1.0, 1000.0, 0.001])
"""The observations differ in size by six orders of magnitude."""
RECIPE = DynamicsRecipe(
    updates=200, batch_size=64, steps=2, learning_rate=0.01, hidden=(32,), prior_hidden=(16,)
)


def linear_data(count: int = 600, layout: TransitionLayout = LAYOUT) -> list[Transition]:
    """Return decisions, 12 an episode, that move by the sum of each action's steps."""
    rng = np.random.default_rng(0)
    made, after = [], np.zeros(3)
    for index in range(count):
        episode, decision = divmod(index, 12)
        state = rng.normal(size=3) if decision == 0 else after
        action = rng.uniform(-0.5, 0.5, 4)
        after = 0.9 * state + np.array([action[0] + action[2], action[1] + action[3], -action[0]])
        mean = np.tile([0.3, -0.2], 2) * state[0].clip(-1.0, 1.0)
        made.append(
            make_transition(
                layout,
                episode=episode,
                step=2 * decision,
                truncated=decision == 11,
                observation=UNITS * state,
                next_observation=UNITS * after,
                base_action=mean,
                executed_action=action,
                prior=np.concatenate([mean, np.full(4, -2.0)])[: layout.prior_size],
            )
        )
    return made


def stored(transitions: list[Transition], layout: TransitionLayout = LAYOUT) -> ReplayBuffer:
    buffer = ReplayBuffer(layout, max(1, len(transitions)))
    for transition in transitions:
        buffer.add(transition)
    return buffer


def decisions(
    transitions: list[Transition], layout: TransitionLayout = LAYOUT, width: float = 0.0
) -> Decisions:
    rng = np.random.default_rng(0)
    return Decisions.of(stored(transitions, layout), layout, width, rng)


def test_a_model_learns_every_number_whatever_its_unit_and_tells_its_error() -> None:
    planner, errors = train_model(decisions(linear_data()), RECIPE, 0, lambda done: None)
    assert [each.name for each in errors] == list(LAYOUT.observation_names)
    for each, unit in zip(errors, UNITS, strict=True):
        assert each.unexplained < 0.3
        assert each.error < 0.3 * unit
    assert planner.architecture.held_out == tuple(each.unexplained for each in errors)
    state = (UNITS * [0.5, 0.2, -0.1]).astype(np.float32)
    mean, log_std = planner.model.prior(state[None])
    np.testing.assert_allclose(mean[0], np.tile([0.15, -0.1], 2), atol=0.08)
    np.testing.assert_allclose(log_std[0], -2.0, atol=0.4)
    _, read = decode_weights(encode_weights(planner, WeightsHeader(1, 0)), LAYOUT)
    assert read.architecture == planner.architecture


def test_the_same_seed_gives_the_same_model() -> None:
    data, few = decisions(linear_data()), replace(RECIPE, updates=5)
    first, second, other = (
        train_model(data, few, seed, lambda done: None)[0].tensors['dynamics.0.weight']
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_sequences_end_with_the_episode_and_held_out_decisions_are_whole_pieces() -> None:
    data = decisions(linear_data(24 * 12))
    assert 0 < data.held_out.sum() < len(data.held_out)
    assert data.held_out.reshape(-1, 12).all(1).sum() * 12 == data.held_out.sum()
    batch = data.sequences(np.array([0, 10, 11]), 3)
    assert batch.follows.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    np.testing.assert_array_equal(batch.observation[0, 1:3], data.observation[1:3])


def test_an_episode_without_end_is_cut_into_pieces() -> None:
    endless = [
        replace(each, episode=0, step=2 * index, truncated=False)
        for index, each in enumerate(linear_data(3 * PIECE))
    ]
    data = decisions(endless)
    assert np.flatnonzero(data.following == NONE).tolist() == [99, 199, 299]
    assert data.held_out.sum() == PIECE


def test_a_base_without_density_has_one_of_stated_width_or_none() -> None:
    layout = make_layout()
    data = linear_data(layout=layout)
    few = replace(RECIPE, updates=2)
    planner, _ = train_model(decisions(data, layout), few, 0, lambda done: None)
    assert planner.architecture.sizes.density is Prior.NONE
    wide = replace(few, prior_width=0.2)
    planner, _ = train_model(decisions(data, layout, 0.2), wide, 0, lambda done: None)
    assert planner.architecture.sizes.density is Prior.GAUSSIAN
    np.testing.assert_allclose(decisions(data, layout, 0.2).prior[:, 4:], np.log(0.2), rtol=1e-6)


def test_the_prior_of_a_squashed_gaussian_is_learned_before_tanh() -> None:
    layout = make_layout(prior=Prior.SQUASHED_GAUSSIAN)
    data = decisions(linear_data(layout=layout), layout)
    np.testing.assert_allclose(data.prior[:, 4:], -2.0)
    np.testing.assert_allclose(
        data.prior[0, :4], stored(linear_data(layout=layout), layout).blocks()['prior'][0, :4]
    )


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'observation': np.array([0.0, np.nan, 0.0])}, r'observation\[1\] \(arm.position.b\) of'),
        ({'next_observation': np.array([0.0, 1e39, 0.0])}, r'next_observation\[1\].*inf'),
        ({'executed_action': np.array([0.0, 0.0, 0.0, np.inf])}, r'\(b.position\) of decision 7'),
    ],
)
def test_a_number_that_is_none_is_named(change: dict[str, Any], reason: str) -> None:
    data = linear_data()
    data[7] = replace(data[7], **change)
    with pytest.raises(ConfigError, match=reason), np.errstate(over='ignore'):
        decisions(data)


def test_too_little_data_and_discrete_actions_are_refused() -> None:
    with pytest.raises(ConfigError, match='there are 30 decisions, expected at least 200'):
        decisions(linear_data(30))
    discrete = make_layout(
        discrete=True, action_min=(0.0, 0.0), action_max=(1.0, 1.0), residual_bound=(1.0, 1.0)
    )
    with pytest.raises(ConfigError, match='needs continuous actions'):
        decisions([], discrete)


def test_bags_of_different_robots_are_refused_by_name() -> None:
    other = replace(LAYOUT, observation_names=('x', 'y', 'z'))
    tables = [
        (TransitionTable(layout, layout.encode(linear_data(1, layout)[0])[None]), '')
        for layout in (LAYOUT, other)
    ]
    with pytest.raises(ConfigError, match=r"observation_names\[0\] is 'x'"):
        buffer_of(tables)


def test_an_environment_gives_whole_episodes_with_noise_around_the_base(tmp_path: Path) -> None:
    register()
    base = write_base(tmp_path / 'base.onnx')
    config = finetune_for_environment('Silent-v0', base, 2.0, tmp_path)
    config = replace(config, decision_steps=2)
    done: list[int] = []
    buffer, layout = collect(config, 20, 0.5, 3, done.append)
    assert layout.decision_steps == 2
    assert done == [12, 24]
    assert len(buffer) == 12
    blocks = buffer.blocks()
    base_command = blocks['base_action'].clip(-0.1, 0.1)
    assert (blocks['executed_action'] != base_command).any()
    again = collect(config, 20, 0.5, 3, done.append)[0].blocks()
    np.testing.assert_array_equal(again['executed_action'], blocks['executed_action'])
    still = collect(config, 1, 0.0, 3, done.append)[0].blocks()
    command = still['base_action'].clip(-0.1, 0.1)
    np.testing.assert_allclose(still['executed_action'], command, rtol=1e-6)


def test_bags_and_the_replay_of_a_run_give_the_same_decisions(tmp_path: Path) -> None:
    data = linear_data(240)
    bag = write_bag(tmp_path / 'bag', LAYOUT, data)
    of_bag, layout = read_sources([bag])
    assert layout == LAYOUT
    learner = Learner(small_config(replay_capacity=300), LAYOUT, seed=0)
    for transition in data:
        learner.rule.observe(transition)
    save_checkpoint(tmp_path / 'run' / 'checkpoints' / 'latest', learner)
    of_run, layout = read_sources([tmp_path / 'run'])
    assert layout == LAYOUT
    for name in ('observation', 'executed_action', 'next_observation', 'prior'):
        np.testing.assert_array_equal(of_run.blocks()[name], of_bag.blocks()[name])
    np.testing.assert_array_equal(of_run.following, of_bag.following)
    with pytest.raises(ConfigError, match='one run, or bags, not both'):
        read_sources([bag, tmp_path / 'run'])
