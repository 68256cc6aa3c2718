# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The robot and the base policy of `bench control`."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from residual_rl_ros.base_policy.metadata import METADATA_KEY, BasePolicyMetadata
from residual_rl_ros.robot.description import robot_yaml
from residual_rl_ros.transitions.layout import TransitionLayout

N, M, HORIZON = 40, 7, 16
RESIDUAL_SCALE = 0.05
SLACK = 4.0
"""A chunk of a slow base policy lasts for so many inferences more."""
SIZE = 256
"""Rows of the matrices that a slow base policy multiplies."""
TRIALS = 64
LAYOUT = TransitionLayout(
    observation_names=tuple(f'state.x{number}' for number in range(N)),
    action_names=tuple(f'joint{number}.position' for number in range(M)),
    decision_steps=1,
    action_min=(-1.0,) * M,
    action_max=(1.0,) * M,
    residual_bound=(RESIDUAL_SCALE,) * M,
)


def write_robot(path: Path, rate: float) -> Path:
    """Write the description of a robot."""
    actions = [f'joint{number}.position' for number in range(M)]
    robot = {
        'name': 'bench',
        'control_rate_hz': rate,
        'command': {'topic': 'commands', 'type': 'std_msgs/msg/Float64MultiArray'},
        'action': {
            'names': actions,
            'lower': [-3.0] * M,
            'upper': [3.0] * M,
            'max_velocity': [1000.0] * M,
        },
        'observation': {
            'channels': ['state'],
            'state': {
                'topic': 'state',
                'type': 'std_msgs/msg/Float64MultiArray',
                'fields': [f'x{number}' for number in range(N)],
                'max_age_s': 0.5,
            },
        },
    }
    path.write_text(robot_yaml(robot))
    return path


def write_base_policy(path: Path, rate: float, inference_s: float = 0.0) -> Path:
    """Write a linear base policy; its inference is not what is measured.

    Args:
        path: of the ONNX file.
        rate: control rate [Hz].
        inference_s: how long an inference is to compute [s]; 0: no longer than it must.
    """
    executed = HORIZON // 2 + math.ceil(SLACK * inference_s * rate)
    horizon = 2 * executed
    metadata = BasePolicyMetadata(
        observation_names=LAYOUT.observation_names,
        action_names=LAYOUT.action_names,
        action_min=LAYOUT.action_min,
        action_max=LAYOUT.action_max,
        rate_hz=rate,
        n_obs_steps=1,
        horizon=horizon,
        exec_start=0,
        exec_steps=executed,
    )
    repeats = round(inference_s / _product_s()) if inference_s else 0
    weights = 0.1 * np.random.default_rng(0).standard_normal((N, horizon * M))
    constants: dict[str, npt.NDArray[Any]] = {
        'weights': weights.astype(np.float32),
        'row': np.array([1, N], dtype=np.int64),
        'chunk': np.array([1, horizon, M], dtype=np.int64),
        'unit': np.eye(SIZE, dtype=np.float32),
        'zero': np.zeros((1, 1, 1), dtype=np.float32),
    }
    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node('Reshape', ['observation', 'row'], ['flat']),
            helper.make_node('MatMul', ['flat', 'weights'], ['product']),
            helper.make_node('Reshape', ['product', 'chunk'], ['fast']),
            *_labour(repeats),
            helper.make_node('Add', ['fast', 'nothing'], ['action']),
        ],
        'linear',
        [helper.make_tensor_value_info('observation', float32, (1, 1, N))],
        [helper.make_tensor_value_info('action', float32, (1, horizon, M))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.save(model, str(path))
    return path


def _labour(repeats: int) -> list[onnx.NodeProto]:
    """Return so many products of matrices, which depend on the observation, and give zero."""
    products = [
        helper.make_node('MatMul', [f'busy{number}', 'unit'], [f'busy{number + 1}'])
        for number in range(repeats)
    ]
    return [
        helper.make_node('ReduceMean', ['flat'], ['mean'], keepdims=1),
        helper.make_node('Add', ['unit', 'mean'], ['busy0']),
        *products,
        helper.make_node('ReduceMean', [f'busy{repeats}'], ['worked'], keepdims=1),
        helper.make_node('Mul', ['worked', 'zero'], ['nothing']),
    ]


def _product_s() -> float:
    """Return how long one product takes on this computer [s]."""
    square = helper.make_tensor_value_info('flat', TensorProto.FLOAT, (1, N))
    zero = helper.make_tensor_value_info('nothing', TensorProto.FLOAT, (1, 1, 1))
    constants = {'unit': np.eye(SIZE), 'zero': np.zeros((1, 1, 1))}
    graph = helper.make_graph(
        _labour(TRIALS),
        'labour',
        [square],
        [zero],
        [
            numpy_helper.from_array(each.astype(np.float32), name)
            for name, each in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    taken = []
    for _ in range(10):
        started = time.thread_time()  # Whatever else the computer does meanwhile.
        session.run(['nothing'], {'flat': np.ones((1, N), dtype=np.float32)})
        taken.append(time.thread_time() - started)
    return min(taken) / TRIALS
