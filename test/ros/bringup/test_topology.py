# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One topology for bring-up and launch: seeds agree, parameters reach the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from actor_builders import write_peg_actor as write_actor

from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import ConfigError, WeightsError
from residual_rl_ros.residual_policy.actor_file import ACTOR, read_actor
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.node_spec import NodeSpec, dependants
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.bringup.topology import RobotRun, resumed, robot_topology
from residual_rl_ros.ros.common.node_parameters import PolicyParameters

PEG = load_run('peg_insert')


def test_nested_parameters_become_dotted_ros_arguments() -> None:
    node = NodeSpec('n', True, (Path('robot.yaml'),), {'a': {'b': [1.0, 2.0]}, 'c': True, 'd': ''})
    assert node.ros_arguments() == [
        '--ros-args',
        '--enclave',
        '/n',
        '--params-file',
        'robot.yaml',
        *('-p', 'a.b:=[1.0, 2.0]', '-p', 'c:=true', '-p', "d:=''", '-r', '__ns:=/'),
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
    written = write_actor(tmp_path / 'checkpoints' / place / ACTOR)
    learner, policy = robot_topology(RobotRun(Path('r.yaml'), Path('b.onnx'), tmp_path))
    assert learner.parameters['resume'] is True
    assert policy.parameters['actor'] == str(latest)
    assert read_actor(latest) == read_actor(tmp_path) == written


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
    write_actor(tmp_path / ACTOR)
    (policy,) = robot_topology(RobotRun(Path('r.yaml'), Path('b.onnx'), None, actor=tmp_path))
    assert policy.parameters['explore'] is False
    assert policy.parameters['actor'] == str(tmp_path)


def test_what_the_actor_knows_need_not_be_said_again(tmp_path: Path) -> None:
    write_actor(tmp_path / ACTOR)
    run = RobotRun(Path('r.yaml'), Path('b.onnx'), None, actor=tmp_path)
    (policy,) = robot_topology(run)
    assert policy.parameters['decision_steps'] == PEG.decision_steps
    assert policy.parameters['residual_scale'] == list(PEG.residual_scale)
    (policy,) = robot_topology(replace(run, decision_steps=2, residual_scale=(0.3,)))
    assert policy.parameters['decision_steps'] == 2
    assert policy.parameters['residual_scale'] == [0.3]


def test_a_residual_that_is_new_decides_as_the_documents_say(tmp_path: Path) -> None:
    _, policy = robot_topology(RobotRun(Path('r.yaml'), Path('b.onnx'), tmp_path))
    assert policy.parameters['decision_steps'] == 0  # The node takes them from its base policy.
    assert policy.parameters['residual_scale'] == [0.05]


def test_an_actor_that_cannot_be_read_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / ACTOR).write_bytes(b'garbage')
    with pytest.raises(WeightsError, match='unreadable'):
        robot_topology(RobotRun(Path('r.yaml'), Path('b.onnx'), None, actor=tmp_path))


def test_a_learner_that_died_goes_on_from_its_checkpoint_once_it_wrote_one(tmp_path: Path) -> None:
    learner, _ = robot_topology(RobotRun(Path('r.yaml'), Path('b.onnx'), tmp_path))
    assert resumed(learner) == learner
    write_actor(tmp_path / 'checkpoints' / 'latest' / ACTOR)
    assert resumed(learner) == replace(learner, parameters={**learner.parameters, 'resume': True})


def test_a_simulation_keeps_every_topic_of_its_robot_in_its_namespace(tmp_path: Path) -> None:
    config = load_run('peg_insert')
    robot = tmp_path / 'robot.yaml'
    shipped = load_robot('peg_insert')[1].read_text()
    for topic in ('forward_position_controller/commands', 'joint_states'):
        shipped = shipped.replace(f'topic: {topic}', f'topic: /{topic}')
    robot.write_text(shipped)
    nodes = finetune_topology(config, robot, Path('b.onnx'), tmp_path, 0, 0, namespace='sim')
    for node in nodes:
        assert '__ns:=/sim' in node.ros_arguments()
    _, policy, _ = nodes
    assert policy.remappings == {
        '/forward_position_controller/commands': 'forward_position_controller/commands',
        '/joint_states': 'joint_states',
    }


def test_only_where_nothing_real_moves_episodes_start_by_themselves(tmp_path: Path) -> None:
    assert PolicyParameters().auto_start is False
    _, policy = robot_topology(RobotRun(Path('r.yaml'), Path('b.onnx'), tmp_path))
    assert policy.parameters['auto_start'] is False
    _, policy, _ = finetune_topology(PEG, Path('r'), Path('b'), tmp_path, 0, 0)
    assert policy.parameters['auto_start'] is True


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


