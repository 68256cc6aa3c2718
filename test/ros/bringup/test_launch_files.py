# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The launch files start the nodes of the topologies; tested where ROS 2 is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from actor_builders import write_peg_actor
from ready_robots import ROBOTS

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import resource_path
from residual_rl_ros.ros.bringup.node_spec import ENVIRONMENT
from residual_rl_ros.ros.common.process import ACTIVE_LIMIT_S, PARENT, SAVE_LIMIT_S

launch = pytest.importorskip('launch.launch_description_sources', reason='needs launch, of ROS 2')
pytest.importorskip('launch_ros.actions', reason='needs launch_ros, of ROS 2')

MINIMAL = {
    'sim_finetune.launch.py': {'task': 'push_to_goal'},
    'robot.launch.py': {'config': 'peg_insert', 'model': 'peg_insert'},
    'fleet.launch.py': {'config': 'peg_insert', 'model': 'peg_insert'},
}


def nodes(name: str, **arguments: str) -> list[Any]:
    """Return the node actions that a launch file makes of its arguments."""
    from launch_ros.actions import Node

    from launch import LaunchContext

    path = str(resource_path('launch', name))
    description = launch.PythonLaunchDescriptionSource(path).get_launch_description(LaunchContext())
    context = LaunchContext()
    context.launch_configurations.update(arguments)
    actions: list[Any] = []
    for entity in description.entities:
        actions += entity.execute(context) or []
    return [action for action in actions if isinstance(action, Node)]


def executables(actions: list[Any]) -> list[str]:
    return [action.node_executable for action in actions]


def test_sim_finetune_starts_the_three_processes(tmp_path: Path) -> None:
    arguments = {**MINIMAL['sim_finetune.launch.py'], 'output_dir': str(tmp_path)}
    found = executables(nodes('sim_finetune.launch.py', **arguments))
    assert found == ['learner_node', 'policy_node', 'mujoco_sim_node']


def test_robot_starts_policy_and_learner_or_the_policy_alone(tmp_path: Path) -> None:
    arguments = {**MINIMAL['robot.launch.py'], 'checkpoint': str(tmp_path)}
    assert executables(nodes('robot.launch.py', **arguments)) == ['learner_node', 'policy_node']
    write_peg_actor(tmp_path / 'actor.safetensors')
    alone = executables(nodes('robot.launch.py', **arguments, learner='false'))
    assert alone == ['policy_node']
    bag = str(tmp_path / 'bag')
    recorded = executables(nodes('robot.launch.py', **arguments, record=bag))
    assert recorded == ['learner_node', 'policy_node', 'recorder_node']


@pytest.mark.parametrize('name', ROBOTS)
def test_a_robot_that_is_ready_has_a_launch_of_one_line(name: str, tmp_path: Path) -> None:
    arguments = {'config': name, 'model': 'peg_insert', 'checkpoint': str(tmp_path)}
    found = executables(nodes('robot.launch.py', **arguments))
    assert found == ['learner_node', 'policy_node']


def test_a_fleet_has_one_learner_and_a_policy_for_each_robot(tmp_path: Path) -> None:
    arguments = {**MINIMAL['fleet.launch.py'], 'checkpoint': str(tmp_path)}
    found = executables(nodes('fleet.launch.py', **arguments, namespaces='[a, b, c]'))
    assert found == ['learner_node', 'policy_node', 'policy_node', 'policy_node']


@pytest.mark.parametrize('name', MINIMAL)
def test_every_argument_is_described(name: str) -> None:
    from launch import LaunchContext

    path = str(resource_path('launch', name))
    description = launch.PythonLaunchDescriptionSource(path).get_launch_description(LaunchContext())
    for argument in description.get_launch_arguments():
        assert argument.description
        assert argument.default_value is not None


def test_a_process_does_not_wait_for_threads_of_its_own(tmp_path: Path) -> None:
    arguments = {**MINIMAL['robot.launch.py'], 'checkpoint': str(tmp_path)}
    for action in nodes('robot.launch.py', **arguments):
        variables = {name[0].text: value[0].text for name, value in action.additional_env}
        assert variables == {**ENVIRONMENT, PARENT: str(os.getpid())}


def parameters(action: Any) -> dict[str, Any]:
    """Return the parameters that a node action passes beyond files."""
    from launch_ros.utilities import evaluate_parameters

    from launch import LaunchContext

    found = evaluate_parameters(LaunchContext(), action._Node__parameters)
    return {name: value for part in found if isinstance(part, dict) for name, value in part.items()}


