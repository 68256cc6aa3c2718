# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a task tells success is found out and said before a run depends on it."""

from __future__ import annotations

import re

import gymnasium
import numpy as np
import pytest
from foreign_tasks import register
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from residual_rl_ros.errors import ConfigError, TaskError
from residual_rl_ros.tasks.hosting import describe_robot, make_environment
from residual_rl_ros.tasks.success_probe import settle_success

register()


@pytest.mark.parametrize(
    ('task', 'asked', 'found', 'words'),
    [
        ('Along-v0', 'auto', 'success:once', r"success by info\['success'\] at any step; the epi"),
        ('AtEnd-v0', 'auto', 'is_success:stop', r"success by info\['is_success'\] at any step, wh"),
        ('Falls-v0', 'auto', 'return', r'no success criterion: a probe of 8 steps .* unlabelled'),
        ('Solved-v0', 'auto', 'return', r'a probe of 12 steps told neither .* with --success'),
        ('Solved-v0', 'solved:end', 'solved:end', ''),
        ('Silent-v0', 'solved', 'solved:once', r"told no info\['solved'\]; an episode .* failed"),
        ('Along-v0', 'return', 'return', ''),
        ('peg_insert', 'auto', 'success:end', ''),
        ('peg_insert', 'return', 'return', ''),
    ],
)
def test_what_is_found_is_said(task: str, asked: str, found: str, words: str) -> None:
    said: list[str] = []
    assert settle_success(task, asked, said.append) == found
    assert len(said) == bool(words)
    assert re.search(words, ''.join(said))


def test_a_key_that_is_misspelt_is_refused_with_the_one_that_is_told() -> None:
    with pytest.raises(ConfigError, match=r"tells no info\['succes'\] but info\['success'\]"):
        settle_success('Along-v0', 'succes:once', print)
    with pytest.raises(ConfigError, match=r"peg_insert tells no info\['nix'\] but "):
        settle_success('peg_insert', 'nix', print)


def test_a_task_that_tells_success_twice_is_not_guessed() -> None:
    with pytest.raises(TaskError, match=r'Both-v0: both .* are told; say which one counts'):
        settle_success('Both-v0', 'auto', print)
    assert settle_success('Both-v0', 'success:once', print) == 'success:once'


def test_a_task_that_is_broken_is_named_before_anything_is_trained() -> None:
    with pytest.raises(TaskError, match=r'Broken-v0, episode 0 .*, step 5: reward is nan'):
        settle_success('Broken-v0', 'auto', print)


class Shaped(gymnasium.Env):
    """Has the spaces that it is given, and a constructor without `render_mode`."""

    def __init__(self, observation: gymnasium.Space, action: gymnasium.Space) -> None:
        self.observation_space, self.action_space = observation, action


def shaped(observation: gymnasium.Space | None = None, action: gymnasium.Space | None = None):
    """Return an environment of these spaces as it is hosted."""
    spaces = {
        'observation': observation or Box(-1.0, 1.0, (3,)),
        'action': action or Box(-1.0, 1.0, (2,)),
    }
    gymnasium.registry.pop('Shaped-v0', None)
    gymnasium.register('Shaped-v0', Shaped, kwargs=spaces)
    return make_environment('Shaped-v0')


@pytest.mark.parametrize(
    ('spaces', 'reason'),
    [
        (
            {'action': MultiBinary(3)},
            r'the action space is MultiBinary\(3\), expected a one',
        ),
        ({'action': Box(-1.0, 1.0, (2, 1))}, r'the action space is Box.* one-dimensional Box'),
        ({'action': Box(-1, 1, (2,), np.int64)}, r'actions are of type int64, expected float32'),
        ({'observation': Box(0, 255, (8, 8, 3))}, r'the observation space is .* one-dimensional'),
        ({'observation': Dict(a=gymnasium.spaces.Sequence(Discrete(2)))}, r'is no vector'),
    ],
    ids=lambda value: '' if isinstance(value, dict) else value[:24],
)
def test_a_space_that_no_robot_has_is_refused_by_name(
    spaces: dict[str, gymnasium.Space], reason: str
) -> None:
    with pytest.raises(ConfigError, match=f'Shaped-v0: .*{reason}'):
        shaped(**spaces)


@pytest.mark.parametrize(
    ('low', 'high', 'reason'),
    [
        (-np.inf, np.inf, 'bounded by -inf and inf, expected finite bounds'),
        (0.0, np.inf, 'bounded by 0 and inf, expected finite bounds'),
        (-1e300, 1e300, r'bounded by -1e\+300 and 1e\+300, expected finite bounds'),
        (2.0**24, 2.0**24 + 1.0, 'bounded by 16777216 and 16777217, which networks cannot tell'),
        (-1e-50, 1e-50, 'bounded by -1e-50 and 1e-50, which networks cannot tell apart'),
    ],
)
def test_bounds_that_networks_cannot_hold_are_refused(low: float, high: float, reason: str) -> None:
    env = shaped(action=Box(low, high, (2,), np.float64))
    with pytest.raises(ConfigError, match=rf'Shaped-v0: action\[0\] is {reason}'):
        describe_robot('Shaped-v0', env)


def test_a_constructor_without_render_mode_is_none_too_little() -> None:
    assert shaped().action_space.shape == (2,)
    assert shaped(Dict(a=Box(-1, 1, (2,)), b=Discrete(3))).observation_space.shape == (5,)


def test_a_constructor_that_fails_is_named_with_its_place() -> None:
    def broken() -> gymnasium.Env:
        raise OSError('no licence')

    gymnasium.registry.pop('Unlicensed-v0', None)
    gymnasium.register('Unlicensed-v0', broken)
    with pytest.raises(TaskError, match=r'Unlicensed-v0 cannot be made: OSError: no licence'):
        make_environment('Unlicensed-v0')
