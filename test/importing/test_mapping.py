# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Map files: names, units and order of the robot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from residual_rl_ros.errors import ConfigError, PolicyImportError
from residual_rl_ros.importing.mapping import (
    FromRobot,
    PolicyMap,
    ToRobot,
    map_numbers,
    read_map,
    robot_range,
)

NAMES = ('pan.pos', 'gripper.pos')
TEXT = """
rate_hz: 30
action:
  pan.pos: {name: pan, unit: degrees}
  gripper.pos: {name: gripper, checkpoint: [-100, 100], robot: [0.0, 0.08]}
action_order: [gripper, pan]
images: {top: camera_top}
"""


@pytest.fixture
def policy_map(tmp_path: Path) -> PolicyMap:
    (tmp_path / 'map.yaml').write_text(TEXT)
    return read_map(tmp_path / 'map.yaml')


def test_a_map_is_read(policy_map: PolicyMap) -> None:
    assert policy_map.rate_hz == 30.0
    assert policy_map.channel('observation.images.top') == 'camera_top'
    assert policy_map.channel('observation.images.wrist') == 'wrist'
    assert map_numbers(policy_map, 'action', NAMES).names == ('gripper', 'pan')


def test_what_goes_to_the_robot_comes_back_the_same(policy_map: PolicyMap) -> None:
    mapped = map_numbers(policy_map, 'action', NAMES)
    action = torch.tensor([[[90.0, -100.0], [-180.0, 50.0]]])
    robot = ToRobot(mapped)(action)
    expected = [[[0.0, np.pi / 2], [0.06, -np.pi]]]
    np.testing.assert_allclose(robot, expected, atol=1e-6)
    torch.testing.assert_close(FromRobot(mapped)(robot), action, atol=1e-4, rtol=1e-6)


def test_a_range_is_turned_into_the_units_of_the_robot(policy_map: PolicyMap) -> None:
    mapped = map_numbers(policy_map, 'action', NAMES)
    low, high = robot_range(mapped, np.array([-90.0, -100.0]), np.array([90.0, 100.0]), NAMES)
    np.testing.assert_allclose(low, [0.0, -np.pi / 2])
    np.testing.assert_allclose(high, [0.08, np.pi / 2])


def test_an_axis_that_points_the_other_way_keeps_its_range_in_order() -> None:
    turned = PolicyMap(action={'a': {'checkpoint': [0, 1], 'robot': [1, 0]}})
    mapped = map_numbers(turned, 'action', ('a',))
    assert robot_range(mapped, np.array([0.0]), np.array([0.25]), ('a',)) == ((0.75,), (1.0,))


def test_a_range_that_nothing_says_is_asked_for() -> None:
    mapped = map_numbers(PolicyMap(action={'b': {'range': [0, 1]}}), 'action', ('a', 'b'))
    with pytest.raises(PolicyImportError, match='range of the actions a; give the dataset'):
        robot_range(mapped, None, None, ('a', 'b'))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('rate: 30', 'rate is unknown; did you mean rate_hz?'),
        ('action: {a: {unit: grad}}', "action.a.unit is 'grad', expected one of same, degrees"),
        ('action: {a: {checkpoint: [0, 1]}}', 'action.a.checkpoint: give both'),
        ('action: {a: {robot: [1, 1], checkpoint: [0, 1]}}', 'expected two different numbers'),
        ('action: {a: {unit: degrees, robot: [0, 1], checkpoint: [0, 1]}}', 'give one of them'),
        ('action: {a: {range: [1, 0]}}', 'expected smallest and largest'),
        ('action: {a: {robot: [0, 5.0e-324], checkpoint: [0, 1]}}', 'action.a.robot: is .*float32'),
        (
            'action: {a: {robot: [0, 1.0e+30], checkpoint: [0, 1.0e-9]}}',
            'action.a.robot: is .*float32',
        ),
        ('action: {a: {robot: [-1.0e+308, 1.0e+308], checkpoint: [0, 1]}}', 'action.a.robot: is'),
        ('action: {a: 3}', 'action.a.the content is 3, expected a map'),
        ('images: {top: 3}', 'images.top: is 3, expected the name of an image channel'),
        ('[1]', 'the content is \\[1\\], expected a map'),
    ],
)
def test_a_wrong_map_is_refused_by_key(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / 'map.yaml').write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_map(tmp_path / 'map.yaml')


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'action': {'turn': 'pan'}}, 'action of the map names turn, the checkpoint has pan.pos'),
        ({'action_order': ('pan.pos',)}, 'action_order of the map lacks gripper.pos'),
        ({'action_order': (*NAMES, 'c')}, 'has c that the checkpoint does not give'),
        (
            {'action': dict.fromkeys(NAMES, 'pan'), 'action_order': ('pan',)},
            'several numbers of the checkpoint the name pan, expected',
        ),
    ],
)
def test_a_map_of_another_checkpoint_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyImportError, match=message):
        map_numbers(PolicyMap(**changed), 'action', NAMES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        ({'side': 'a'}, 'images of the map names side, the checkpoint has'),
        ({'top': 'wrist'}, 'a different one for each'),
    ],
)
def test_cameras_of_a_map_must_be_those_of_the_checkpoint(
    images: dict[str, str], message: str
) -> None:
    with pytest.raises(PolicyImportError, match=message):
        PolicyMap(images=images).check_cameras(
            ['observation.images.top', 'observation.image.wrist']
        )
