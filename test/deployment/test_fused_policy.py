# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A fused policy commands what the controller commands, and can run without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from actor_builders import make_actor
from base_policy_builders import write_onnx_policy
from deployment_builders import (
    MEASURED,
    Fused,
    best_of_n,
    gaussian,
    write_open_policy,
    write_seeing_policy,
)
from robot_builders import make_action_spec, make_metadata
from transition_builders import make_layout

from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.deployment.parity import FusedRunner, Parity, RandomWorld, compare, tolerance
from residual_rl_ros.errors import BasePolicyError, ConfigError, WeightsError
from residual_rl_ros.residual_policy.architecture import CRITIC_NORMALIZATIONS
from residual_rl_ros.residual_policy.candidate_selection import CRITIC, BestOfNActor
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.command import Command
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.topics import FLOAT_ARRAY, IMAGE, JOINT_STATE, Channel

DECISIONS = 40
EXACT = 1e-7
"""Far less than a wrong operator would change; networks differ in their last bits."""
KINDS = {
    'tensor(float)': np.float32,
    'tensor(double)': np.float64,
    'tensor(int64)': np.int64,
    'tensor(uint8)': np.uint8,
}
"""Types of inputs."""
GAUSSIANS: dict[str, dict[str, Any]] = {
    'plain': {},
    'sees the base action': {'sees_base_action': True},
    'LayerNorm': {'layer_norm': True},
    'held residual': {'outputs': make_layout().action_size},
    'TD3': {'exploration_std': 0.1, 'hidden_sizes': (8, 8)},
}


