# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A base policy with images, constants and a memory, whose numbers can be computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from robot_builders import make_metadata

from residual_rl_ros.base_policy.inputs import ConstantInput, ImageInput, MemoryInput
from residual_rl_ros.base_policy.metadata import METADATA_KEY, BasePolicyMetadata

INPUTS = (
    ImageInput('camera', 2, 3, ('red', 'green', 'blue')),
    ConstantInput('goal', (2,), default=(0.0, 0.0)),
    ConstantInput('tokens', (2,), 'int64', (0.0, 0.0)),
    MemoryInput('count', 'next_count', (1,)),
)


def metadata_of(**changes: Any) -> BasePolicyMetadata:
    """Return the metadata of `write_policy`."""
    values = {'n_obs_steps': 2, 'horizon': 2, 'exec_start': 0, 'exec_steps': 2, 'inputs': INPUTS}
    return make_metadata(**(values | changes))


def write_policy(path: Path, metadata: BasePolicyMetadata | None = None, mixed: str = '') -> Path:
    """Write action = mean of the newest image + goal + tokens + count + noise in each row.

    The count grows by one with every inference.

    Args:
        path: where.
        metadata: its metadata.
        mixed: what the features depend on beside the newest image: `older` images, or `goal`.
    """
    kinds = {'float': TensorProto.FLOAT, 'uint8': TensorProto.UINT8, 'int64': TensorProto.INT64}

    def tensor(name: str, kind: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kinds[kind], ['batch', *shape])

    constants = {
        'newest': np.array(1, dtype=np.int64),
        'zeros': np.zeros((3, 2), dtype=np.float32),
        'one': np.ones((1, 1), dtype=np.float32),
        'rows': np.array([1], dtype=np.int64),
        'pixels': np.array([1, 2], dtype=np.int64),
        'colours': np.array([1], dtype=np.int64),
        'axes': np.array([1, 2, 3], dtype=np.int64),
    }
    nodes = [
        helper.make_node('Gather', ['camera', 'newest'], ['image'], axis=1),
        helper.make_node('Cast', ['image'], ['numbers'], to=TensorProto.FLOAT),
        helper.make_node('ReduceMean', ['numbers', 'pixels'], ['mean'], keepdims=0),
        *_features(mixed),
        helper.make_node('ReduceMean', ['camera.features', 'colours'], ['grey'], keepdims=1),
        helper.make_node('MatMul', ['observation', 'zeros'], ['still']),
        helper.make_node('Cast', ['tokens'], ['words'], to=TensorProto.FLOAT),
        helper.make_node('Sum', ['grey', 'goal', 'words', 'count'], ['row']),
        helper.make_node('Unsqueeze', ['row', 'rows'], ['chunk']),
        helper.make_node('Sum', ['still', 'chunk', 'noise'], ['action']),
        helper.make_node('Add', ['count', 'one'], ['next_count']),
    ]
    inputs = [
        *(tensor('observation', 'float', 2, 3), tensor('noise', 'float', 2, 2)),
        *(tensor('camera', 'uint8', 2, 2, 3, 3), tensor('goal', 'float', 2)),
        *(tensor('tokens', 'int64', 2), tensor('count', 'float', 1)),
    ]
    outputs = [
        *(tensor('action', 'float', 2, 2), tensor('camera.features', 'float', 3)),
        tensor('next_count', 'float', 1),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, 'inputs', inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: (metadata or metadata_of()).to_json()})
    onnx.save(model, str(path))
    return path


def _features(mixed: str) -> list[onnx.NodeProto]:
    """Return the nodes that make the features of the mean of the newest image."""
    if mixed == 'older':
        return [
            helper.make_node('Cast', ['camera'], ['all'], to=TensorProto.FLOAT),
            helper.make_node('ReduceMax', ['all', 'axes'], ['most'], keepdims=0),
            helper.make_node('Add', ['mean', 'most'], ['camera.features']),
        ]
    if mixed == 'goal':
        return [
            helper.make_node('ReduceMean', ['goal', 'colours'], ['middle'], keepdims=1),
            helper.make_node('Add', ['mean', 'middle'], ['camera.features']),
        ]
    return [helper.make_node('Identity', ['mean'], ['camera.features'])]
