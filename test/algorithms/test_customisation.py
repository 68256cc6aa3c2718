# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which reward a rule of policy customisation learns from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transition_builders import make_layout, make_transition

from residual_rl_ros.algorithms.customisation import CustomisationConfig, CustomisedReward
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.rewards.composition import AddOns
from residual_rl_ros.schema import from_mapping
from residual_rl_ros.transitions.batch import Batch
from residual_rl_ros.transitions.replay_buffer import ReplayBuffer

SIDE = '[{name: side_preference, position: tool.z, side: high}]'
ADD_ONS = AddOns.from_yaml(SIDE)


def filled(count: int = 5) -> tuple[ReplayBuffer, list]:
    buffer = ReplayBuffer(make_layout(), 8)
    rng = np.random.default_rng(0)
    stored = [
        make_transition(
            make_layout(), step=2 * i, reward=float(i), next_observation=rng.uniform(-1, 1, 3)
        )
        for i in range(count)
    ]
    for transition in stored:
        buffer.add(transition)
    return buffer, stored


def draw(buffer: ReplayBuffer) -> Batch:
    return buffer.sample(16, np.random.default_rng(1))


def reward(kind: str) -> CustomisedReward:
    config = CustomisationConfig(reward=kind, add_on=tuple(ADD_ONS.to_list()))
    return CustomisedReward(config, make_layout())


def test_basic_add_on_and_total_come_apart():
    buffer, stored = filled()
    batch = draw(buffer)
    basic, add_on, total = (reward(kind)(batch) for kind in ('basic', 'add_on', 'total'))
    assert basic.tolist() == [stored[row].reward for row in batch.row]
    # Of a decision of two steps.
    expected = [2.0 * stored[row].next_observation[2] for row in batch.row]
    assert add_on.tolist() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(total, basic + add_on)


def test_the_reward_of_a_transition_is_that_of_its_row():
    buffer, stored = filled()
    batch = draw(buffer)
    for kind in ('basic', 'add_on', 'total'):
        rewards = reward(kind)
        alone = [rewards.of_transition(stored[row]) for row in batch.row]
        assert rewards(batch).tolist() == pytest.approx(alone, rel=1e-6)


def test_another_add_on_counts_from_the_next_batch_and_zero_weight_is_the_basic_reward():
    buffer, _ = filled()
    batch = draw(buffer)
    rewards = reward('total')
    before = rewards.add_on(batch)
    rewards.set_add_on(SIDE.replace('high', 'low'), 3.0)
    torch.testing.assert_close(rewards.add_on(batch), -3.0 * before)
    rewards.set_add_on(SIDE, 0.0)
    assert torch.equal(rewards(batch), batch.reward)
    rewards.set_add_on('')
    assert torch.equal(rewards(batch), batch.reward)


def test_a_wrong_add_on_is_refused_and_the_old_one_stays():
    rewards = reward('add_on')
    for text, weight, cause in (
        (SIDE.replace('tool.z', 'tool.q'), 1.0, "no observation 'tool.q'"),
        ('[{name: nothing}]', 1.0, "add-on is 'nothing'"),
        (SIDE, float('nan'), 'add_on_weight is nan'),
    ):
        with pytest.raises(ConfigError, match=cause):
            rewards.set_add_on(text, weight)
    assert (rewards.add_ons, rewards.weight) == (ADD_ONS, 1.0)


def test_summed_decisions_have_no_add_on_reward():
    buffer, _ = filled()
    with pytest.raises(ConfigError, match='n_step is 2, expected 1'):
        reward('add_on')(buffer.sample(16, np.random.default_rng(1), 0.9, 2))


@pytest.mark.parametrize(
    ('key', 'value', 'cause'),
    [
        ('prior_weight', -0.1, 'prior_weight is -0.1'),
        ('prior_weight', float('inf'), 'prior_weight is inf'),
        ('temperature', 0.0, 'temperature is 0.0'),
        ('temperature', 1e9, 'temperature is 1000000000.0'),
        ('reward', 'all', "reward is 'all'"),
        ('add_on', [{'name': 'nothing'}], "add-on is 'nothing'"),
        ('add_on', 'nothing', "add_on is 'nothing', expected a list of maps"),
    ],
)
def test_a_knob_out_of_range_is_one_line(key, value, cause):
    with pytest.raises(ConfigError, match=cause):
        from_mapping(CustomisationConfig, {key: value}, 'preset')