def test_a_scale_is_one_number_or_one_for_each_action(tmp_path: Path) -> None:
    arguments = {**MINIMAL['robot.launch.py'], 'checkpoint': str(tmp_path)}
    for text, expected in (
        ('0.05', [0.05]),
        ('1e-2', [0.01]),
        ('[0.05, 0.1]', [0.05, 0.1]),
        ('', [0.05]),
    ):
        _, policy = nodes('robot.launch.py', **arguments, residual_scale=text)
        assert list(parameters(policy)['residual_scale']) == expected


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *(('residual_scale', 'much'), ('decision_steps', '2.5'), ('seed', '-1')),
        *(('learner', 'ture'), ('auto_start', 'maybe'), ('prefetch_steps', '1e400')),
    ],
)
def test_a_wrong_argument_is_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    arguments = {**MINIMAL['robot.launch.py'], 'checkpoint': str(tmp_path), name: value}
    with pytest.raises(ConfigError, match=f"^{name} is '{value}', expected "):
        nodes('robot.launch.py', **arguments)


def test_a_simulation_has_a_namespace_and_a_domain_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', '42')
    monkeypatch.delenv('ROS_AUTOMATIC_DISCOVERY_RANGE', raising=False)
    arguments = {**MINIMAL['sim_finetune.launch.py'], 'output_dir': str(tmp_path)}
    domains = set()
    for action in nodes('sim_finetune.launch.py', **arguments, namespace=''):
        assert action._Node__node_namespace == 'sim'
        variables = {name[0].text: value[0].text for name, value in action.additional_env}
        assert variables['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
        domains.add(variables['ROS_DOMAIN_ID'])
    assert len(domains) == 1
    assert not domains & {'0', '42'}
    # Nothing of it is left in the process that launches, which may launch a robot too.
    assert os.environ['ROS_DOMAIN_ID'] == '42'
    assert 'ROS_AUTOMATIC_DISCOVERY_RANGE' not in os.environ


def test_a_node_has_the_time_that_it_takes_to_save(tmp_path: Path) -> None:
    from launch import LaunchContext

    arguments = {**MINIMAL['robot.launch.py'], 'checkpoint': str(tmp_path)}
    found = nodes('robot.launch.py', **arguments, record=str(tmp_path / 'bag'))
    limits = {}
    for action in found:
        (given,) = action._ExecuteLocal__sigterm_timeout
        limits[action.node_executable] = float(given.perform(LaunchContext()))
    assert limits['learner_node'] > SAVE_LIMIT_S
    assert limits['recorder_node'] > SAVE_LIMIT_S
    assert SAVE_LIMIT_S > limits['policy_node'] > ACTIVE_LIMIT_S


PROGRAMS = {
    'policy_node': """
print('starting')
print('error: no base policy', file=sys.stderr)
sys.exit(2)""",
    'learner_node': """
def stop(number, frame):
    print('Traceback (most recent call last):', 'KeyboardInterrupt', sep=chr(10), file=sys.stderr)
    os._exit(1)
signal.signal(signal.SIGINT, stop)
time.sleep(60.0)""",
}
"""A policy that refuses its input, and a learner that has much to say when it is stopped."""
LAUNCH = """
from launch import LaunchDescription, LaunchService
from residual_rl_ros.ros.bringup.launch_actions import robot_actions
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
# No lifecycle nodes: those would be talked to.
specs = [NodeSpec(name, False, (), {}) for name in ('learner_node', 'policy_node')]
service = LaunchService(noninteractive=True)
service.include_launch_description(LaunchDescription(robot_actions(specs)))
service.run()
"""


def test_the_policys_reason_is_below_the_learners_traceback(tmp_path: Path) -> None:
    index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
    programs = tmp_path / 'lib' / 'residual_rl_ros'
    for folder in (index, programs):
        folder.mkdir(parents=True)
    (index / 'residual_rl_ros').touch()
    for name, text in PROGRAMS.items():
        program = programs / name
        program.write_text(f'#!{sys.executable}\nimport os, signal, sys, time\n{text}\n')
        program.chmod(0o755)
    environment = {'AMENT_PREFIX_PATH': str(tmp_path), 'ROS_LOG_DIR': str(tmp_path / 'log')}
    done = subprocess.run(
        [sys.executable, '-c', LAUNCH],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path)), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.strip().splitlines()
    assert any('KeyboardInterrupt' in line for line in lines)
    assert re.search(r'policy_node-\d+ ended with code 2: error: no base policy$', lines[-1])
    assert sum('ended with code' in line for line in lines) == 1
