# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Base policies, classifiers and encoders for tests."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from robot_builders import make_metadata

from residual_rl_ros.base_policy.chunk_queue import ChunkQueue
from residual_rl_ros.base_policy.metadata import METADATA_KEY, BasePolicyMetadata
from residual_rl_ros.base_policy.robot_fit import check_fit
from residual_rl_ros.control.reward import CLASSIFIER_METADATA_KEY
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.image_encoder import ENCODER_METADATA_KEY


class LinearPolicy:
    """A base policy in NumPy: a fixed linear map of the observation window, plus any noise.

    While `gate` is cleared, inference blocks, like a network that is too slow.
    """

    def __init__(self, metadata: BasePolicyMetadata | None = None, stochastic: bool = False):
        self.metadata = make_metadata() if metadata is None else metadata
        self.stochastic = stochastic
        rows = self.metadata.n_obs_steps * len(self.metadata.observation_names)
        columns = self.metadata.horizon * len(self.metadata.action_names)
        rng = np.random.default_rng(0)
        self.weights = (0.1 * rng.standard_normal((rows, columns))).astype(np.float32)
        self.gate = threading.Event()
        self.gate.set()
        self.calls = 0

    @property
    def noise_shape(self) -> tuple[int, int]:
        return self.metadata.horizon, len(self.metadata.action_names)

    def bind(self, robot: RobotConfig) -> None:
        names = robot.observation_names
        check_fit(self.metadata, names, robot.action, robot.control_rate_hz)

    def infer(self, window: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        self.calls += 1
        assert self.gate.wait(30.0), 'the test left the policy blocked'
        chunk = (window.ravel() @ self.weights).reshape(self.noise_shape)
        return chunk if noise is None else chunk + np.float32(0.1) * noise

    def plan(
        self, window: np.ndarray, noises: np.ndarray | None = None, context: Any = None
    ) -> np.ndarray:
        given = [None] if noises is None else noises
        return np.concatenate([self.infer(window, noise) for noise in given], axis=1)


def settle(queue: ChunkQueue) -> None:
    """Wait until every inference on order has delivered, so that timing decides nothing."""
    queue._worker.submit(lambda: None).result(30.0)


def write_onnx_policy(
    path: Path,
    metadata: BasePolicyMetadata | None = None,
    *,
    stochastic: bool = False,
    bias: np.ndarray | None = None,
    gain: float = 1.0,
    weights: np.ndarray | None = None,
    embed: bool = True,
    input_name: str = 'observation',
    output_name: str = 'action',
    observation_shape: tuple[int | str, ...] | None = None,
    action_shape: tuple[int | str, ...] | None = None,
    kept_actions: int | None = None,
) -> np.ndarray:
    """Write action = observation @ weights + bias (+ noise) and return the weights.

    Args:
        path: ONNX file.
        metadata: the contract; default `make_metadata()`.
        stochastic: add a noise input.
        bias: shape (horizon, m).
        gain: factor on the weights.
        weights: shape (n_obs_steps * n, horizon * m); default: random ones.
        embed: store the metadata in the model.
        input_name: name of the observation input.
        output_name: name of the action output.
        observation_shape: declared shape, if it is to differ from the metadata.
        action_shape: declared shape; ONNX Runtime prefers what it can infer.
        kept_actions: actions left by an operator whose output size shows only at run time.
    """
    meta = make_metadata() if metadata is None else metadata
    horizon, m = meta.horizon, len(meta.action_names)
    rows = meta.n_obs_steps * len(meta.observation_names)
    if weights is None:
        weights = np.random.default_rng(1).standard_normal((rows, horizon * m))
    weights = weights.astype(np.float32) * np.float32(gain)
    offset = np.zeros((horizon, m)) if bias is None else bias
    constants = {
        'weights': weights,
        'bias': offset.reshape(1, horizon, m).astype(np.float32),
        'flat': np.array([1, rows], dtype=np.int64),
        'chunk': np.array([1, horizon, m], dtype=np.int64),
    }
    last = 'sum' if stochastic or kept_actions is not None else output_name
    nodes = [
        helper.make_node('Reshape', [input_name, 'flat'], ['row']),
        helper.make_node('MatMul', ['row', 'weights'], ['product']),
        helper.make_node('Reshape', ['product', 'chunk'], ['mean']),
        helper.make_node('Add', ['mean', 'bias'], [last]),
    ]
    if observation_shape is None:
        observation_shape = (1, meta.n_obs_steps, len(meta.observation_names))
    inputs = [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, observation_shape)]
    if stochastic:
        nodes.append(helper.make_node('Add', ['sum', 'noise'], [output_name]))
        inputs.append(helper.make_tensor_value_info('noise', TensorProto.FLOAT, (1, horizon, m)))
    if kept_actions is not None:
        constants['kept'] = np.arange(horizon) < kept_actions
        nodes.append(helper.make_node('Compress', ['sum', 'kept'], [output_name], axis=1))
    shape = action_shape or (1, horizon, m)
    graph = helper.make_graph(
        nodes,
        'linear',
        inputs,
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    if embed:
        helper.set_model_props(model, {METADATA_KEY: meta.to_json()})
    onnx.save(model, str(path))
    return weights


def slow_down(model: Path, slower: Path, seconds: float) -> None:
    """Write a copy of an ONNX model whose inference takes about so much longer on this machine."""
    rounds = 20
    _write_slower(model, slower, rounds)
    session = onnxruntime.InferenceSession(str(slower), providers=['CPUExecutionProvider'])
    inputs = {value.name: np.zeros(value.shape, dtype=np.float32) for value in session.get_inputs()}
    session.run(None, inputs)
    started = time.perf_counter()
    session.run(None, inputs)
    took = time.perf_counter() - started
    _write_slower(model, slower, round(rounds * seconds / took))


def _write_slower(model: Path, slower: Path, rounds: int) -> None:
    """Put a loop of matrix products, which add nothing, in front of the observation."""
    loaded = onnx.load(str(model))
    graph, size = loaded.graph, 256
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == 'observation':
                node.input[index] = 'slow_observation'
    square = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in 'xy']
    body = helper.make_graph(
        [
            helper.make_node('MatMul', ['x', 'slow_matrix'], ['y']),
            helper.make_node('Identity', ['going'], ['going_on']),
        ],
        'body',
        [
            helper.make_tensor_value_info('round', TensorProto.INT64, []),
            helper.make_tensor_value_info('going', TensorProto.BOOL, []),
            square[0],
        ],
        [helper.make_tensor_value_info('going_on', TensorProto.BOOL, []), square[1]],
    )
    constants: dict[str, Any] = {
        'slow_matrix': np.zeros((size, size), np.float32),
        'slow_rounds': np.array(rounds, np.int64),
        'slow_going': np.array(True),
    }
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())
    first = [
        helper.make_node('ReduceMax', ['observation'], ['slow_value'], keepdims=0),
        helper.make_node('Mul', ['slow_matrix', 'slow_value'], ['slow_start']),
        helper.make_node(
            'Loop', ['slow_rounds', 'slow_going', 'slow_start'], ['slow_end'], body=body
        ),
        helper.make_node('ReduceMax', ['slow_end'], ['slow_nothing'], keepdims=0),
        helper.make_node('Add', ['observation', 'slow_nothing'], ['slow_observation']),
    ]
    nodes = [*first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(loaded, str(slower))


def write_classifier(
    path: Path, names: tuple[str, ...], gain: float = 1.0, bias: float = 0.0
) -> None:
    """Write a success classifier: probability = sigmoid(gain x first value + bias)."""
    weights = np.zeros((len(names), 1), dtype=np.float32)
    weights[0] = gain
    graph = helper.make_graph(
        [
            helper.make_node('MatMul', ['observation', 'weights'], ['product']),
            helper.make_node('Add', ['product', 'bias'], ['logit']),
            helper.make_node('Sigmoid', ['logit'], ['probability']),
        ],
        'classifier',
        [helper.make_tensor_value_info('observation', TensorProto.FLOAT, [1, len(names)])],
        [helper.make_tensor_value_info('probability', TensorProto.FLOAT, [1, 1])],
        [
            numpy_helper.from_array(weights, 'weights'),
            numpy_helper.from_array(np.array([bias], dtype=np.float32), 'bias'),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    text = json.dumps({'observation_names': list(names)})
    helper.set_model_props(model, {CLASSIFIER_METADATA_KEY: text})
    onnx.save(model, str(path))


def write_onnx_encoder(
    path: Path,
    height: int | None = 4,
    width: int | None = 6,
    bias: tuple[float, ...] = (0.0, 0.0, 0.0),
    names: tuple[str, str] = ('image', 'features'),
) -> None:
    """Write an image encoder whose features are the mean of each colour plus a bias."""
    image, features = names
    graph = helper.make_graph(
        [
            helper.make_node('Cast', [image], ['x'], to=TensorProto.FLOAT),
            helper.make_node('ReduceMean', ['x', 'axes'], ['mean'], keepdims=0),
            helper.make_node('Add', ['mean', 'bias'], [features]),
        ],
        'encoder',
        [helper.make_tensor_value_info(image, TensorProto.UINT8, [1, height, width, 3])],
        [helper.make_tensor_value_info(features, TensorProto.FLOAT, [1, 3])],
        [
            numpy_helper.from_array(np.array([1, 2]), 'axes'),
            numpy_helper.from_array(np.array(bias, dtype=np.float32), 'bias'),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    text = json.dumps({'feature_names': ['red', 'green', 'blue']})
    helper.set_model_props(model, {ENCODER_METADATA_KEY: text})
    onnx.save(model, str(path))
