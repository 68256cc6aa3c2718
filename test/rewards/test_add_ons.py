# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What each add-on is worth, on numbers computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import resource_path
from residual_rl_ros.rewards.add_on import ADD_ONS
from residual_rl_ros.rewards.composition import AddOns

NAMES = ('x', 'y', 'vx', 'vy')
ACTIONS = ('u', 'v')


def worth(name: str, after: Any, *, before: Any = None, actions: Any = None, **keys: Any) -> float:
    """Return the reward of a decision; what is not given is zero."""
    after = np.asarray(after, dtype=float)
    before = np.zeros(len(after)) if before is None else np.asarray(before, dtype=float)
    actions = np.zeros((1, 2)) if actions is None else np.asarray(actions, dtype=float)
    bound = AddOns.of({'name': name, **keys}).bind(NAMES, ACTIONS, len(actions))
    return float(bound.of_decision(before, actions.ravel(), after))


@pytest.mark.parametrize(
    ('point', 'margin', 'expected'),
    [
        ([0.5, 0.5], 0.2, -1.0),
        ([1.0, 1.0], 0.2, -1.0),
        ([1.1, 0.5], 0.2, -0.5),
        ([1.03, 1.04], 0.1, -0.5),
        ([1.3, 0.5], 0.2, 0.0),
        ([-0.1, 0.5], 0.2, -0.5),
        ([1.0, 0.5], 0.0, -1.0),
        ([1.001, 0.5], 0.0, 0.0),
    ],
)
def test_a_box_costs_inside_and_fades_over_its_margin(
    point: list[float], margin: float, expected: float
) -> None:
    box = {'point': ['x', 'y'], 'lower': [0.0, 0.0], 'upper': [1.0, 1.0], 'margin': margin}
    assert worth('keep_out_box', [*point, 0, 0], **box) == pytest.approx(expected)


def test_a_speed_costs_what_it_is_above_its_limit() -> None:
    speed = {'velocities': ['vx', 'vy'], 'limit': 2.5}
    assert worth('speed_limit', [0, 0, 3.0, 4.0], **speed) == -1.0
    assert worth('speed_limit', [0, 0, 1.5, 2.0], **speed) == 0.0


def test_a_speed_from_positions_is_that_over_all_steps_of_a_decision() -> None:
    speed = {'positions': ['x', 'y'], 'limit': 0.5, 'rate_hz': 10.0}
    moved = {'before': [1.0, 1.0, 0, 0], 'after': [1.3, 1.4, 0, 0]}
    # 0.5 in one step of 0.1 s is 5/s; in two steps it is 2.5/s, twice.
    assert worth('speed_limit', actions=np.zeros((1, 2)), **moved, **speed) == pytest.approx(-9.0)
    assert worth('speed_limit', actions=np.zeros((2, 2)), **moved, **speed) == pytest.approx(-8.0)


def test_comfort_is_the_mean_square_distance_in_half_ranges() -> None:
    comfort = {'joints': ['x', 'y'], 'pose': [0.5, -1.0], 'half_range': [1.0, 2.0]}
    assert worth('joint_comfort', [0.5, -1.0, 9, 9], **comfort) == 0.0
    assert worth('joint_comfort', [1.5, -3.0, 9, 9], **comfort) == pytest.approx(-1.0)
    assert worth('joint_comfort', [1.5, -1.0, 9, 9], **comfort) == pytest.approx(-0.5)


def test_smoothness_counts_each_change_of_the_action() -> None:
    steps = [[1.0, 0.0], [2.0, 0.0], [2.0, 3.0]]
    assert worth('smoothness', np.zeros(4), actions=steps) == -(1.0 + 9.0) / 2
    measured = {'before': [0.0, 2.0, 0, 0], 'measured_by': ['x', 'y']}
    assert worth('smoothness', np.zeros(4), actions=steps, **measured) == -(5.0 + 1.0 + 9.0) / 2
    scaled = AddOns.of({'name': 'smoothness', 'actions': ['v'], 'scale': [3.0]})
    bound = scaled.bind(NAMES, ACTIONS, 3)
    assert bound.of_decision(np.zeros(4), np.ravel(steps), np.zeros(4)) == -1.0


def test_smoothness_of_single_steps_needs_a_measurement() -> None:
    with pytest.raises(ConfigError, match='measured_by'):
        worth('smoothness', np.zeros(4))
    with pytest.raises(ConfigError, match='measured_by has 1 numbers, expected 2'):
        worth('smoothness', np.zeros(4), measured_by=['x'])
    with pytest.raises(ConfigError, match='scale has 3 numbers, expected 2'):
        worth('smoothness', np.zeros(4), measured_by=['x', 'y'], scale=[1.0, 1.0, 1.0])


def test_a_side_is_worth_from_minus_one_to_one() -> None:
    side = {'position': 'y', 'centre': 1.0, 'half_width': 2.0}
    for y, high in ((-9.0, -1.0), (-1.0, -1.0), (1.0, 0.0), (2.0, 0.5), (3.0, 1.0), (9.0, 1.0)):
        assert worth('side_preference', [0, y, 0, 0], side='high', **side) == high
        assert worth('side_preference', [0, y, 0, 0], side='low', **side) == -high


@pytest.mark.parametrize(
    ('name', 'value', 'expected'),
    [
        ('cart_pole_centre', -1.2, -0.5),
        ('highway_right', 1.0, 0.5),
        ('parking_boundary', 1.0, -1.0),
        ('parking_boundary', 0.0, 0.0),
        ('half_cheetah_front_foot', -0.3, -3.0),
        ('swimmer_first_joint', 0.7, -0.7),
        ('hopper_height', 1.25, 2.5),
        ('ant_sideways', 2.0, -2.0),
    ],
)
def test_the_add_ons_of_the_papers_read_the_next_observation(
    name: str, value: float, expected: float
) -> None:
    assert worth(name, [0, value, 0, 0], before=np.full(4, 9.0), reads='y') == expected


def test_mountain_car_pays_for_each_step_to_the_left() -> None:
    steps = [[-0.01, 1.0], [0.0, -1.0], [0.5, 0.0], [-1.0, 0.0]]
    found = worth('mountain_car_less_left', np.zeros(4), actions=steps, action='u')
    assert found == pytest.approx(-0.2)


def test_the_reference_lists_every_add_on() -> None:
    page = resource_path('docs', 'reference', 'add_ons.md').read_text(encoding='utf-8')
    assert not [name for name in ADD_ONS if f'| `{name}` |' not in page]
