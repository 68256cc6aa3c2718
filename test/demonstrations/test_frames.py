# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Demonstrations of other names, sizes, ranges and rates are refused by name, or mapped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demonstration_builders import META, episodes
from robot_builders import ACTIONS, OBSERVATIONS, make_action_spec

from residual_rl_ros.demonstrations.frames import (
    DemonstratedEpisode,
    Number,
    fitting_episodes,
    read_observation_map,
)
from residual_rl_ros.errors import DemonstrationError

PATH = Path('recorded.file')


class Recorded:
    """Demonstrations in memory."""

    path = PATH

    def __init__(self, **changes: Any) -> None:
        self.rate_hz: float | None = changes.get('rate_hz', 20.0)
        self.action_names: tuple[str, ...] | None = changes.get('action_names', ACTIONS)
        self.action_size = changes.get('action_size', 2)
        names = changes.get('names', OBSERVATIONS)
        self.numbers: Mapping[str, Number] = {name: ('all', i) for i, name in enumerate(names)}
        self.recorded: Sequence[DemonstratedEpisode] = changes.get('recorded', episodes())

    def episodes(self, observed: Sequence[Number], order: Sequence[int]) -> Any:
        for episode in self.recorded:
            seen = episode.observations[:, [index for _, index in observed]]
            yield replace(episode, observations=seen, actions=episode.actions[:, list(order)])


def read(observation_map: dict[str, str] | None = None, **changes: Any) -> list[Any]:
    recorded = Recorded(**changes)
    return list(fitting_episodes(recorded, META, make_action_spec(), observation_map or {}))


def test_observations_and_actions_are_taken_by_their_names_in_the_order_of_the_base() -> None:
    (episode, *_) = read(names=OBSERVATIONS[::-1], action_names=ACTIONS[::-1])
    (expected, *_) = episodes()
    np.testing.assert_array_equal(episode.observations, expected.observations[:, ::-1])
    np.testing.assert_array_equal(episode.actions, expected.actions[:, ::-1])


def test_a_map_says_what_other_names_stand_for() -> None:
    names = ['q[0]', 'q[1]', 'tool.z']
    (episode, *_) = read({'arm.position.a': 'q[1]', 'arm.position.b': 'q[0]'}, names=names)
    np.testing.assert_array_equal(episode.observations, episodes()[0].observations[:, [1, 0, 2]])


def test_missing_observations_are_named_with_what_there_is_and_how_to_map_it() -> None:
    names = [*(f'q[{index}]' for index in range(7)), 'tool.z']
    with pytest.raises(DemonstrationError) as refused:
        read({'arm.position.b': 'p[1]'}, names=names)
    for part in (
        'recorded.file: lacks arm.position.a, arm.position.b (mapped to p[1])',
        'it has q[0..6], tool.z',
        "--observation-map 'arm.position.a=KEY[INDEX]'",
    ):
        assert part in str(refused.value)
    with pytest.raises(DemonstrationError, match='does not observe elbow; it observes'):
        read({'elbow': 'q[0]'}, names=names)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (
            {'action_names': ('x', 'a.position')},
            'demonstrates the actions x, a.position, the base policy has a.position, b.position',
        ),
        (
            {'action_names': None, 'action_size': 7},
            'demonstrates 7 actions, the base policy has 2: a.position, b.position',
        ),
        (
            {'recorded': episodes(actions=np.full((4, 2), 3.0))},
            'demo_0, step 0: action a.position spans 3 to 3 in this demonstration, the robot takes '
            '-2 to 2',
        ),
        ({'rate_hz': 30.0}, 'was recorded at 30 Hz, the robot runs at 20 Hz'),
        ({'rate_hz': np.nan}, 'was recorded at nan Hz'),
    ],
)
def test_another_action_space_or_rate_is_refused_with_both(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(DemonstrationError) as refused:
        read(**changes)
    assert f'recorded.file: {said}' in str(refused.value)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_no_number_is_refused_with_file_episode_and_step(value: float) -> None:
    for field, name in (
        ('observations', 'observation arm.position.b'),
        ('actions', 'action b.position'),
        ('rewards', 'reward '),
    ):
        good = episodes()
        spoiled = getattr(good[1], field).copy()
        spoiled[(2, 1) if spoiled.ndim == 2 else 2] = value
        recorded = [good[0], replace(good[1], **{field: spoiled})]
        with pytest.raises(DemonstrationError) as refused:
            read(recorded=recorded)
        assert f'recorded.file: demo_1, step 2: {name}' in str(refused.value)


def test_an_action_a_rounding_beyond_the_limit_is_the_limit() -> None:
    (episode,) = read(recorded=episodes([4], actions=np.full((4, 2), 2.0 + 1e-7)))
    assert (episode.actions == 2.0).all()


def test_a_map_comes_from_assignments_and_yaml_files(tmp_path: Path) -> None:
    file = tmp_path / 'names.yaml'
    file.write_text('b: "obs[1]"\n')
    assert read_observation_map(['a=obs[0]', str(file)]) == {'a': 'obs[0]', 'b': 'obs[1]'}
    file.write_text('[a, b]')
    for text, said in ((str(file), 'expected names of the base'), ('nowhere', 'neither NAME=KEY')):
        with pytest.raises(DemonstrationError, match=said):
            read_observation_map([text])
