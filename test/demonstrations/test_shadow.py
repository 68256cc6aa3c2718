# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The base policy says along a demonstration what it would have said on the robot."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from base_policy_builders import LinearPolicy
from demonstration_builders import LAYOUT, META, episodes
from prior_builders import METADATA, Chooser
from robot_builders import make_action_spec, make_metadata
from transition_builders import make_layout

from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.config.success import SuccessCriterion
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.demonstrations.shadow import Shadow, told_feedback
from residual_rl_ros.errors import DemonstrationError
from residual_rl_ros.transitions.transition import Source, Success, Transition

(EPISODE,) = episodes([7])


@pytest.mark.parametrize('more', [{}, {'proposals': 3, 'customisable': True}], ids=['v1', 'v2'])
def test_transitions_are_those_of_the_robots_own_controller_under_an_operator(
    more: dict[str, Any],
) -> None:
    metadata = make_metadata(n_obs_steps=2)
    config = ControllerConfig(2, (0.1,), Splicing(1, 1), seed=3, **more)
    operated = config.build(LinearPolicy(metadata, stochastic=True), make_action_spec())
    feedback, _ = told_feedback(EPISODE, None)
    operated.begin_episode(0, EPISODE.observations[0], 0.0)
    expected: list[Transition] = []
    for step, told in enumerate(feedback):
        operated.command(takeover=EPISODE.actions[step])
        made = operated.step(EPISODE.observations[step + 1], (step + 1) / metadata.rate_hz, told)
        expected += [] if made is None else [made]
    policy = LinearPolicy(metadata, stochastic=True)
    shadow = Shadow(policy, operated.layout, Splicing(1, 1), seed=3)
    found = list(shadow.transitions(EPISODE, feedback))
    operated.queue.close()
    shadow.close()
    assert len(found) == len(expected) == 4
    assert {t.source for t in found} == {Source.TAKEOVER}
    assert found[-1].terminated
    for one, other in zip(found, expected, strict=True):
        for field in fields(Transition):
            np.testing.assert_array_equal(
                getattr(one, field.name), getattr(other, field.name), err_msg=field.name
            )


def test_demonstrated_discrete_actions_are_one_hot() -> None:
    names = METADATA.action_names
    layout = make_layout(
        action_names=names,
        action_min=(0.0,) * 3,
        action_max=(1.0,) * 3,
        residual_bound=(1.0,) * 3,
        prior='categorical',
        discrete=True,
    )
    shadow = Shadow(Chooser(), layout)
    chosen = replace(EPISODE, actions=np.eye(3)[[0, 0, 2, 1, 2, 0, 1]])
    feedback, _ = told_feedback(chosen, None)
    made = list(shadow.transitions(chosen, feedback))
    np.testing.assert_array_equal(made[0].executed_action, [1, 0, 0, 1, 0, 0])
    assert made[0].prior.any()
    between = replace(EPISODE, actions=np.full((7, 3), 1.0 / 3.0))
    with pytest.raises(DemonstrationError, match=r'its actions are not one-hot, expected 1 for'):
        next(shadow.transitions(between, feedback))
    shadow.close()


def test_another_base_policy_is_refused_by_what_differs() -> None:
    with pytest.raises(DemonstrationError, match=r'has action_max \[1.0, 0.6\], that of .* 0.5\]'):
        Shadow(LinearPolicy(replace(META, action_max=(1.0, 0.6))), LAYOUT)


def test_the_first_solved_step_ends_a_demonstration_with_the_reward_of_a_success() -> None:
    solved = np.array([False, False, True, True, False, True, True])
    for rewards, marks in ((None, solved), (solved * 1.0, None), (np.full(7, 0.3), solved)):
        episode = replace(EPISODE, rewards=rewards, solved=marks)
        feedback, outcome = told_feedback(episode, SuccessCriterion.parse('success:stop'))
        assert outcome is True
        assert [told.reward for told in feedback] == [0.0, 0.0, 1.0]
        assert feedback[-1].terminated
        assert feedback[-1].success is Success.SUCCESS


def test_a_label_of_the_whole_and_none_at_all_count_at_the_last_step() -> None:
    for marks, outcome in ((np.ones(7, dtype=bool), True), (None, None)):
        episode = replace(EPISODE, rewards=None, solved=marks)
        feedback, told = told_feedback(episode, None)
        assert told is outcome
        assert len(feedback) == 7
        assert (feedback[-1].reward, feedback[-1].terminated) == (1.0, True)
    shaped = replace(EPISODE, rewards=np.full(7, 0.3))
    assert told_feedback(shaped, None)[1] is None


@pytest.mark.parametrize(
    ('success', 'label', 'terminated'),
    [
        ('return', Success.UNLABELLED, False),
        ('success:once', Success.SUCCESS, False),
        ('terminated', Success.SUCCESS, True),
    ],
)
def test_a_task_with_rewards_of_its_own_keeps_them(
    success: str, label: Success, terminated: bool
) -> None:
    rewards = np.linspace(0.1, 0.7, 7)
    episode = replace(EPISODE, rewards=rewards, solved=np.eye(7, dtype=bool)[4])
    feedback, _ = told_feedback(episode, SuccessCriterion.parse(success))
    assert [told.reward for told in feedback] == rewards.tolist()
    assert (feedback[-1].terminated, feedback[-1].truncated) == (terminated, not terminated)
    assert feedback[-1].success is label


def test_a_last_step_without_an_observation_after_it_counts_with_the_one_before() -> None:
    episode = replace(EPISODE, observations=EPISODE.observations[:-1], rewards=np.full(7, 0.5))
    feedback, _ = told_feedback(episode, SuccessCriterion.parse('return'))
    assert [told.reward for told in feedback] == [0.5] * 5 + [1.0]


def test_a_task_with_rewards_of_its_own_needs_them() -> None:
    for success in ('return', 'success:once'):
        with pytest.raises(DemonstrationError, match=f'demo_0 has no rewards, .* {success}'):
            told_feedback(replace(EPISODE, rewards=None), SuccessCriterion.parse(success))
