# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One topology for bring-up and launch: seeds agree, parameters reach the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.weights import ACTOR, read_actor
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.topology import (
    NodeSpec,
    RobotRun,
    finetune_topology,
    robot_topology,
)


def test_nested_parameters_become_dotted_ros_arguments() -> None:
    node = NodeSpec('n', True, (Path('robot.yaml'),), {'a': {'b': [1.0, 2.0]}, 'c': True, 'd': ''})
    assert node.ros_arguments() == [
        *('--ros-args', '--enclave', '/n', '--params-file', 'robot.yaml'),
        *('-p', 'a.b:=[1.0, 2.0]', '-p', 'c:=true', '-p', "d:=''"),
    ]


def test_three_processes_share_robot_and_seed(tmp_path: Path) -> None:
    config = load_run('peg_insert')
    nodes = finetune_topology(config, Path('r.yaml'), Path('b.onnx'), tmp_path, 3, 100)
    assert [node.executable for node in nodes] == [
        'learner_node',
        'policy_node',
        'mujoco_sim_node',
    ]
    learner, policy, simulator = nodes
    assert learner.parameters['seed'] == policy.parameters['seed'] == 3
    assert policy.parameter_files == simulator.parameter_files == (Path('r.yaml'),)
    assert not simulator.lifecycle
    assert learner.lifecycle
    assert policy.lifecycle


def test_training_never_meets_an_evaluation_seed(tmp_path: Path) -> None:
    config = load_run('peg_insert')
    seeds = [
        finetune_topology(config, Path('r'), Path('b'), tmp_path, seed, 0)[2].parameters[
            'first_seed'
        ]
        for seed in (0, 1)
    ]
    assert seeds[0] >= 10_000_000
    assert seeds[1] - seeds[0] >= 1_000_000


def test_a_robot_has_a_policy_and_a_learner_in_its_namespace(tmp_path: Path) -> None:
    run = RobotRun(Path('r.yaml'), Path('b.onnx'), tmp_path, namespaces=('left',), seed=3)
    learner, policy = robot_topology(run)
    assert [node.executable for node in (learner, policy)] == ['learner_node', 'policy_node']
    assert learner.ros_arguments()[-2:] == policy.ros_arguments()[-2:] == ['-r', '__ns:=/left']
    assert policy.parameters['explore'] is True
    assert policy.parameters['actor'] == ''
    assert policy.parameters['auto_start'] is False
    assert 'lockstep' not in policy.parameters
    assert (learner.parameters['resume'], learner.parameters['seed']) == (False, 3)


@pytest.mark.parametrize('place', ['latest', 'latest.old'])
def test_a_learner_with_a_checkpoint_is_resumed_and_the_policy_starts_with_its_actor(
    tmp_path: Path, place: str
) -> None:
    latest = tmp_path / 'checkpoints' / 'latest'
    (tmp_path / 'checkpoints' / place).mkdir(parents=True)
    (tmp_path / 'checkpoints' / place / ACTOR).write_bytes(b'weights')
    learner, policy = robot_topology(RobotRun(Path('r.yaml'), Path('b.onnx'), tmp_path))
    assert learner.parameters['resume'] is True
    assert policy.parameters['actor'] == str(latest)
    assert read_actor(latest) == read_actor(tmp_path) == b'weights'


def test_every_robot_of_a_fleet_has_a_recorder_and_a_bag_of_its_own(tmp_path: Path) -> None:
    _, path = load_robot('peg_insert')
    bag = tmp_path / 'bag'
    run = RobotRun(path, Path('b.onnx'), None, namespaces=('/left', 'right'), record=bag)
    left, right = [n for n in robot_topology(run) if n.executable == 'recorder_node']
    assert (left.name, right.name) == ('left/recorder_node', 'right/recorder_node')
    assert left.parameters['output_dir'] == str(bag / 'left')
    assert right.parameters['output_dir'] == str(bag / 'right')
    bag.mkdir()
    with pytest.raises(ConfigError, match='exists already; choose a new one'):
        robot_topology(run)


def test_without_a_learner_the_residual_does_not_explore(tmp_path: Path) -> None:
    (policy,) = robot_topology(RobotRun(Path('r.yaml'), Path('b.onnx'), None, actor=tmp_path))
    assert policy.parameters['explore'] is False
    assert policy.parameters['actor'] == str(tmp_path)


@pytest.mark.parametrize('names', [('left', '/left/'), ('left', '')])
def test_robots_that_are_not_apart_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    _, path = load_robot('peg_insert')
    run = RobotRun(path, Path('b.onnx'), tmp_path, namespaces=names)
    with pytest.raises(ConfigError, match='a different one for each robot'):
        robot_topology(run)
    shared = tmp_path / 'shared.yaml'
    shared.write_text(path.read_text().replace('topic: hole_pose', 'topic: /hole_pose'))
    run = RobotRun(shared, Path('b.onnx'), tmp_path, namespaces=('left', 'right'))
    with pytest.raises(ConfigError, match="'/hole_pose' is the same for every robot"):
        robot_topology(run)


def test_a_fleet_has_a_policy_for_each_robot_and_one_learner_that_all_hear(tmp_path: Path) -> None:
    _, path = load_robot('peg_insert')
    run = RobotRun(path, Path('b.onnx'), tmp_path, namespaces=('left', 'right'), seed=3)
    learner, left, right = robot_topology(run)
    assert [node.name for node in (learner, left, right)] == [
        'learner_node',
        'left/policy_node',
        'right/policy_node',
    ]
    assert learner.parameters['robots'] == ['left', 'right']
    assert (left.parameters['seed'], right.parameters['seed']) == (3, 4)
    for policy in (left, right):
        assert policy.ros_arguments()[-2:] == ['-r', 'learner_node/actor:=/learner_node/actor']
