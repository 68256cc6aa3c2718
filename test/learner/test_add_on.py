# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A learner is asked for another add-on reward, and learns it from what it has seen."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from learner_builders import learned_bytes, small_config
from transition_builders import make_layout, random_transitions

from residual_rl_ros.config.preset import load_preset
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.learner.learner import Learner, Phase
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.rewards.composition import AddOns, decision_reward

BOX = '[{name: keep_out_box, point: [tool.z], lower: [0.0], upper: [9.0]}]'


def customised(reward: str = 'total', **overrides: Any) -> Learner:
    """Return a learner of a choice among proposals, its warm-up done."""
    layout = make_layout(proposals=3, customisable=True, residual_bound=(2.0, 1.0))
    numbers = {'hidden_sizes': [8], 'batch_size': 8, 'offline_updates': 4, 'guard_share': 0.0}
    numbers = {**numbers, 'warmup_transitions': 20, 'reward': reward, **overrides}
    learner = Learner(load_preset('q_remix', numbers), layout, 0)
    for transition in random_transitions(layout, 25):
        learner.ingest(transition)
    assert learner.phase is Phase.ONLINE
    return learner


def test_a_new_add_on_is_learned_at_once_from_the_memory_and_sent_in_a_new_epoch() -> None:
    learner = customised()
    before, sequence = learned_bytes(learner), learner.sequence
    pulses: list[int] = []
    message = learner.customise(BOX, 2.0, lambda: pulses.append(1))
    assert message is not None
    header, _ = decode_weights(message)
    assert (header.epoch, header.sequence) == (2, 0)
    assert len(pulses) == 4
    assert sequence >= 0
    assert learned_bytes(learner) != before
    assert float(learner.rule.reward(learner.rule.memory.sample_replay(50)).min()) < 0.0
    assert learner.customise(BOX, 3.0) is None, 'its weight acts on the robot'
    assert learner.customise('', 0.0) is None
    assert learner.add_on.asked == (BOX, 3.0), 'what was learned waits'
    again = customised()
    again.load_state_dict(learner.state_dict())
    assert again.add_on.asked == (BOX, 3.0)


def test_the_add_on_of_the_preset_is_not_learned_again_when_it_is_asked_for() -> None:
    preset = [{'name': 'keep_out_box', 'point': ['tool.z'], 'lower': [0.0], 'upper': [9.0]}]
    learner = customised(add_on=preset)
    updates = learner.updates.pretraining
    assert learner.customise('', 2.0) is None
    assert learner.customise(BOX, 1.0) is None
    assert learner.updates.pretraining == updates
    assert learner.customise('', 1.0) is not None, 'no add-on is another one'
    assert float(learner.rule.reward(learner.rule.memory.sample_replay(50)).min()) == 0.0


def test_a_resumed_learner_wants_what_it_wanted_last() -> None:
    preset = [{'name': 'keep_out_box', 'point': ['tool.z'], 'lower': [0.0], 'upper': [9.0]}]
    other = BOX.replace('0.0', '0.25')
    for asked in ([('', 0.25)], [(other, 1.0), ('', 1.0)], [(other, 2.0), ('', 1.0), ('', 3.0)]):
        learner, again = customised(add_on=preset), customised(add_on=preset)
        for text, weight in asked:
            learner.customise(text, weight)
        again.load_state_dict(json.loads(json.dumps(learner.state_dict())))
        for each in (learner, again):
            assert bool(each.rule.reward.add_ons) == (len(asked) == 1)
            assert each.add_on.asked[1] == asked[-1][1]


def test_a_rollback_does_not_begin_the_schedules_anew() -> None:
    learner = customised(beta_start=0.0, beta_transitions=8)
    for transition in random_transitions(learner.layout, 20, seed=3):
        learner.ingest(transition)
    beta = learner.rule.beta
    assert beta > 0.5
    learner.roll_back('for the test')
    assert learner.rule.beta == beta


def test_a_reward_that_is_no_number_costs_one_number_of_a_batch() -> None:
    learner = customised()
    learner.rule.reward._bound = decision_reward(
        AddOns.of([{'name': f'{__name__}:failing_now_and_then'}]), learner.layout
    )
    batch = learner.rule.memory.sample_replay(50)
    rewards = learner.rule.reward.add_on(batch)
    expected = torch.where(batch.next_observation[:, 2] > 0.0, 0.0, 2.0)
    assert torch.equal(rewards, expected)
    assert 0 < learner.rule.reward.failures < 50


def failing_now_and_then(observations: Any, actions: Any) -> Any:
    return lambda observation, action, following: np.where(following[..., 2] > 0.0, np.nan, 1.0)


def test_an_add_on_that_cannot_be_learned_is_refused_and_nothing_changes() -> None:
    for learner, text, reason in (
        (Learner(small_config(), make_layout(), 0), BOX, 'learns from the basic reward alone'),
        (customised('basic'), BOX, 'learns from the basic reward alone'),
        (customised(), BOX.replace('tool.z', 'nowhere'), 'the robot has no observation'),
    ):
        before = learned_bytes(learner)
        with pytest.raises(ConfigError, match=reason):
            learner.customise(text, 1.0)
        assert learned_bytes(learner) == before
        assert learner.add_on.asked == ('', 1.0)


def test_an_add_on_that_the_rule_refuses_leaves_that_of_the_preset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(text: str, weight: float) -> None:
        raise ConfigError('add_on_weight is out of range')

    preset = [{'name': 'keep_out_box', 'point': ['tool.z'], 'lower': [0.0], 'upper': [9.0]}]
    learner = customised(add_on=preset)
    with monkeypatch.context() as patch:
        patch.setattr(learner.rule, 'set_add_on', refuse)
        with pytest.raises(ConfigError, match='out of range'):
            learner.customise(BOX.replace('0.0', '0.25'), 2.0)
    assert learner.add_on.asked == ('', 1.0)
    assert learner.customise('', 2.0) is None, 'it is still that of the preset'
    assert bool(learner.rule.reward.add_ons)
