# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a robot is asked for beside its task is told in its transitions, and can be switched off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from base_policy_builders import LinearPolicy
from robot_builders import make_action_spec
from transition_builders import make_layout

from residual_rl_ros.config.preset import load_preset
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.customisation import Customisation
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.rewards.composition import AddOns, decision_reward
from residual_rl_ros.transitions.transition import Source, Success, Transition

BOX = '[{name: keep_out_box, point: [tool.z], lower: [-0.1], upper: [9.0], weight: 2.0}]'
STEP = StepFeedback(0.0, False, False, Success.UNLABELLED)
END = StepFeedback(1.0, True, False, Success.SUCCESS)


def make_controller(**changes: Any) -> ResidualController:
    config = ControllerConfig(
        **{
            'decision_steps': 2,
            'residual_scale': (2.0,),
            'proposals': 4,
            'customisable': True,
            'explore': True,
            'seed': 3,
            'scheduled_actor': False,
            **changes,
        }
    )
    return config.build(LinearPolicy(stochastic=True), make_action_spec())


def remix(controller: ResidualController) -> None:
    """Give it a robot policy that chooses sharply among the proposals."""
    numbers = {'hidden_sizes': [8], 'offline_updates': 0, 'temperature': 1e-3}
    rule = load_preset('q_remix', numbers).make_rule(
        controller.layout, torch.Generator().manual_seed(0), np.random.default_rng(0)
    )
    header = WeightsHeader(1, 0, Exploration())
    assert controller.mailbox.submit(encode_weights(rule.robot_policy(), header))


def play(
    controller: ResidualController, decisions: int = 4, episode: int = 0, change: Any = None
) -> tuple[np.ndarray, list[Transition]]:
    """Play an episode over made-up observations; return its commands and transitions."""
    rng = np.random.default_rng(episode)
    controller.begin_episode(episode, rng.normal(0.0, 0.1, 3), 0.0)
    commands, transitions = [], []
    for step in range(2 * decisions):
        if change is not None and step == 4:
            change()
        commands.append(controller.command())
        last = step == 2 * decisions - 1
        told = controller.step(rng.normal(0.0, 0.3, 3), 0.1 * step, END if last else STEP)
        transitions += [told] if told else []
    return np.array(commands), transitions


def test_a_transition_tells_the_add_on_of_weight_one_and_the_weight_it_was_decided_with() -> None:
    controller = make_controller()
    controller.customisation.change(BOX, 0.5)
    _, transitions = play(controller, change=lambda: controller.customisation.change(BOX, 3.0))
    reward = decision_reward(AddOns.from_yaml(BOX), controller.layout)
    assert [each.add_on.tolist() for each in transitions] == [
        [reward.of_transition(each), weight]
        for each, weight in zip(transitions, (0.5, 0.5, 3.0, 3.0), strict=True)
    ]
    assert {each.add_on[0] for each in transitions} == {0.0, -4.0}  # Two steps of weight 2.
    assert controller.customisation.reward == sum(each.add_on[0] for each in transitions)
    controller.begin_episode(1, np.zeros(3), 0.0)
    assert controller.customisation.reward == 0.0


def test_weight_zero_is_the_base_bit_for_bit_and_any_other_weight_is_not() -> None:
    base = make_controller(customisable=False)
    plain = [play(base, episode=episode)[0] for episode in range(3)]
    controller = make_controller()
    remix(controller)
    changed = [play(controller, episode=episode)[0] for episode in range(3)]
    assert not np.array_equal(changed, plain)
    controller.customisation.change('', 0.0)
    for episode in range(3):
        commands, transitions = play(controller, episode=episode)
        assert commands.tobytes() == plain[episode].tobytes()
        assert {each.source for each in transitions} == {Source.BASE}
    controller.customisation.change('', 1.0)
    assert np.array_equal([play(controller, episode=episode)[0] for episode in range(3)], changed)


def test_a_choice_that_fades_in_is_made_whole_in_a_share_of_the_decisions() -> None:
    controller = make_controller()
    remix(controller)
    controller.residual.blend_ratio = 0.5
    chosen = 0
    for episode in range(6):
        for each in play(controller, episode=episode)[1]:
            planned = each.base_action + each.residual_action * np.tile(
                controller.layout.residual_bound, 2
            )
            proposals = np.vstack([each.base_action, each.proposals.reshape(3, -1)])
            assert np.isclose(proposals, planned).all(1).any()
            chosen += each.residual_action.any()
    assert 0 < chosen < 24


def test_a_change_acts_from_the_next_decision_on() -> None:
    controller, base = make_controller(), make_controller()
    remix(controller)
    off = lambda: controller.customisation.change('', 0.0)  # noqa: E731
    _, transitions = play(controller, change=off)
    assert [each.source for each in transitions] == [
        Source.RESIDUAL,
        Source.RESIDUAL,
        Source.BASE,
        Source.BASE,
    ]
    assert all(not each.residual_action.any() for each in transitions[2:])
    assert [each.source for each in play(base)[1]] == [Source.BASE] * 4


def failing(observation_names: Any, action_names: Any) -> Any:
    """Return a reward that is no number where the observation is negative."""
    del observation_names, action_names

    def reward(observation: Any, action: Any, next_observation: Any) -> Any:
        return np.where(next_observation[..., 2] < 0.0, np.nan, 1.0)

    return reward


def test_a_reward_that_is_no_number_is_counted_and_told_as_nothing_known() -> None:
    controller = make_controller()
    text = '[{name: test_customisation:failing}]'
    controller.customisation._reward = decision_reward(
        AddOns.of([{'name': f'{__name__}:failing'}]), controller.layout
    )
    _, transitions = play(controller, decisions=8)
    blocks = [each.add_on.tolist() for each in transitions]
    assert {tuple(block) for block in blocks} == {(0.0, 0.0), (2.0, 1.0)}
    assert controller.customisation.failures == blocks.count([0.0, 0.0])
    assert 'told with weight 0' in controller.customisation.problem
    for each in transitions:
        controller.layout.encode(each)
    with pytest.raises(ConfigError, match='imports no code'):
        controller.customisation.change(text, 1.0)


@pytest.mark.parametrize(
    ('text', 'weight', 'reason'),
    [
        ('[{name: keep_out_bux}]', 1.0, 'expected one of'),
        (BOX.replace('tool.z', 'tool.x'), 1.0, 'the robot has no observation'),
        (BOX, -1.0, 'expected a number from 0'),
        (BOX, float('nan'), 'expected a number from 0'),
        ('{', 1.0, 'add_on'),
        ('[{name: os:getcwd}]', 1.0, 'imports no code'),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_line_and_changes_nothing(
    text: str, weight: float, reason: str
) -> None:
    customisation = Customisation(make_layout(customisable=True))
    customisation.change(BOX, 2.0)
    with pytest.raises(ConfigError, match=reason) as error:
        customisation.change(text, weight)
    assert '\n' not in str(error.value)
    assert (customisation.text, customisation.weight) == (BOX, 2.0)
    assert 'name: keep_out_box' in customisation.to_yaml()


def test_transitions_without_room_for_it_refuse_an_add_on() -> None:
    customisation = Customisation(make_layout())
    with pytest.raises(ConfigError, match='customisable:=true'):
        customisation.change(BOX, 1.0)
    assert not customisation.off