def test_a_namespace_that_is_none_and_two_judges_are_refused(tmp_path: Path) -> None:
    run = RobotRun(load_robot('peg_insert')[1], Path('b.onnx'), tmp_path)
    with pytest.raises(ConfigError, match=r"namespace 'a b' is not one of ROS"):
        robot_topology(replace(run, namespaces=('a b',)))
    with pytest.raises(ConfigError, match=r"classifier 'c.onnx' and reward 'm:f' are given"):
        robot_topology(replace(run, classifier=Path('c.onnx'), reward='m:f'))


def with_cell(tmp_path: Path, reset: str) -> Path:
    """Write a robot file with a stop input of its cell, and a service that resets its scene."""
    text = yaml.safe_load(load_robot('peg_insert')[1].read_text())
    robot = text['/**']['ros__parameters']['robot']
    cell = {'topic': '/cell/stop', 'type': 'std_msgs/msg/Bool', 'bad': ['true']}
    robot |= {'stop_inputs': {'cell': cell}, 'reset': {'service': reset}}
    path = tmp_path / 'cell.yaml'
    path.write_text(yaml.safe_dump(text))
    return path


def test_robots_of_a_fleet_share_a_stop_input_and_no_reset(tmp_path: Path) -> None:
    fleet = ('left', 'right')
    for reset in ('/reset_scene', 'reset_scene'):
        path = with_cell(tmp_path, reset)
        run = RobotRun(path, Path('b.onnx'), tmp_path / 'out', namespaces=fleet)
        if reset.startswith('/'):
            with pytest.raises(ConfigError, match="reset_scene' is the same for every"):
                robot_topology(run)
            assert robot_topology(replace(run, namespaces=('left',)))
        else:
            assert len(robot_topology(run)) == 3


def test_a_simulated_robot_calls_no_service_of_a_real_one_and_heeds_no_stop_of_it(
    tmp_path: Path,
) -> None:
    path = with_cell(tmp_path, '/reset_scene')
    _, policy, _ = finetune_topology(PEG, path, Path('b'), tmp_path, 0, 0, namespace='sim')
    assert policy.remappings == {'/cell/stop': 'cell/stop', '/reset_scene': 'reset_scene'}


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


def test_a_learner_is_told_of_demonstrations_and_of_the_robot_that_they_are_for() -> None:
    run = RobotRun(Path('robot.yaml'), Path('base.onnx'), Path('runs/none'), splicing=Splicing(3))
    assert 'demonstrations' not in robot_topology(run)[0].parameters
    told = robot_topology(replace(run, demonstrations=('d.hdf5', 'bag')))[0].parameters
    assert told['demonstrations'] == ['d.hdf5', 'bag']
    assert told['observation_map'] == ['']  # ROS knows no empty list.
    assert (told['base_policy'], told['robot_file']) == ('base.onnx', 'robot.yaml')
    assert (told['prefetch_steps'], told['chunk_blend_steps']) == (3, 0)


def test_the_robot_is_told_what_its_transitions_tell(tmp_path: Path) -> None:
    changes = {'proposals': 8, 'customisable': True, 'prior_width': 0.2}
    config = PEG.changed(changes)
    _, policy, _ = finetune_topology(config, Path('r'), Path('b'), tmp_path, 0, 0)
    told = {**changes, 'prior_width': [0.2]}
    assert {key: policy.parameters[key] for key in told} == told
    _, plain, _ = finetune_topology(PEG, Path('r'), Path('b'), tmp_path, 0, 0)
    nothing = {'proposals': 1, 'customisable': False, 'prior_width': [0.0]}
    assert {key: plain.parameters[key] for key in told} == nothing
    run = RobotRun(Path('r'), Path('b'), None, proposals=8, customisable=True, prior_width=(0.2,))
    assert told.items() <= robot_topology(run)[0].parameters.items()


def test_each_robot_of_a_fleet_is_taken_over_with_a_pad_of_its_own(tmp_path: Path) -> None:
    _, robot_file = load_robot('ur_forward_position')
    run = RobotRun(robot_file, Path('b.onnx'), None, namespaces=('left', 'right'))
    nodes = robot_topology(replace(run, takeover='gamepad'))
    pads = [node for node in nodes if node.executable == 'takeover_node']
    assert [node.namespace for node in pads] == ['left', 'right']
    assert all(node.parameters['config'].endswith('gamepad.yaml') for node in pads)
    assert pads[0] in dependants(nodes[0], nodes)
    one = tmp_path / 'one.yaml'
    one.write_text(Path(pads[0].parameters['config']).read_text().replace(': joy', ': /joy'))
    with pytest.raises(ConfigError, match="input is '/joy'"):
        robot_topology(replace(run, takeover=str(one)))
    one.write_text(one.read_text().replace('input: /joy', 'input: joy'))
    with pytest.raises(ConfigError, match="topic '/joy' would move every robot of a fleet"):
        robot_topology(replace(run, takeover=str(one)))
    with pytest.raises(ConfigError, match='keyboard needs a terminal of its own: takeover_node --'):
        robot_topology(replace(run, takeover='keyboard'))
