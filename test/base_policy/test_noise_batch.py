# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several noises in one call must be what as many calls say, or be as many calls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from robot_builders import make_metadata

from residual_rl_ros.base_policy.metadata import METADATA_KEY
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.resources import find_base_policy

WINDOW = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
NOISES = np.random.default_rng(0).standard_normal((8, 2, 2), dtype=np.float32)


def write_policy(path: Path, nodes: list[onnx.NodeProto], batch: int | str) -> Path:
    """Write a policy of 2 actions in 2 steps that has these operators, and save it."""

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])

    constants = {
        'still': np.zeros((3, 2), dtype=np.float32),
        'token': np.full((1, 1, 2), 10.0, dtype=np.float32),
        'last_two': np.array([1], dtype=np.int64),
        'end': np.array([3], dtype=np.int64),
        'chunk': np.array([1, 2, 2], dtype=np.int64),
        'chunks': np.array([-1, 2, 2], dtype=np.int64),
        'flat': np.array([1, -1], dtype=np.int64),
    }
    graph = helper.make_graph(
        nodes,
        'policy',
        [value('observation', 1, 3), value('noise', 2, 2)],
        [value('action', 2, 2)],
        [numpy_helper.from_array(each, name) for name, each in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    metadata = make_metadata(horizon=2, exec_start=0, exec_steps=2)
    helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.save(model, str(path))
    return path


def tokens() -> list[onnx.NodeProto]:
    """Return operators that put a token of the observation before the noise, and take it off."""
    return [
        helper.make_node('MatMul', ['observation', 'still'], ['seen']),
        helper.make_node('Add', ['seen', 'token'], ['first']),
        helper.make_node('Concat', ['first', 'noise'], ['all'], axis=1),
        helper.make_node('Slice', ['all', 'last_two', 'end', 'last_two'], ['action']),
    ]


def one_by_one(policy: OnnxBasePolicy) -> np.ndarray:
    """Return the chunks of as many calls."""
    return np.concatenate([policy.plan(WINDOW, noise[None]) for noise in NOISES], axis=1)


@pytest.mark.parametrize('batch', [1, 'batch'])
def test_what_meets_the_noise_in_a_concatenation_is_repeated(
    tmp_path: Path, batch: int | str
) -> None:
    policy = OnnxBasePolicy(write_policy(tmp_path / 'a.onnx', tokens(), batch))
    np.testing.assert_array_equal(policy.plan(WINDOW, NOISES), np.concatenate(NOISES, axis=1))
    made = policy._batches[8]
    assert made is not None
    assert (made.exact, made.repeats) == (True, False)


def test_a_graph_whose_shapes_want_a_batch_of_one_is_called_for_each_noise(tmp_path: Path) -> None:
    nodes = [
        helper.make_node('MatMul', ['observation', 'still'], ['seen']),
        helper.make_node('Add', ['noise', 'seen'], ['sum']),
        helper.make_node('Reshape', ['sum', 'chunk'], ['action']),
    ]
    policy = OnnxBasePolicy(write_policy(tmp_path / 'a.onnx', nodes, 1))
    np.testing.assert_array_equal(policy.plan(WINDOW, NOISES), one_by_one(policy))
    assert policy._batches[8] is None


def test_a_graph_that_mixes_the_noises_is_called_for_each(tmp_path: Path) -> None:
    nodes = [
        helper.make_node('MatMul', ['observation', 'still'], ['seen']),
        helper.make_node('ReduceSum', ['noise'], ['total'], keepdims=1),
        helper.make_node('Sum', ['noise', 'seen', 'total'], ['action']),
    ]
    policy = OnnxBasePolicy(write_policy(tmp_path / 'a.onnx', nodes, 1))
    np.testing.assert_array_equal(policy.plan(WINDOW, NOISES), one_by_one(policy))
    assert policy._batches[8] is None


def test_a_graph_that_ties_noise_to_observation_is_given_both_as_often(tmp_path: Path) -> None:
    nodes = [
        helper.make_node('MatMul', ['observation', 'still'], ['seen']),
        helper.make_node('Shape', ['noise'], ['shape']),
        helper.make_node('Concat', ['seen', 'seen'], ['twice'], axis=1),
        helper.make_node('Reshape', ['twice', 'shape'], ['like_noise']),
        helper.make_node('Add', ['noise', 'like_noise'], ['action']),
    ]
    policy = OnnxBasePolicy(write_policy(tmp_path / 'a.onnx', nodes, 'batch'))
    np.testing.assert_array_equal(policy.plan(WINDOW, NOISES), one_by_one(policy))
    made = policy._batches[8]
    assert made is not None
    assert made.repeats


def test_a_shipped_policy_with_a_batch_of_one_takes_eight_noises_in_one_call() -> None:
    policy = OnnxBasePolicy(find_base_policy('peg_insert'))
    meta, rng = policy.metadata, np.random.default_rng(1)
    window = rng.standard_normal((meta.n_obs_steps, len(meta.observation_names)), dtype=np.float32)
    noises = rng.standard_normal((8, *policy.noise_shape), dtype=np.float32)
    rows = policy.plan(window, noises)
    each = np.concatenate([policy.plan(window, noise[None]) for noise in noises], axis=1)
    assert policy._batches[8] is not None
    np.testing.assert_array_equal(
        rows[:, : len(meta.action_names)], policy.plan(window, noises[:1])
    )
    np.testing.assert_allclose(rows, each, atol=1e-5)
