# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Launch arguments are checked before anything starts, a line for each that is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ready_robots import ROBOTS

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import resource_path
from residual_rl_ros.ros.bringup.launch_arguments import (
    ROBOT_ARGUMENTS,
    SHARED_ARGUMENTS,
    configured,
    parsed,
    robot_run,
)
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.topology import robot_topology

ROBOT = {'config': 'peg_insert', 'model': 'peg_insert'}


def values(**texts: str) -> dict[str, Any]:
    """Return the values of a robot's launch arguments, given the texts of some."""
    defaults = {each.name: each.default for each in ROBOT_ARGUMENTS}
    return parsed(ROBOT_ARGUMENTS, {**defaults, **ROBOT, **texts}, lambda line: None)


def test_every_wrong_argument_has_a_line() -> None:
    lines: list[str] = []
    texts = {each.name: each.default for each in ROBOT_ARGUMENTS}
    texts |= {'seed': '-1', 'log_level': 'loud', 'learner': 'ture', 'overrides': '[gamma]'}
    with pytest.raises(ConfigError) as caught:
        parsed(ROBOT_ARGUMENTS, texts, lines.append)
    assert [*lines, str(caught.value)] == [
        "learner is 'ture', expected true or false",
        "seed is '-1', expected a whole number from 0 on",
        "log_level is 'loud', expected one of debug, info, warn, error, fatal",
        "overrides is '[gamma]', expected a map such as {batch_size: 256, gamma: 0.99}",
    ]


def test_no_decision_takes_no_step_and_a_tilde_is_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('decision_steps', 'proposals'):
        with pytest.raises(ConfigError, match=rf"{name} is '0', expected a whole number from 1 on"):
            values(**{name: '0'})
    monkeypatch.setenv('HOME', '/home/robot')
    given = values(checkpoint='~/run', record='~/bag', classifier='~/c.onnx')
    names = ('checkpoint', 'record', 'classifier')
    assert [str(given[name]) for name in names] == [
        f'/home/robot/{name}' for name in ('run', 'bag', 'c.onnx')
    ]


@pytest.mark.parametrize('content', [None, 'gamma: 0.9', '[1, 2]', 'policy_node: {seed: 1}', ': :'])
def test_a_parameter_file_that_is_none_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / 'more.yaml'
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r'^params_file is .*more.yaml.*, expected a YAML file'):
        values(params_file=str(path))


def test_the_shared_arguments_reach_every_process(tmp_path: Path) -> None:
    path = tmp_path / 'more.yaml'
    path.write_text('/**: {ros__parameters: {hold_limit_s: 2.0}}')
    value = values(
        use_sim_time='true',
        params_file=str(path),
        log_level='WARN',
        overrides='{gamma: 0.9, actor_hidden_sizes: [8]}',
        autostart='false',
        checkpoint=str(tmp_path),
    )
    nodes = robot_topology(robot_run(value, ('',)))
    for node in configured(nodes, value):
        assert node.parameters['use_sim_time'] is True
        assert node.parameters['autostart'] is False
        assert node.parameter_files[-1] == path
        arguments = node.ros_arguments()
        assert arguments[arguments.index('--log-level') + 1] == 'warn'
        assert '/clock' not in node.remappings
    learner = nodes[0]
    assert dict(learner.flat_parameters())['overrides.gamma'] == 0.9


def test_the_defaults_change_nothing_but_the_log_level(tmp_path: Path) -> None:
    value = values(checkpoint=str(tmp_path))
    nodes = robot_topology(robot_run(value, ('',)))
    for before, after in zip(nodes, configured(nodes, value), strict=True):
        assert after.parameters == before.parameters
        assert after.parameter_files == before.parameter_files
        assert after.log_level == 'info'


def test_a_robot_that_is_ready_is_launched_by_the_name_that_its_page_has() -> None:
    page = (resource_path('package.xml').parent / 'docs/how-to/robots.md').read_text()
    for name in ROBOTS:
        assert re.search(rf'^\| .*`{name}`', page, re.MULTILINE)
        # Whether the base policy fits is a matter of the nodes.
        learner, policy = robot_topology(robot_run(values(config=name), ('',)))
        assert (learner.executable, policy.executable) == ('learner_node', 'policy_node')
        assert [path.name for path in policy.parameter_files] == [f'{name}.yaml']


def test_a_simulator_publishes_its_clock_and_the_others_read_it_in_its_namespace() -> None:
    texts = {each.name: each.default for each in SHARED_ARGUMENTS} | {'use_sim_time': 'yes'}
    value = parsed(SHARED_ARGUMENTS, texts, lambda line: None)
    nodes = [
        NodeSpec('policy_node', True, (), {}, 'sim', {'/joint_states': 'joint_states'}),
        NodeSpec('mujoco_sim_node', False, (), {}, 'sim'),
    ]
    policy, simulator = configured(nodes, value)
    assert policy.remappings == {'/joint_states': 'joint_states', '/clock': 'clock'}
    assert 'use_sim_time' not in simulator.parameters
