# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A small ONNX file must neither fill the memory, nor run for ever, nor end its process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from base_policy_builders import write_onnx_policy
from onnx import TensorProto, helper, numpy_helper

from residual_rl_ros.checks.base_policy import try_base_policy
from residual_rl_ros.errors import BasePolicyError
from residual_rl_ros.robot.onnx_model import read_model

Change = Callable[[Any], None]
OWN = [helper.make_opsetid('', 17), helper.make_opsetid('own', 1)]


def before(model: Any, nodes: Sequence[Any], constants: dict[str, Any] | None = None) -> None:
    """Put operators before the graph: the last one gives `seen`, which it takes for observation."""
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == 'observation':
                node.input[index] = 'seen'
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    for name, value in (constants or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def added(make: Any, *more: Any) -> list[Any]:
    """Return operators that add the mean of a tensor `made` to the observation."""
    total = helper.make_node('ReduceMean', ['made'], ['level'], keepdims=0)
    return [make, *more, total, helper.make_node('Add', ['observation', 'level'], ['seen'])]


def divides(kind: str, divisor: int) -> Change:
    cast = helper.make_node('Cast', ['observation'], ['whole'], to=TensorProto.INT64)
    divide = helper.make_node(kind, ['whole', 'divisor'], ['quotient'])
    back = helper.make_node('Cast', ['quotient'], ['seen'], to=TensorProto.FLOAT)
    return lambda model: before(model, [cast, divide, back], {'divisor': [divisor]})


def divides_by_what_it_sees(model: Any) -> None:
    cast = helper.make_node('Cast', ['observation'], ['whole'], to=TensorProto.INT64)
    divide = helper.make_node('Div', ['whole', 'whole'], ['quotient'])
    before(
        model,
        [cast, divide, helper.make_node('Cast', ['quotient'], ['seen'], to=TensorProto.FLOAT)],
    )


def shaped(kind: str, count: int) -> Change:
    inputs = ['shape'] if kind == 'ConstantOfShape' else ['one', 'shape']
    make = helper.make_node(kind, inputs, ['made'])
    constants = {'shape': np.array([count]), 'one': np.float32(1.0)}
    return lambda model: before(model, added(make), constants)


def sparse(count: int) -> Change:
    values = numpy_helper.from_array(np.ones(1, np.float32), 'values')
    indices = numpy_helper.from_array(np.array([0]), 'indices')
    tensor = onnx.SparseTensorProto(values=values, indices=indices, dims=[count])
    make = helper.make_node('Constant', [], ['made'], sparse_value=tensor)
    return lambda model: before(model, added(make))


def loops(rounds: int) -> Change:
    flag = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node('Identity', ['go'], ['on']), helper.make_node('Identity', ['x'], ['y'])],
        'body',
        [
            flag('round', TensorProto.INT64, []),
            flag('go', TensorProto.BOOL, []),
            flag('x', TensorProto.FLOAT, None),
        ],
        [flag('on', TensorProto.BOOL, []), flag('y', TensorProto.FLOAT, None)],
    )
    loop = helper.make_node('Loop', ['rounds', 'yes', 'observation'], ['seen'], body=body)
    return lambda model: before(model, [loop], {'rounds': np.array(rounds), 'yes': np.array(True)})


def calls(depth: int, times: int, itself: bool = False) -> Change:
    """Return a change to functions of which each calls the one before it so many times."""

    def change(model: Any) -> None:
        for level in range(depth):
            called = level if itself else level - 1
            nodes = [helper.make_node('Identity', ['x'], ['y'])]
            if level or itself:
                names = ['x', *(f't{each}' for each in range(times - 1)), 'y']
                nodes = [
                    helper.make_node(f'F{called}', [one], [other], domain='own')
                    for one, other in pairwise(names)
                ]
            model.functions.append(
                helper.make_function('own', f'F{level}', ['x'], ['y'], nodes, OWN)
            )
        model.opset_import.append(helper.make_opsetid('own', 1))
        last = helper.make_node(f'F{depth - 1}', ['observation'], ['seen'], domain='own')
        before(model, [last])

    return change


def changed(path: Path, change: Change) -> Path:
    write_onnx_policy(path)
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (divides('Div', 0), 'Div .* divides whole numbers by zero'),
        (divides('Mod', 0), 'Mod .* divides whole numbers by zero'),
        (shaped('ConstantOfShape', 10**9), 'ConstantOfShape .* makes 1000000000 numbers'),
        (shaped('Expand', 10**9), 'Expand .* makes 1000000000 numbers'),
        (sparse(10**9), 'makes 1000000000 numbers'),
        (loops(2**62), 'has 4611686018427387904 rounds'),
        (calls(1, 1, itself=True), "function 'F0' calls itself"),
        (calls(30, 2), 'operators when it is written out'),
    ],
)
def test_a_graph_without_bounds_is_refused_before_it_is_loaded(
    tmp_path: Path, change: Change, reason: str
) -> None:
    with pytest.raises(BasePolicyError, match=reason):
        read_model(changed(tmp_path / 'a.onnx', change), 'base policy', BasePolicyError)


@pytest.mark.parametrize(
    'change',
    [divides('Div', 2), shaped('ConstantOfShape', 1000), sparse(1000), loops(3), calls(5, 2)],
)
def test_what_networks_have_is_not(tmp_path: Path, change: Change) -> None:
    report = try_base_policy(changed(tmp_path / 'a.onnx', change))
    assert report.problems == []


def test_a_model_that_ends_its_process_is_named(tmp_path: Path) -> None:
    report = try_base_policy(changed(tmp_path / 'a.onnx', divides_by_what_it_sees))
    (problem,) = report.problems
    assert problem.startswith('a.onnx: it ended the process that tried it (exit code -')
