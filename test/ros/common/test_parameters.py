# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters are described, checked, and change while the robot runs only where that is safe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import pytest
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import resource_path
from residual_rl_ros.ros.common.node_parameters import (
    LearnerParameters,
    PolicyParameters,
    RecorderParameters,
    RewardParameters,
    SimParameters,
)
from residual_rl_ros.ros.common.parameters import follow_parameters, read_parameters, read_tree
from residual_rl_ros.schema import Key, parameter

pytestmark = pytest.mark.ros

KINDS = (
    PolicyParameters,
    LearnerParameters,
    RewardParameters,
    RecorderParameters,
    SimParameters,
)


@dataclass(frozen=True)
class Example:
    name: str = parameter('', 'a name')
    ratio: float = parameter(0.5, 'a ratio', minimum=0.0, maximum=1.0, live=True)
    count: int = parameter(1, 'a count', minimum=1)
    scales: tuple[float, ...] = parameter((0.1,), 'scales', minimum=0.0)
    robots: tuple[str, ...] = parameter(('',), 'names')


@pytest.fixture
def make(domain_id: int) -> Iterator[Any]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    nodes = []

    def create(**values: Any) -> Node:
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        nodes.append(
            Node(
                'example',
                context=context,
                parameter_overrides=overrides,
                automatically_declare_parameters_from_overrides=True,
            )
        )
        return nodes[-1]

    yield create
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def test_values_are_read_with_their_descriptions_and_ranges(make: Any) -> None:
    node = make(ratio=1, scales=[1, 2], robots=['a', 'b'], name='x')
    assert read_parameters(node, Example) == Example('x', 1.0, 1, (1.0, 2.0), ('a', 'b'))
    ratio = node.describe_parameter('ratio')
    assert (ratio.description, ratio.read_only) == ('a ratio', False)
    limits = ratio.floating_point_range[0]
    assert (limits.from_value, limits.to_value) == (0.0, 1.0)
    assert node.describe_parameter('count').integer_range[0].from_value == 1
    assert node.describe_parameter('name').read_only


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (
            {'ratio': 1.5},
            r"'ratio' is 1.5, expected a number >= 0.0 and <= 1.0: a r",
        ),
        ({'count': 0}, r"'count' is 0, expected a whole number >= 1: a count"),
        ({'count': 1.5}, r"'count' is 1.5, expected a whole number >= 1: a count"),
        ({'name': 3}, r"'name' is 3, expected a string: a name"),
        (
            {'scales': [0.1, -0.1]},
            r"'scales' is \[0.1, -0.1\], expected a list of num",
        ),
    ],
)
def test_a_wrong_value_is_refused(make: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_parameters(make(**values), Example)


def test_every_wrong_parameter_is_named_at_once(make: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        read_parameters(make(count=0, name=3), Example)
    assert caught.value.problems == (
        "parameter 'name' is 3, expected a string: a name",
        "parameter 'count' is 0, expected a whole number >= 1: a count",
    )
    assert str(caught.value).startswith('example: parameter')


def test_live_parameters_change_and_others_do_not(make: Any) -> None:
    node = make(robot_name='x')
    seen: list[Example] = []
    follow_parameters(node, read_parameters(node, Example), seen.append)

    def set_to(name: str, value: Any) -> tuple[bool, str]:
        result = node.set_parameters([Parameter(name, value=value)])[0]
        return result.successful, result.reason

    assert set_to('ratio', 0.25) == (True, '')
    assert seen == [Example(ratio=0.25)]
    for name, value in (('ratio', 2.0), ('ratio', 'x'), ('count', 2), ('robot_name', 'y')):
        successful, reason = set_to(name, value)
        assert not successful
        assert reason
    assert seen == [Example(ratio=0.25)]
    assert node.get_parameter('ratio').value == 0.25


@pytest.mark.parametrize('at_start', [False, True])
def test_the_clock_of_a_node_that_runs_is_neither_stopped_nor_changed(
    make: Any, at_start: bool
) -> None:
    node = make(use_sim_time=at_start)
    end = follow_parameters(node, read_parameters(node, Example), lambda changed: None)
    (result,) = node.set_parameters([Parameter('use_sim_time', value=not at_start)])
    assert not result.successful
    for part in (f'use_sim_time of example is {at_start}', 'launch file', '--ros-args -p use_sim'):
        assert part in result.reason
    assert node.get_parameter('use_sim_time').value == at_start
    assert (node.get_clock().now().nanoseconds == 0) == at_start  # Nobody publishes /clock.
    end()
    (result,) = node.set_parameters([Parameter('use_sim_time', value=not at_start)])
    assert result.successful


def test_a_tree_of_parameters_is_described_and_read_only_from_then_on(make: Any) -> None:
    values = {'robot.name': 'x', 'robot.action.lower': [0.0, 1.0], 'other': 3}
    node = make(**values)
    for _ in range(2):  # A node is configured again.
        assert read_tree(node, 'robot') == {'name': 'x', 'action': {'lower': [0.0, 1.0]}}
    lower = node.describe_parameter('robot.action.lower')
    assert (lower.description, lower.read_only) == (
        'robot: read once, when example is configured',
        True,
    )
    assert not node.set_parameters([Parameter('robot.name', value='y')])[0].successful
    assert node.set_parameters([Parameter('other', value=4)])[0].successful


def test_every_parameter_is_in_the_reference() -> None:
    text = resource_path('docs', 'reference', 'parameters.md').read_text(encoding='utf-8')
    for kind in KINDS:
        for item in fields(kind):
            assert f'\n`{item.name}`: ' in text
            assert Key.of(item).description in ' '.join(text.split())