@pytest.fixture(scope='module')
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a stochastic base policy for batches of any size, two observations in its window."""
    path = tmp_path_factory.mktemp('base') / 'base.onnx'
    return write_open_policy(path, make_metadata(n_obs_steps=2))


def against(
    controller: ResidualController, policy: RobotPolicy, runner: FusedRunner, decisions: int
) -> Parity:
    return compare(controller, policy, runner, RandomWorld(policy, runner), decisions)


def played(fused: Fused, decisions: int = DECISIONS) -> Parity:
    controller = fused.controller()
    runner = FusedRunner(fused.content, fused.metadata)
    try:
        return against(controller, fused.policy, runner, decisions)
    finally:
        controller.queue.close()


@pytest.mark.parametrize('batch', [None, 1])
@pytest.mark.parametrize('changes', GAUSSIANS.values(), ids=GAUSSIANS)
def test_the_commands_are_those_of_the_controller(
    base: Path, changes: dict[str, Any], batch: int | None
) -> None:
    found = played(Fused(base, gaussian(**changes), batch=batch))
    assert found.decisions == DECISIONS
    assert found.largest < EXACT
    assert found.equal_share > 0.5


@pytest.mark.parametrize('normalization', CRITIC_NORMALIZATIONS)
@pytest.mark.parametrize('sees_residual', [True, False])
@pytest.mark.parametrize('hold', [True, False])
def test_the_critics_choose_as_on_the_robot(
    base: Path, normalization: str, sees_residual: bool, hold: bool
) -> None:
    policy = best_of_n(
        critic_normalization=normalization, critic_sees_residual=sees_residual, hold_residual=hold
    )
    fused = Fused(base, policy)
    controller = fused.controller()
    runner = FusedRunner(fused.content, fused.metadata)
    found = against(controller, policy, runner, DECISIONS)
    controller.queue.close()
    assert found.largest < EXACT
    assert found.decisions == DECISIONS  # No tie.
    assert 0 < controller.residual.refused < DECISIONS


@pytest.mark.parametrize('precision', ['float64', 'float32'])
def test_a_bound_that_still_grows_does_so_in_the_graph(base: Path, precision: str) -> None:
    exploration = Exploration(bound_scale=0.4, full_bound_cost=3.0)
    found = played(Fused(base, best_of_n(), exploration=exploration, precision=precision))
    assert found.largest < (EXACT if precision == 'float64' else 1e-6)


def test_the_slew_limit_of_the_test_robot_acts_and_that_of_the_graph_with_it(base: Path) -> None:
    fused = Fused(base, gaussian())
    controller = fused.controller()
    against(controller, fused.policy, FusedRunner(fused.content, fused.metadata), 10)
    assert controller.limiter.safety.slew_limited > 10
    controller.queue.close()


def test_with_a_blend_ratio_of_zero_the_base_acts_alone_bit_for_bit(base: Path) -> None:
    fused = Fused(base, gaussian())
    controller = fused.controller()
    controller.residual.enabled = False
    runner = FusedRunner(fused.content, fused.metadata)
    runner.blend_ratio = 0.0
    found = against(controller, fused.policy, runner, DECISIONS)
    assert found.largest == 0.0
    runner.blend_ratio = 0.5
    controller.residual.enabled, controller.residual.blend_ratio = True, 0.5
    assert against(controller, fused.policy, runner, DECISIONS).largest < EXACT
    controller.queue.close()


def test_a_blend_ratio_above_one_stays_within_the_bound(base: Path) -> None:
    fused = Fused(base, gaussian(), make_action_spec())
    commands = []
    for ratio in (0.0, 5.0):
        runner = FusedRunner(fused.content, fused.metadata)
        runner.blend_ratio = ratio
        runner.begin_episode(np.zeros(3), np.random.default_rng(0))
        commands.append(runner.decide())
    # Not zero, and no rounding beyond the bound.
    assert 0.0 < np.abs(commands[1] - commands[0]).max() <= max(make_layout().residual_bound)


def test_a_robot_that_measures_nothing_goes_on_from_its_last_command(base: Path) -> None:
    action = make_action_spec(max_step=MEASURED['max_step'])
    found = played(Fused(base, gaussian(), action))
    assert found.largest < EXACT


def test_float32_differs_by_rounding_and_leaves_no_limit(base: Path) -> None:
    action = make_action_spec(**MEASURED, lower=np.array([-0.1, -0.3]), upper=np.array([0.1, 0.7]))
    fused = Fused(base, gaussian(), action, precision='float32')
    assert played(fused).largest < 1e-6
    runner = FusedRunner(fused.content, fused.metadata)
    runner.begin_episode(np.zeros(3), np.random.default_rng(0))
    commands = np.concatenate([runner.decide() for _ in range(20)])
    assert (commands >= action.lower).all()
    assert (commands <= action.upper).all()
    assert (commands.min(0) < action.lower + 1e-6).all()


def test_a_deterministic_base_without_chunks_is_fused_too(tmp_path: Path) -> None:
    meta = make_metadata(horizon=2, exec_start=0, exec_steps=2)
    path = tmp_path / 'base.onnx'
    write_onnx_policy(path, meta, gain=0.1)
    fused = Fused(path, gaussian(), batch=1)
    assert fused.metadata.given == ('observation',)
    assert played(fused).largest < EXACT


@pytest.mark.parametrize('batch', [None, 1])
def test_a_base_that_sees_remembers_and_has_a_goal_is_fused_with_all_of_it(
    tmp_path: Path, batch: int | None
) -> None:
    path = write_seeing_policy(tmp_path / 'base.onnx', batch or 'batch')
    fused = Fused(path, gaussian(), batch=batch)
    assert fused.metadata.given == ('observation', 'wrist')
    assert fused.metadata.state == ('chunk', 'taken', 'state_in')
    assert played(fused).largest < EXACT


@pytest.mark.parametrize('batch', [None, 1])
def test_values_of_a_camera_that_the_base_sees_itself_are_for_the_residual_alone(
    tmp_path: Path, batch: int | None
) -> None:
    robot = RobotConfig(
        'robot',
        20.0,
        (Command('command', FLOAT_ARRAY),),
        make_action_spec(),
        (
            Channel('wrist', 'image_raw', IMAGE, ('red', 'blue'), (), 0.1, 'any.onnx'),
            Channel('arm', 'joint_states', JOINT_STATE, ('position',), ('a', 'b'), 0.1),
            Channel('tool', 'tool', FLOAT_ARRAY, ('z',), (), 0.1),
        ),
    )
    actor = make_actor(make_layout(observation_names=robot.observation_names), gain=0.7).to_numpy()
    fused = Fused(
        write_seeing_policy(tmp_path / 'base.onnx', batch or 'batch'),
        actor,
        batch=batch,
        robot=robot,
    )
    found = played(fused)
    assert fused.metadata.observation_names == robot.observation_names
    assert found.largest < EXACT


def test_a_memory_that_is_forgotten_by_count_is_refused(tmp_path: Path) -> None:
    path = write_seeing_policy(tmp_path / 'base.onnx', reset_steps=3)
    with pytest.raises(BasePolicyError, match="memory 'state_in' every 3"):
        Fused(path, gaussian())


def arrays(session: onnxruntime.InferenceSession, batch: int, seed: int) -> dict[str, np.ndarray]:
    """Return inputs of a fused policy for several robots, all at their first decision."""
    rng = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for item in session.get_inputs():
        shape = (batch, *item.shape[1:])
        made[item.name] = rng.standard_normal(shape).astype(KINDS[item.type])
    made['taken'][:], made['blend_ratio'][:] = 4, 1.0
    return made


@pytest.mark.parametrize('batch', [None, 3])
def test_robots_of_a_batch_take_new_chunks_each_at_its_own_time(
    base: Path, batch: int | None
) -> None:
    fused = Fused(base, gaussian(sees_base_action=True), batch=batch)
    assert played(fused, 10).largest < EXACT
    session = onnxruntime.InferenceSession(fused.content, providers=['CPUExecutionProvider'])
    one = Fused(base, gaussian(sees_base_action=True))
    alone = onnxruntime.InferenceSession(one.content, providers=['CPUExecutionProvider'])
    given = arrays(session, 3, 0)
    given['taken'][:] = 0, 2, 4
    commands, chunk, taken = session.run(['command', 'next_chunk', 'next_taken'], given)
    assert taken.tolist() == [2, 4, 2]
    assert (chunk[:2] == given['chunk'][:2]).all()
    assert (chunk[2] != given['chunk'][2]).all()
    for row in range(3):
        apart = {name: value[row : row + 1] for name, value in given.items()}
        expected = alone.run(['command'], apart)[0][0]
        np.testing.assert_allclose(commands[row], expected, atol=1e-6)


def operators(model: Any) -> set[str]:
    return {node.op_type for node in model.graph.node}


def test_a_fixed_batch_has_static_shapes_and_no_operator_whose_shape_depends_on_data(
    base: Path,
) -> None:
    model = Fused(base, best_of_n(), batch=1).model
    assert not operators(model) & {'If', 'Loop', 'Scan', 'NonZero', 'ScatterND', 'Compress'}
    assert {each.domain for each in model.opset_import} == {''}
    assert [each.version for each in model.opset_import] == [17]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]
    outputs = {name for node in inferred.graph.node for name in node.output}
    known = {value.name: value.type.tensor_type.shape.dim for value in values}
    assert outputs <= known.keys()
    assert all(size.HasField('dim_value') for sizes in known.values() for size in sizes)


def test_with_an_open_batch_the_base_runs_on_no_row_that_has_a_chunk(base: Path) -> None:
    model = Fused(base, gaussian()).model
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info('base/action'))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    given = arrays(session, 3, 0)
    given['taken'][:] = 0, 2, 4
    assert len(session.run(['base/action'], given)[0]) == 1
    given['taken'][:] = 0, 0, 0
    assert len(session.run(['base/action'], given)[0]) == 0


def test_a_base_that_fails_on_no_rows_runs_at_every_decision(tmp_path: Path) -> None:
    path = write_seeing_policy(tmp_path / 'base.onnx')
    model = onnx.load(str(path))
    # As PyTorch writes `flatten(2)`: of no rows nobody can say how many columns there are.
    flat = next(each for each in model.graph.initializer if each.name == 'flat_120')
    flat.CopyFrom(onnx.numpy_helper.from_array(np.array([0, -1]), 'flat_120'))
    onnx.save(model, str(path))
    fused = Fused(path, gaussian())
    assert not fused.parts.base.idles
    assert played(fused).largest < EXACT
    session = onnxruntime.InferenceSession(fused.content, providers=['CPUExecutionProvider'])
    assert session.run(['command'], arrays(session, 3, 0))[0].shape == (3, 2, 2)


def test_an_older_base_is_converted_and_a_newer_one_kept(tmp_path: Path) -> None:
    meta = make_metadata()
    for opset, expected in ((13, 17), (18, 18)):
        path = write_open_policy(tmp_path / f'{opset}.onnx', meta, opset=opset)
        fused = Fused(path, best_of_n())
        assert [each.version for each in fused.model.opset_import] == [expected]
        assert played(fused).largest < EXACT


def test_what_has_no_graph_is_refused_by_name(tmp_path: Path, base: Path) -> None:
    fixed = write_open_policy(tmp_path / 'fixed.onnx', batch=1)
    with pytest.raises(BasePolicyError, match=r'fixed\.onnx has a fixed batch of 1.*--batch 1'):
        Fused(fixed, gaussian())
    with pytest.raises(BasePolicyError, match=r'fixed batch of 1, and --batch is 2'):
        Fused(fixed, gaussian(), batch=2)
    with pytest.raises(ConfigError, match='discrete actions'):
        Fused(base, gaussian(), ActionSpec.discrete(make_layout().action_names))
    with pytest.raises(ConfigError, match='warm-up'):
        Fused(base, gaussian(), exploration=Exploration(residual_probability=0.0))
    with pytest.raises(ConfigError, match='message of a run'):
        Fused(base, gaussian(), exploration=Exploration(base_only_share=0.1))
    with pytest.raises(ConfigError, match='message of a run'):
        Fused(base, gaussian(), exploration=Exploration(random_share=0.1))

    class Other:
        kind, architecture, tensors = 'q_remix', gaussian().architecture, gaussian().tensors

    other: RobotPolicy = Other()  # type: ignore[assignment]
    with pytest.raises(WeightsError, match=r'kind q_remix.*best_of_n, gaussian'):
        Fused(base, other)


def test_control_flow_and_foreign_operators_are_refused_for_a_fixed_batch(
    tmp_path: Path, base: Path
) -> None:
    model = onnx.load(str(base))
    model.graph.node[2].op_type = 'Gelu'
    model.graph.node[2].domain = 'com.microsoft'
    model.opset_import.append(onnx.helper.make_opsetid('com.microsoft', 1))
    path = tmp_path / 'foreign.onnx'
    onnx.save(model, str(path))
    with pytest.raises(BasePolicyError, match=r'com\.microsoft\.Gelu'):
        Fused(path, gaussian(), batch=1)
    assert played(Fused(path, gaussian())).largest < EXACT


def test_a_graph_that_draws_random_numbers_is_refused(tmp_path: Path, base: Path) -> None:
    model = onnx.load(str(base))
    model.graph.node[2].op_type = 'RandomNormalLike'
    path = tmp_path / 'random.onnx'
    onnx.save(model, str(path))
    with pytest.raises(BasePolicyError, match='RandomNormalLike'):
        Fused(path, gaussian())


@pytest.mark.parametrize('wrong', [np.nan, np.inf])
def test_a_command_that_is_no_number_is_an_infinite_difference(wrong: float) -> None:
    found = Parity()
    found.add(np.zeros((1, 2)), np.array([[0.0, 0.25]]))
    assert found.largest == 0.25
    found.add(np.zeros((1, 2)), np.array([[0.5, wrong]]))
    found.add(np.zeros((1, 2)), np.zeros((1, 2)))
    assert found.largest == np.inf


@pytest.mark.parametrize('wrong', [0.0, 1e-5, 100.0, np.nan])
def test_a_tie_has_the_commands_of_the_other_choice(base: Path, wrong: float) -> None:
    actor = best_of_n(critic_heads=1, critic_target_heads=1)
    small = Exploration(bound_scale=5e-4)  # Little to gain.
    head = f'{CRITIC}head.weight'
    opposite = BestOfNActor(actor.architecture, {**actor.tensors, head: -actor.tensors[head]})
    fused, other = (Fused(base, each, exploration=small) for each in (actor, opposite))

    class Runner(FusedRunner):
        """Chooses otherwise, and is wrong besides."""

        def decide(self) -> np.ndarray:
            return super().decide() + wrong

    controller = fused.controller()
    found = against(controller, actor, Runner(other.content, other.metadata), DECISIONS)
    controller.queue.close()
    if wrong == 0.0:
        assert found.ties > 10
        assert found.largest <= tolerance(actor.architecture.layout)
    else:
        assert (found.ties, found.decisions) == (0, DECISIONS)
        assert found.largest > 0.9 * wrong or (np.isnan(wrong) and np.isinf(found.largest))
